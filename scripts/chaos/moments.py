"""Where a rank can be held: moments of a program, found by wrapping the product's functions in the rank's own process.

The product knows nothing of this. A rank that is held says so by a file and waits for another one, so that whoever
breaks it does so at that moment and no other.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

LOOK_SECONDS = 0.002  # between two looks whether a held rank may go on
CHECKPOINT = re.compile(r"(?P<phase>.+?)-(?P<step>\d{7})")


@dataclass(frozen=True)
class Hold:
    """A rank to be held, once: at the first `moment` that comes at this step of the phase or later.

    moment: a key of MOMENTS. number: of the hold in this start.
    """

    moment: str
    rank: int
    phase: str
    step: int
    number: int

    def here(self, folder: Path) -> Path:
        """Appears when the rank is there, with its process id."""
        return folder / f"{self.number}.here"

    def go(self, folder: Path) -> Path:
        """Lets the rank go on."""
        return folder / f"{self.number}.go"


class Place:
    """How far the loop of this process is."""

    phase, step = "", 0


class Watch:
    """Holds this rank when it comes by, once."""

    def __init__(self, hold: Hold, folder: Path) -> None:
        self.hold, self.folder, self.is_over = hold, folder, False

    def is_at(self, phase: str, step: int) -> bool:
        return not self.is_over and phase == self.hold.phase and step >= self.hold.step

    def is_here(self) -> bool:
        return self.is_at(Place.phase, Place.step)

    def is_at_folder(self, folder: Path) -> bool:
        """Whether a checkpoint's folder is that of the phase, at the step or later."""
        name = CHECKPOINT.match(folder.name)
        return name is not None and self.is_at(name["phase"], int(name["step"]))

    def stand(self) -> None:
        self.is_over = True
        here = self.hold.here(self.folder)
        temporary = here.with_suffix(".new")
        temporary.write_text(str(os.getpid()))
        temporary.rename(here)
        while not self.hold.go(self.folder).exists():
            time.sleep(LOOK_SECONDS)


def before(owner: Any, name: str, act: Callable[..., None]) -> None:
    """Have `act` called with the same arguments first."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        act(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, act: Callable[..., None]) -> None:
    """Have `act` called with the same arguments afterwards."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        act(*args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def follow_the_loop() -> None:
    """Keep Place as the loop goes from stage to stage and from step to step."""
    from bert_lamb.train import run
    from bert_lamb.train.schedule import Schedule

    def enter(stage: Any, *rest: Any, **more: Any) -> None:
        Place.phase, Place.step = stage.name, 0

    def take(schedule: Any, step: int) -> None:
        Place.step = step

    before(run, "train_stage", enter)
    before(Schedule, "lr", take)


def gradient(watch: Watch) -> None:
    from bert_lamb.train.schedule import Schedule

    before(Schedule, "lr", lambda schedule, step: watch.stand() if watch.is_at(Place.phase, step) else None)


def update(watch: Watch) -> None:
    from bert_lamb.train import loop

    before(loop, "add_over_ranks", lambda *rest: watch.stand() if watch.is_here() else None)


def line(watch: Watch) -> None:
    from bert_lamb.outputs.metrics import MetricsLog

    def halve(log: Any, kind: str, *, phase: str, step: int, **fields: Any) -> None:
        if kind == "step" and watch.is_at(phase, step):
            log._stream = HalfLine(log._stream or log.path.open("a", encoding="utf-8"), watch)

    before(MetricsLog, "write", halve)


class HalfLine:
    """A stream that holds its process within the first write."""

    def __init__(self, stream: IO[str], watch: Watch) -> None:
        self.stream, self.watch = stream, watch

    def write(self, text: str) -> None:
        half = len(text) // 2
        self.stream.write(text[:half])
        self.stream.flush()
        if not self.watch.is_over:
            self.watch.stand()
        self.stream.write(text[half:])

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        self.stream.close()


