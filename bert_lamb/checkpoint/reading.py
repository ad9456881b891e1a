"""Read a checkpoint: any range of any parameter, so that a run resumes on other ranks, another stage or engine."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bert_lamb.checkpoint.meta import BUFFER, BUFFERS, META_FILE, Damaged, read_meta
from bert_lamb.checkpoint.position import Position
from bert_lamb.engine.protocol import Engine
from bert_lamb.errors import UserError
from bert_lamb.outputs.hashing import file_sha256


class Checkpoint:
    """A complete checkpoint folder, opened for reading; raises Damaged, and UserError for one of another version.

    Opening compares sizes and structure; `check_bytes` reads all there is, and whoever trains on or exports calls it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.meta = read_meta(directory)
        self.position = Position(**self.meta["position"])
        self.shapes = {name: torch.Size(shape) for name, shape in self.meta["shapes"].items()}
        self.buffers = {name: torch.Size(shape) for name, shape in self.meta.get(BUFFERS, {}).items()}
        self._where: dict[tuple[str, str], list[tuple[int, int, str, str]]] = defaultdict(list)
        self._check_files()
        for file in self.meta["files"]:
            self._list_fragments(file)
        self._check_if_complete()

    @property
    def has_hashes(self) -> bool:
        """False for a checkpoint of format version 2, of which `check_bytes` can say nothing."""
        return all(written["sha256"] is not None for written in self.meta["files"].values())

    def check_bytes(self, share: int = 0, num_shares: int = 1) -> None:
        """Compare the sha256 of every file; raises Damaged.

        share: ranks deal the files out among them, since all see the same; of a checkpoint of as many ranks each reads
        what it will load.
        """
        for file in sorted(self.meta["files"])[share::num_shares]:
            path, sha256 = self.directory / file, self.meta["files"][file]["sha256"]
            try:
                is_same = sha256 is None or file_sha256(path) == sha256
            except OSError as error:
                raise Damaged(
                    found=f"{path} that cannot be read ({error.strerror or error})",
                    expected="what a rank wrote there",
                    fix="use an earlier checkpoint",
                ) from error
            if not is_same:
                raise Damaged(
                    found=f"other bytes in {path} than were written",
                    expected=f"those of sha256 {sha256[:12]}...",
                    fix="use an earlier checkpoint",
                )

    def _check_files(self) -> None:
        """The ranks' files are those that checkpoint.json names, no less and no more, each of its size."""
        for file, written in self.meta["files"].items():
            path, num_bytes = self.directory / file, written["bytes"]
            if not path.is_file() or path.stat().st_size != num_bytes:
                size = f"{path.stat().st_size} bytes" if path.is_file() else "nothing"
                raise Damaged(found=f"{size} at {path}", expected=f"{num_bytes} bytes", fix="use an earlier checkpoint")
        strangers = sorted(
            {path.name for path in self.directory.glob("rank-*.safetensors")} - self.meta["files"].keys()
        )
        if strangers:
            raise Damaged(
                found=f"{self.directory / strangers[0]}, which {META_FILE} does not name",
                expected=f"the files of {len(self.meta['files'])} ranks",
                fix="remove it if it came from another checkpoint, or use an earlier one",
            )

    def _list_fragments(self, file: str) -> None:
        """Note where each fragment of a rank's file is."""
        path = self.directory / file
        try:
            with safe_open(path, framework="pt") as opened:
                slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (safe_open is no dict)
                found = {key: (one.get_shape(), one.get_dtype()) for key, one in slices.items()}
        except (SafetensorError, OSError) as error:
            raise Damaged(
                found=f"{path} that cannot be read as safetensors ({' '.join(str(error).split())})",
                expected="what a rank wrote there",
                fix="use an earlier checkpoint",
            ) from error
        for key, (shape, dtype) in found.items():
            kind, _, rest = key.partition("/")
            name, _, start = rest.rpartition("/")
            is_known = name in (self.buffers if kind == BUFFER else self.shapes) and start.isdecimal()
            is_known = is_known and kind in (*self.meta["tensor_kinds"], BUFFER)
            if not is_known or len(shape) != 1 or dtype != "F32":
                raise Damaged(
                    found=f"{key} ({dtype}, {len(shape)}-dimensional) in {path}",
                    expected=f"fp32 fragments of what {META_FILE} names",
                    fix="use an earlier checkpoint",
                )
            self._where[kind, name].append((int(start), int(start) + shape[0], file, key))

    def read(self, kind: str, name: str, start: int, numel: int) -> Tensor:
        """Elements start..start+numel of the flattened parameter or buffer `name`, [numel] fp32.

        kind: "weight" or a moment; "buffer" of a buffer.
        """
        out = torch.empty(numel)
        for begin, end, file, key in self._where[kind, name]:
            first, last = max(begin, start), min(end, start + numel)
            if first < last:
                with safe_open(self.directory / file, framework="pt") as opened:
                    out[first - start : last - start] = opened.get_slice(key)[first - begin : last - begin]
        return out

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter by name, whole, in fp32."""
        for name, shape in self.shapes.items():
            yield name, self.read("weight", name, 0, shape.numel()).view(shape)

    def load_weights(self, model: nn.Module) -> None:
        """Copy every weight into the parameter of its name, and every buffer into the buffer."""
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        with torch.no_grad():
            for name, weight in self.weights():
                parameters[name].copy_(weight)
            for name, shape in self.buffers.items():
                buffers[name].copy_(self.read(BUFFER, name, 0, shape.numel()).view(shape))

    def load_into(self, engine: Engine) -> None:
        """Copy weights, moments and buffers into the state this engine's rank computes with, not the position.

        The engine must have been built on a model that already holds `weights()`, so that the copies in compute
        precision agree with the masters written here.
        """
        for fragment in engine.held_fragments():
            if set(fragment.tensors) != set(self.meta["tensor_kinds"]):
                raise UserError(
                    found=f"{', '.join(self.meta['tensor_kinds'])} in {self.directory}",
                    expected=f"{', '.join(fragment.tensors)}, which this optimizer needs",
                    fix="resume with the optimizer that wrote it",
                )
            for kind, tensor in fragment.tensors.items():
                tensor.copy_(self.read(kind, fragment.name, fragment.start, fragment.numel))
        of_engine = engine.buffers
        if of_engine.keys() != self.buffers.keys():
            raise UserError(
                found=f"buffers {', '.join(self.buffers) or 'none'} in {self.directory}",
                expected=f"{', '.join(of_engine) or 'none'}, which this model has",
                fix="resume with the model that wrote it",
            )
        for name, buffer in of_engine.items():
            buffer.copy_(self.read(BUFFER, name, 0, buffer.numel()).view(buffer.shape))

    def _check_if_complete(self) -> None:
        of_parameters = {
            (kind, name): shape for name, shape in self.shapes.items() for kind in self.meta["tensor_kinds"]
        }
        of_buffers = {(BUFFER, name): shape for name, shape in self.buffers.items()}
        for (kind, name), shape in (of_parameters | of_buffers).items():
            position, is_sound = 0, True
            for begin, end, *_ in sorted(self._where[kind, name]):
                is_sound = is_sound and begin == position
                position = end if is_sound else position
            if not is_sound or position != shape.numel():
                raise Damaged(
                    found=f"{position} of {shape.numel()} elements of {kind} of {name} in {self.directory}",
                    expected="all of them, once",
                    fix="use an earlier checkpoint",
                )
