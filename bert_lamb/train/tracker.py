"""Mirror of metrics.jsonl in an experiment tracker, or nothing. The file stays the record; the tracker is a view.

Every tracker shows the same names (`names_of`), in sections that it makes of their first part, over one axis: the
optimizer steps of the whole run.

What can be refused is refused by `check_tracker`, before a run begins. From then on a tracker that fails costs its
view, said once, and never the training.
"""

import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bert_lamb.errors import UserError

WANDB_MODES = {"dryrun": "offline", "run": "online"}  # older names that WANDB_MODE still has


TOTAL_STEP = "total_step"
SECTIONS = {  # kind of line -> the section of its numbers; those of a step are divided further
    "step": "train",
    "heldout": "heldout",
    "image_scores": "images",
    "scores": "squad",
    "glue_scores": "glue",
    "phase_start": "phase",
    "resume": "phase",
    "rollback": "phase",
    "target_reached": "phase",
    "phase_end": "phase",
}
SPEED = ("seconds", "sequences_per_second", "tokens_per_second", "positions_per_second", "fill", "model_tflops", "mfu")
# TensorBoard's layout: curves that are read together. Weights & Biases has a section for each first part of a name.
LAYOUT = {
    "learning": {
        "loss": ["Multiline", ["train/loss", "train/mlm_loss", "train/nsp_loss", "heldout/mlm_loss"]],
        "accuracy": ["Multiline", ["train/mlm_accuracy", "heldout/mlm_accuracy"]],
        "trust ratio": ["Margin", ["trust_ratio/median", "trust_ratio/min", "trust_ratio/max"]],
    },
    "speed": {"share of time": ["Multiline", [r"time/.*"]], "utilization": ["Multiline", ["speed/mfu", "speed/fill"]]},
}
TENSORBOARD_FOLDER = "tensorboard"  # below the run directory


def names_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl under the names that every tracker shows; none of a single parameter's.

    Of a step: `train/` what is learnt and how, `trust_ratio/`, `speed/`, `time/` (shares) and `memory/`.
    """
    kind = record["kind"]
    if kind not in SECTIONS:
        return {}
    numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
    step = numbers.pop("step", None)
    named = {name_of(kind, name): float(value) for name, value in numbers.items()}
    return named | ({} if kind != "step" or step is None else {"phase/step": float(step)})


def name_of(kind: str, field: str) -> str:
    if kind != "step":
        return f"{SECTIONS[kind]}/{field}"
    if field.startswith("trust_ratio_"):
        return f"trust_ratio/{field.removeprefix('trust_ratio_')}"
    if field.endswith("_share"):
        return f"time/{field}"
    if field.endswith("_bytes"):
        return f"memory/{field}"
    return f"speed/{field}" if field in SPEED else f"train/{field}"


class Tracker(Protocol):
    """Gets every record of metrics.jsonl."""

    def log(self, record: dict[str, Any], *, total_step: int) -> None:
        """total_step: optimizer steps since the run's start, over all phases."""

    def finish(self) -> None:
        """Flush and close."""


class NoTracker:
    def log(self, record: dict[str, Any], *, total_step: int) -> None:
        pass

    def finish(self) -> None:
        pass


class WandbTracker:
    """Weights & Biases; mode "offline" writes below the run directory and needs no network."""

    def __init__(self, *, project: str, mode: Any, run_dir: Path, config: dict[str, Any]) -> None:
        import wandb

        self._run = wandb.init(project=project, mode=mode, dir=str(run_dir), name=run_dir.name, config=config)

        self._run.define_metric(TOTAL_STEP)
        self._run.define_metric("*", step_metric=TOTAL_STEP)

    def log(self, record: dict[str, Any], *, total_step: int) -> None:
        # Not as wandb's own step, which may not go back as a run does that is resumed or rolled back.
        if named := names_of(record):
            self._run.log({**named, TOTAL_STEP: total_step})

    def finish(self) -> None:
        self._run.finish()


