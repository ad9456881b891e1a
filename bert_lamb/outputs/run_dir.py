"""The layout of a run directory, and writing to it so that a killed run leaves nothing half done.

RUN/lock               held while a process works here
RUN/config.yaml        the resolved configuration
RUN/outcome.json       the part of it that decides what is learnt; written last, and resuming asks for the same
RUN/vocab.txt          the vocabulary of the shards (pretraining)
RUN/versions.json      versions, hardware, git commit, command
RUN/metrics.jsonl      one line per event (METRICS.md)
RUN/micro_batch.json   how many sequences fit, where runtime.micro_batch_size=auto
RUN/checkpoints/PHASE-STEP/            complete; PHASE-STEP.ATTEMPT.partial is being written, or was when a process died
RUN/checkpoints/PHASE-STEP.damaged/    passed over by a resumed run, until it has saved that step again or a later one
RUN/profile/           a trace of some steps, where runtime.profile asks for one
RUN/report.json, RUN/report.html   written by `bert-lamb report`
"""

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import PARTIAL_SUFFIX, write_atomically
from bert_lamb.outputs.if_exists import Decision, State, check_if_same, decide
from bert_lamb.outputs.provenance import versions
from bert_lamb.outputs.read_back import read_object

CONFIG_FILE, OUTCOME_FILE, VOCABULARY_FILE = "config.yaml", "outcome.json", "vocab.txt"
VERSIONS_FILE, METRICS_FILE, CHECKPOINTS = "versions.json", "metrics.jsonl", "checkpoints"
PROFILE_FOLDER, MICRO_BATCH_FILE = "profile", "micro_batch.json"
LOCK_FILE = "lock"
OPTION = "run_dir"

OUR_NAMES = {CONFIG_FILE, OUTCOME_FILE, VOCABULARY_FILE, VERSIONS_FILE, METRICS_FILE, CHECKPOINTS, LOCK_FILE}
OUR_NAMES |= {"report.json", "report.html", "wandb", "tensorboard", PROFILE_FOLDER, MICRO_BATCH_FILE}

DAMAGED_SUFFIX = ".damaged"
CHECKPOINT_NAME = re.compile(r"(?P<phase>.+)-(?P<step>\d{7,})")
UNFINISHED_NAME = re.compile(rf"{CHECKPOINT_NAME.pattern}(\.[0-9a-f]+)?{re.escape(PARTIAL_SUFFIX)}")
FILE_OF_CHECKPOINT = re.compile(r"(checkpoint|rank-\d+-of-\d+)\.(json|safetensors)(\.partial)?")


@dataclass(frozen=True)
class RunKind:
    """What a command keeps in its run directories.

    name: with its article. mark: a key of outcome.json that only this kind has. results: names of files and folders
    that it leaves beside those of every run.
    """

    name: str
    mark: str
    results: frozenset[str] = frozenset()


PRETRAINING = RunKind("a run of pretraining", mark="phases")