def evaluation(watch: Watch) -> None:
    from bert_lamb.data.batches import HeldoutBatches

    original = HeldoutBatches.of_rank

    def of_rank(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for number, batch in enumerate(original(*args, **kwargs)):
            if number == 1 and watch.is_here():
                watch.stand()
            yield batch

    HeldoutBatches.of_rank = of_rank  # type: ignore[method-assign]


def write(watch: Watch) -> None:
    from bert_lamb.checkpoint import writing

    def half(path: Path, sizes: Any, content: memoryview) -> None:
        if watch.is_at_folder(path.parent):
            path.write_bytes(bytes(content[: len(content) // 2]))
            watch.stand()

    before(writing, "write_rank_file", half)


def note(watch: Watch) -> None:
    from bert_lamb.checkpoint import writing

    before(writing, "write_atomically", lambda path, text: watch.stand() if watch.is_at_folder(path.parent) else None)


def publish(watch: Watch) -> None:
    from bert_lamb.checkpoint import writing

    def act(meta: dict[str, Any]) -> None:
        if watch.is_at(meta["position"]["phase"], meta["position"]["step"]):
            watch.stand()

    before(writing, "sealed", act)


def rename(watch: Watch) -> None:
    from bert_lamb.checkpoint import writing

    before(writing, "flush_to_disk", lambda path: watch.stand() if path.is_dir() and watch.is_at_folder(path) else None)


def removal(watch: Watch) -> None:
    from bert_lamb.outputs import run_dir

    def remove(folder: Path, *rest: Any, **more: Any) -> None:
        if watch.is_here() and CHECKPOINT.fullmatch(folder.name):
            min(folder.iterdir()).unlink()
            watch.stand()
        original(folder, *rest, **more)

    original = run_dir.shutil.rmtree
    run_dir.shutil = SimpleNamespace(rmtree=remove)  # type: ignore[assignment]


def finish(watch: Watch) -> None:
    from bert_lamb.train.keeper import Keeper

    after(Keeper, "finish", lambda keeper: watch.stand() if watch.is_here() else None)


def switch(watch: Watch) -> None:
    from bert_lamb.train import run

    before(run, "hand_over", lambda *rest, **more: None if watch.is_over else watch.stand())


def admission(watch: Watch) -> None:
    from bert_lamb.outputs.run_dir import RunDir

    after(RunDir, "remove_leftovers", lambda run_dir: None if watch.is_over else watch.stand())


def metrics(watch: Watch) -> None:
    from bert_lamb.outputs import metrics

    def half(path: Path, text: str) -> None:
        if not watch.is_over:
            path.with_name(path.name + ".partial").write_text(text[: len(text) // 2])
            watch.stand()

    before(metrics, "write_atomically", half)


def load(watch: Watch) -> None:
    from bert_lamb.checkpoint.reading import Checkpoint

    before(Checkpoint, "load_into", lambda checkpoint, engine: None if watch.is_over else watch.stand())


def predictions(watch: Watch) -> None:
    from bert_lamb.finetuning.squad import command

    before(command, "predict_logits", lambda *rest, **more: watch.stand())


def model(watch: Watch) -> None:
    from bert_lamb.finetuning import model_folder

    before(model_folder, "share_files", lambda folder: watch.stand())


def scores(watch: Watch) -> None:
    from bert_lamb.finetuning.squad import results

    def act(file: Path, content: Any) -> None:
        if file.name == results.SCORES_NAME:
            watch.stand()

    before(results, "write_json", act)


def exported(watch: Watch) -> None:
    from bert_lamb.checkpoint import export

    before(export, "share_files", lambda folder: watch.stand())


def export_check(watch: Watch) -> None:
    from bert_lamb.checkpoint import export

    before(export, "check_export", lambda *rest: watch.stand())


def export_rename(watch: Watch) -> None:
    from bert_lamb.checkpoint import export

    before(export, "publish", lambda folder: watch.stand())


@dataclass(frozen=True)
class Moment:
    """arm: makes this process stand there. words: for the table. is_of_rank_0: no other rank comes by."""

    arm: Callable[[Watch], None]
    words: str
    is_of_rank_0: bool = False


MOMENTS = {
    "gradient": Moment(gradient, "in a step, before the update"),
    "update": Moment(update, "in a step, after the update"),
    "line": Moment(line, "half a line of metrics.jsonl", is_of_rank_0=True),
    "evaluation": Moment(evaluation, "in evaluation"),
    "write": Moment(write, "half a rank's file of a checkpoint"),
    "note": Moment(note, "a rank's file whole, not noted yet"),
    "publish": Moment(publish, "all files, no checkpoint.json", is_of_rank_0=True),
    "rename": Moment(rename, "a whole checkpoint, not renamed yet", is_of_rank_0=True),
    "removal": Moment(removal, "half an old checkpoint removed", is_of_rank_0=True),
    "finish": Moment(finish, "after a phase's last checkpoint"),
    "switch": Moment(switch, "at the phase switch"),
    "admission": Moment(admission, "in a resume, leftovers removed", is_of_rank_0=True),
    "metrics": Moment(metrics, "in a resume, half of metrics.jsonl rewritten", is_of_rank_0=True),
    "load": Moment(load, "in a resume, before moments are loaded"),
    "predictions": Moment(predictions, "fine-tuning, before the predictions"),
    "model": Moment(model, "fine-tuning, model/ half written", is_of_rank_0=True),
    "scores": Moment(scores, "fine-tuning, before scores.json", is_of_rank_0=True),
    "exported": Moment(exported, "export, files written", is_of_rank_0=True),
    "export_check": Moment(export_check, "export, before its check", is_of_rank_0=True),
    "export_rename": Moment(export_rename, "export, before it is renamed", is_of_rank_0=True),
}


def arm(folder: Path, rank: int) -> None:
    """Make this process stand at its holds of holds.json in `folder`."""
    holds = [Hold(**one) for one in json.loads((folder / "holds.json").read_text())]
    mine = [hold for hold in holds if hold.rank == rank]
    if mine:
        follow_the_loop()
    for hold in mine:
        MOMENTS[hold.moment].arm(Watch(hold, folder))