class TensorBoardTracker:
    """Event files below the run directory, of which TensorBoard drops what is done again after a resume."""

    def __init__(self, *, run_dir: Path, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open = partial(SummaryWriter, log_dir=str(run_dir / TENSORBOARD_FOLDER))
        self._writer: Any = None
        self._config = json.dumps(config, indent=1, default=str)

    def log(self, record: dict[str, Any], *, total_step: int) -> None:
        goes_back = record["kind"] in ("resume", "rollback")
        if self._writer is None or goes_back:
            self.finish()
            self._writer = self._open(purge_step=total_step + 1 if goes_back else None)
            self._writer.add_custom_scalars(LAYOUT)
            self._writer.add_text("configuration", f"```\n{self._config}\n```", total_step)
        for name, value in names_of(record).items():
            self._writer.add_scalar(name, value, total_step)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()


class UntilItFails:
    """Another tracker as long as it works; what it raises is printed once, and it is left alone afterwards."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def log(self, record: dict[str, Any], *, total_step: int) -> None:
        try:
            self._tracker.log(record, total_step=total_step)
        except Exception as error:
            self._give_up(error)

    def finish(self) -> None:
        try:
            self._tracker.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        _say_failed(error)
        self._tracker = NoTracker()


def check_tracker(*, name: str, mode: str) -> None:
    """Raise UserError for a tracker that will not work: not installed, not logged in, another mode in the environment.

    Online, wandb asks for an API key where there is a terminal, and tries the key on its server.
    """
    if name == "tensorboard":
        _check_tensorboard()
    if name != "wandb":
        return
    of_environment = os.environ.get("WANDB_MODE", mode).lower()
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
        of_environment = "disabled"
    of_environment = WANDB_MODES.get(of_environment, of_environment)
    if of_environment != mode:
        raise UserError(
            found=f"tracker.mode={mode}, and {of_environment!r} in the environment (WANDB_MODE, WANDB_DISABLED)",
            expected="one mode",
            fix=f"unset the variable, or set tracker.mode={of_environment}",
        )
    try:
        import wandb

        login = wandb.login
    except Exception as error:  # AttributeError: a folder called wandb, as earlier runs leave it, is taken for it
        raise UserError(
            found=f"wandb that cannot be imported ({_one_line(error)})",
            expected="a working wandb for tracker=wandb",
            fix="pip install wandb, or set tracker=none",
        ) from error
    if mode != "online":
        return
    try:
        is_logged_in, reason = login(verify=True), "nobody is logged in"
    except Exception as error:
        is_logged_in, reason = False, _one_line(error)
    if not is_logged_in:
        raise UserError(
            found=f"wandb that refuses tracker.mode=online: {reason}",
            expected="a valid API key, and a network that reaches its server",
            fix="call wandb login or set WANDB_API_KEY, or set tracker.mode=offline and call wandb sync afterwards",
        )


def _check_tensorboard() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except Exception as error:
        raise UserError(
            found=f"TensorBoard that cannot be imported ({_one_line(error)})",
            expected="a working one for tracker=tensorboard",
            fix="pip install 'bert-lamb[tensorboard]', or set tracker=none",
        ) from error


def open_tracker(*, name: str, project: str, mode: str, run_dir: Path, config: dict[str, Any]) -> Tracker:
    """The tracker called `name`: none, wandb or tensorboard. One that does not begin is said and done without."""
    if name == "none":
        return NoTracker()
    try:
        if name == "tensorboard":
            return UntilItFails(TensorBoardTracker(run_dir=run_dir, config=config))
        return UntilItFails(WandbTracker(project=project, mode=mode, run_dir=run_dir, config=config))
    except Exception as error:
        _say_failed(error)
        return NoTracker()


def _say_failed(error: Exception) -> None:
    print(
        f"the tracker failed and is no longer used: {_one_line(error)}; metrics.jsonl has everything", file=sys.stderr
    )


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