class RunDir:
    """One run's folder."""

    def __init__(self, path: Path, kind: RunKind = PRETRAINING) -> None:
        self.path, self.kind = path, kind

    @property
    def is_started(self) -> bool:
        return (self.path / OUTCOME_FILE).exists()

    def _stranger(self) -> str | None:
        """What is in the way: a file, something that no such run writes, a run of another kind, checkpoints of none."""
        if not self.path.is_dir() and (self.path.exists() or self.path.is_symlink()):
            return "a file" if self.path.exists() else "a link to nothing"
        names = {path.name for path in self.path.glob("*")}
        strangers = {name for name in names if name.removesuffix(PARTIAL_SUFFIX) not in OUR_NAMES | self.kind.results}
        if strangers:
            return ", ".join(sorted(strangers)[:3])
        if not self.is_started:
            return f"{CHECKPOINTS} without {OUTCOME_FILE}" if CHECKPOINTS in names else None
        return None if self.kind.mark in self._outcome() else "a run of another command"

    def _outcome(self) -> dict[str, Any]:
        """What the run that is there was begun with; raises UserError for a file that is damaged."""
        fix = "restore it, or set run_dir, or move the folder away yourself; it is never deleted"
        return read_object(self.path / OUTCOME_FILE, expected="what the run wrote there", fix=fix)

    def decide(self, if_exists: str) -> Decision:
        """What to do with the folder (see if_exists.py); raises UserError. A run that has finished is continued too."""
        stranger = self._stranger()
        state = State.foreign if stranger else State.unfinished if self.is_started else State.absent
        return decide(state, self.path, kind=self.kind.name, option=OPTION, if_exists=if_exists, detail=stranger or "")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder for this process as long as it works there, however it ends; made if it is not there.

        Raises UserError when another process holds it, or when it holds anything that is not a run's.
        """
        self.decide("resume")
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            stream = (self.path / LOCK_FILE).open("w")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    found=f"another process at work in {self.path}",
                    expected="one at a time",
                    fix="wait for it or stop all its ranks, or set run_dir",
                ) from error
            except OSError as error:
                raise UserError(
                    found=f"a file system at {self.path} that cannot lock files ({error})",
                    expected="one that can, so that two runs never write to one folder",
                    fix="set run_dir to another file system, or mount this one with locking (Lustre: -o flock)",
                ) from error
            yield

    def admit(self, *, config_yaml: str, outcome: dict[str, Any], vocabulary: Path | None, if_exists: str) -> None:
        """Make the folder, which is held, ready for a run with this configuration, or refuse.

        vocabulary: the vocab.txt to keep with the run; None for a run whose model folder has it.
        outcome: the part of the configuration that decides what is learnt; a run is only continued with the same one.
        if_exists: refuse, resume or restart (see if_exists.py). Raises UserError.
        """
        decision = self.decide(if_exists)
        with self.writing():
            if decision is Decision.replace:
                self._empty()
            if decision is Decision.resume:
                self.check_if_same(outcome)
                self.remove_leftovers()
            write_atomically(self.path / VERSIONS_FILE, json.dumps(versions(), indent=1) + "\n")
            if vocabulary is not None:
                write_atomically(self.path / VOCABULARY_FILE, vocabulary.read_bytes().decode("utf-8"))
            write_atomically(self.path / CONFIG_FILE, config_yaml)
            write_atomically(self.path / OUTCOME_FILE, json.dumps(outcome, indent=1, sort_keys=True) + "\n")

    def check_if_same(self, outcome: dict[str, Any]) -> None:
        """UserError where the run that is there was begun with another outcome."""
        now = json.loads(json.dumps(outcome))
        check_if_same(self._outcome(), now, self.path, kind=self.kind.name, option=OPTION)

    def _empty(self) -> None:
        """Delete the run; what makes the folder ours goes last, so that a kill leaves it ours."""
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == OUTCOME_FILE):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK_FILE:
                entry.unlink()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What the file system refuses inside is a mistake of the user's to fix."""
        try:
            yield
        except OSError as error:
            raise UserError(
                found=f"run_dir={self.path} that cannot be written ({error.strerror or error})",
                expected="a folder, or the place for one, in which this user may write",
                fix="set run_dir, or change the rights or the room there",
            ) from error

    def checkpoint_dir(self, phase: str, step: int) -> Path:
        return self.path / CHECKPOINTS / f"{phase}-{step:07d}"

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, by the number of steps since the start of the run, as they say themselves."""
        complete = [path / "checkpoint.json" for *_, path in self.checkpoint_folders()]
        return [path.parent for path in sorted(filter(Path.is_file, complete), key=_total_step)]

    def checkpoint_folders(self) -> list[tuple[str, int, Path]]:
        """(phase, step, folder) of whatever is called like a complete checkpoint, by step; it may be damaged."""
        found = [(CHECKPOINT_NAME.fullmatch(path.name), path) for path in (self.path / CHECKPOINTS).glob("*")]
        named = [(name["phase"], int(name["step"]), path) for name, path in found if name]
        return sorted(named, key=lambda each: each[1:])

    def checkpoint(self, name: str) -> Path:
        """The checkpoint with this folder name, or the `latest`; raises UserError when there is none."""
        named = self.path / CHECKPOINTS / name
        if name != "latest" and named.parent == self.path / CHECKPOINTS and (named / "checkpoint.json").is_file():
            return named  # whatever is wrong with others
        folders = {path.name: path for path in self.checkpoints()}
        if name == "latest" and folders:
            return list(folders.values())[-1]
        if name not in folders:
            raise UserError(
                found=f"no checkpoint {name!r} in {self.path}",
                expected=f"one of {', '.join(folders) or '(none yet)'}",
                fix="set run_dir or checkpoint",
            )
        return folders[name]

    def remove_old_checkpoints(self, phase: str, *, keep_last: int, keep_every: int = 0) -> None:
        """Within a phase, keep only the newest `keep_last` checkpoints of those by steps, and the newest by the clock.

        So what is saved against the loss of a machine does not push out what was asked for; the newest of all stays.
        keep_every: those whose step is a multiple of it stay for ever; 0: none.
        """
        of_phase = {step: path for name, step, path in self.checkpoint_folders() if name == phase}
        by_clock = [step for step, path in of_phase.items() if _is_by_clock(path / "checkpoint.json")]
        by_steps = [step for step in of_phase if step not in by_clock]
        for step in (*by_steps[:-keep_last], *by_clock[:-1]):
            if keep_every == 0 or step % keep_every:
                shutil.rmtree(of_phase[step])

    def set_aside(self, checkpoint: Path) -> None:
        """Rename a damaged checkpoint, so that it neither counts as one nor is in the way of its step."""
        aside = checkpoint.with_name(checkpoint.name + DAMAGED_SUFFIX)
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)

    def forget_damaged(self, phase: str, step: int) -> None:
        """Delete the phase's damaged checkpoints up to `step`, of which there is a complete one now."""
        for folder in (self.path / CHECKPOINTS).glob(f"*{DAMAGED_SUFFIX}"):
            name = CHECKPOINT_NAME.fullmatch(folder.name.removesuffix(DAMAGED_SUFFIX))
            if name and name["phase"] == phase and int(name["step"]) <= step:
                shutil.rmtree(folder)

    def remove_leftovers(self) -> None:
        """Delete the checkpoints that a process was writing when it died; only for who holds the folder.

        A folder with anything that no checkpoint has is somebody's, and stays.
        """
        for folder in (self.path / CHECKPOINTS).glob(f"*{PARTIAL_SUFFIX}"):
            is_named = UNFINISHED_NAME.fullmatch(folder.name) is not None
            if is_named and folder.is_dir() and all(FILE_OF_CHECKPOINT.fullmatch(e.name) for e in folder.iterdir()):
                shutil.rmtree(folder)


def _is_by_clock(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_bytes()).get("is_by_clock", False))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False  # damaged since it was written, by no clock of ours


def _total_step(file: Path) -> int:
    """Optimizer steps since the start of the run, as checkpoint.json says."""
    try:
        total_step = json.loads(file.read_bytes())["total_step"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        total_step = None
    if type(total_step) is not int:
        raise UserError(
            found=f"no readable checkpoint.json in {file.parent}",
            expected="a checkpoint with its total_step",
            fix="remove that folder to use the checkpoint before it, or name another one",
        )
    return total_step
