"""What `source` names: a folder of Hugging Face, a TensorFlow checkpoint, or a file of another trainer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from bert_lamb.checkpoint.folder import model_config
from bert_lamb.checkpoint.folder.pretrained import VOCABULARY_ROWS
from bert_lamb.checkpoint.folder.stored import Stored
from bert_lamb.checkpoint.folder.weight_files import list_weights, weight_files
from bert_lamb.checkpoint.folder.weights import by_our_name
from bert_lamb.checkpoint.importing.google import from_google
from bert_lamb.checkpoint.importing.tensor_bundle import list_bundle
from bert_lamb.checkpoint.importing.trainers import list_trainer_file, refusal_of_stage_3
from bert_lamb.errors import UserError

CONFIG_NAMES = (model_config.NAME, "bert_config.json")
DEEPSPEED_FILE, DEEPSPEED_SECOND, DEEPSPEED_LATEST = (
    "mp_rank_00_model_states.pt",
    "mp_rank_01_model_states.pt",
    "latest",
)
INDEX_SUFFIX = ".index"
# Trainers pad the vocabulary to a multiple of 8 or more, so that matrices fit the tensor cores.
VOCABULARY_MULTIPLE, MAX_PADDING = 8, 127
OPTION = "source"


@dataclass(frozen=True)
class Source:
    """A checkpoint of somebody else. folder: where its configuration and vocabulary are looked for."""

    format: str
    folder: Path
    files: list[Path]  # with the weights
    stored: dict[str, Stored]  # by transformers' names


def open_source(path: Path) -> Source:
    """Find out what `path` is, from what is there, and list its weights; UserError for what cannot be used."""
    file = _deepspeed_file(path)
    prefix = _tensorflow_prefix(path)
    if file is not None:
        return Source("DeepSpeed checkpoint", file.parent, [file], by_our_name(list_trainer_file(file)))
    if prefix is not None:
        stored = list_bundle(prefix)
        files = [prefix.with_name(prefix.name + INDEX_SUFFIX), *sorted({one.file for one in stored})]
        return Source("TensorFlow checkpoint", prefix.parent, files, by_our_name(from_google(stored)))
    if path.is_dir():
        stored = list_weights(path, option=OPTION)
        return Source("Hugging Face folder", path, weight_files(path, option=OPTION), by_our_name(stored))
    if path.is_file():
        return Source("PyTorch checkpoint", path.parent, [path], by_our_name(list_trainer_file(path)))
    raise UserError(
        found=f"no file, folder or TensorFlow checkpoint {path}",
        expected="a model folder, a file of torch.save, or the prefix of a TensorFlow checkpoint",
        fix="set source",
    )


def _tensorflow_prefix(path: Path) -> Path | None:
    """The prefix that `path` is, belongs to, or holds as the only one; None where there is no index."""
    if path.is_dir():
        if any((path / name).exists() for name in ("model.safetensors", "pytorch_model.bin")):
            return None
        indices = sorted(path.glob(f"*{INDEX_SUFFIX}"))
        if len(indices) > 1:
            raise UserError(
                found=f"{len(indices)} checkpoints in {path}: {', '.join(one.stem for one in indices[:3])}",
                expected="one",
                fix=f"set source={indices[-1].with_suffix('')}",
            )
        return indices[0].with_suffix("") if indices else None
    for name in (path.name.removesuffix(INDEX_SUFFIX), path.name.partition(".data-")[0]):
        if path.with_name(name + INDEX_SUFFIX).is_file():
            return path.with_name(name)
    return None


def _deepspeed_file(path: Path) -> Path | None:
    """The file with the weights of a DeepSpeed checkpoint, by its folder or the folder above with `latest`."""
    folder = path
    if (path / DEEPSPEED_LATEST).is_file():
        tag = (path / DEEPSPEED_LATEST).read_text(encoding="utf-8", errors="replace").strip()
        folder = path / tag
    file = folder / DEEPSPEED_FILE if folder.is_dir() else folder
    if folder.is_dir() and not file.exists() and (parts := sorted(folder.glob(f"zero_pp_rank_*_{DEEPSPEED_FILE}"))):
        raise refusal_of_stage_3(f"{parts[0].name} in {folder} without {DEEPSPEED_FILE}")
    if file.name != DEEPSPEED_FILE or not file.is_file():
        return None
    if file.with_name(DEEPSPEED_SECOND).exists():
        raise UserError(
            found=f"{DEEPSPEED_SECOND} beside {file}",
            expected="a model that is not split over ranks",
            fix="save it with a model-parallel size of 1",
        )
    return file


def config_of(source: Source, given: Path | None) -> Path:
    """The file with the sizes of the model: the one given, or the one that lies beside the weights."""
    if given is not None:
        return require_file(given, "config")
    for name in CONFIG_NAMES:
        if (source.folder / name).is_file():
            return source.folder / name
    raise UserError(
        found=f"no {' and no '.join(CONFIG_NAMES)} in {source.folder}",
        expected="the sizes of the model",
        fix="set config to the json file with them",
    )


def require_file(file: Path, key: str) -> Path:
    """A file that the command line names; UserError, with the key, where there is none."""
    if not file.is_file():
        raise UserError(
            found=f"a folder at {key}={file}" if file.is_dir() else f"no file {key}={file}",
            expected="a file",
            fix=f"set {key}",
        )
    return file


def without_padding(stored: Mapping[str, Stored], vocab_size: int) -> tuple[dict[str, Stored], int]:
    """The weights without the rows that pad the vocabulary, and how many rows those are."""
    cut = dict(stored)
    num_cut = 0
    for name, one in stored.items():
        surplus = one.shape[0] - vocab_size if one.shape and name.endswith(VOCABULARY_ROWS) else 0
        if 0 < surplus <= MAX_PADDING and one.shape[0] % VOCABULARY_MULTIPLE == 0:
            cut[name] = replace(one, shape=(vocab_size, *one.shape[1:]), read=_first_rows(one, vocab_size))
            num_cut = surplus
    return cut, num_cut


def _first_rows(one: Stored, count: int) -> Callable[[], Tensor]:
    return lambda: one.read()[:count]
