"""Where a task's examples come from: a folder, single files, or a Hugging Face data set; found, read and hashed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.finetuning.glue.examples import READERS, Example, read_rows
from bert_lamb.finetuning.glue.folders import EXPECTED_FILE, check_folder, input_files, read_text
from bert_lamb.finetuning.glue.tasks import GlueTask
from bert_lamb.finetuning.hub import hash_of, hub_rows
from bert_lamb.outputs.hashing import file_sha256


@dataclass(frozen=True)
class Sources:
    """What a task is made of, before anything is read.

    files: split -> a file that takes the place of the folder's. is_trained: False predicts and scores only.
    is_pretrained: False: weights are drawn, not read.
    """

    task: GlueTask
    model_dir: Path
    data_dir: Path | None
    files: dict[str, Path]
    dataset: str | None
    is_trained: bool
    is_pretrained: bool

    def read(self, process: Process) -> "Inputs":
        """Every example; UserError for files and folders that cannot be used."""
        check_folder(self.model_dir)
        if self.dataset is not None:
            names = {split: f"{self.dataset}, {split}" for split in self._wanted_splits(set(self.task.splits))}
            examples = {
                split: read_rows(self._hub_rows(split), name, self.task, split) for split, name in names.items()
            }
            return Inputs(self, {}, examples)
        files = self.found_files()
        examples = {}
        for split, file in files.items():
            text = read_text(file)
            examples[split], num_left_out = READERS[file.suffix](text, str(file), self.task, split)
            if num_left_out and process.is_main:
                print(f"{file}: {num_left_out:,} lines that are cut in two are left out, as is usual", flush=True)
        return Inputs(self, files, examples)

    def _hub_rows(self, split: str) -> Iterator[Mapping[str, Any]]:
        """dataset: glue, nyu-mll/glue, or with the task behind it (glue/mrpc)."""
        assert self.dataset is not None
        return hub_rows(
            self.dataset.removesuffix(f"/{self.task.name}"),
            self.task.name,
            split.replace("dev", "validation"),
            option=f"dataset={self.dataset}",
            instead="set data_dir to a folder with the files",
        )

    def found_files(self) -> dict[str, Path]:
        """Split -> its file; UserError where a training or development set is missing. Test sets may be."""
        unknown = sorted(self.files.keys() - set(self.task.splits))
        if unknown:
            raise UserError(
                found=f"files.{unknown[0]}",
                expected=f"a split of {self.task.folder}: {', '.join(self.task.splits)}",
                fix=f"set one of them instead of files.{unknown[0]}",
            )
        found = {split: self._file_of(split) for split in self.task.splits}
        there = {split: file for split, file in found.items() if file is not None}
        wanted = self._wanted_splits(set(there))
        missing = [split for split in wanted if split not in there]
        if missing:
            where = self.data_dir if self.data_dir is not None else "files"
            raise UserError(
                found=f"no {missing[0]}.tsv or {missing[0]}.jsonl in {where}",
                expected=f"the files of {self.task.folder}, or its folder {self.task.folder}",
                fix=f"set data_dir to the folder with them, or files.{missing[0]}",
            )
        return {split: there[split] for split in wanted}

    def _wanted_splits(self, there: set[str]) -> list[str]:
        task = self.task
        tests = [split for split in task.test_splits if split in there]
        return [*(["train"] if self.is_trained else []), *task.dev_splits, *tests]

    def _file_of(self, split: str) -> Path | None:
        if split in self.files:
            file = self.files[split]
            if file.suffix not in READERS:
                raise UserError(found=f"files.{split}={file}", expected=EXPECTED_FILE, fix=f"set files.{split}")
            return file
        if self.data_dir is None:
            return None
        if not self.data_dir.is_dir():
            raise UserError(found=f"no folder {self.data_dir}", expected="the files of GLUE", fix="set data_dir")
        folders = [self.data_dir / self.task.folder, self.data_dir / self.task.name, self.data_dir]
        folder = next((folder for folder in folders if folder.is_dir()), self.data_dir)
        found = [folder / f"{split}{suffix}" for suffix in READERS if (folder / f"{split}{suffix}").exists()]
        if len(found) > 1:
            raise UserError(
                found=f"both {found[0].name} and {found[1].name} in {folder}",
                expected="one of them",
                fix=f"set files.{split} to the one that is meant",
            )
        return found[0] if found else None


@dataclass(frozen=True)
class Inputs:
    """What was read, and from which files; a data set of the hub has none."""

    sources: Sources
    files: dict[str, Path]
    examples: dict[str, list[Example]]

    def describe(self) -> dict[str, dict[str, str]]:
        """Name -> path and sha256 of everything that the scores depend on."""
        of_model = input_files(self.sources.model_dir, is_pretrained=self.sources.is_pretrained)
        files = {**self.files, **{f"model/{name}": file for name, file in of_model.items()}}
        described = {name: {"path": str(file), "sha256": file_sha256(file)} for name, file in files.items()}
        for split in self.examples.keys() - self.files.keys():
            described[split] = {"path": str(self.sources.dataset), "sha256": hash_of(self.examples[split])}
        return described

    def check_if_outside(self, run_dir: Path) -> None:
        """What is in run_dir may be deleted; models and data must be elsewhere."""
        for path in (self.sources.model_dir, *self.files.values()):
            if path.resolve().is_relative_to(run_dir.resolve()):
                raise UserError(
                    found=f"{path} inside run_dir={run_dir}",
                    expected="models and data elsewhere, since what was in run_dir is deleted",
                    fix="set run_dir",
                )
