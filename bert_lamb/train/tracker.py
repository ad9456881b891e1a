"""Mirror of metrics.jsonl in an experiment tracker, or nothing. The file stays the record; the tracker is a view.

What can be refused is refused by `check_tracker`, before a run begins. From then on a tracker that fails costs its
view, said once, and never the training.
"""

import os
import sys
from pathlib import Path
from typing import Any, Protocol

from bert_lamb.errors import UserError

WANDB_MODES = {"dryrun": "offline", "run": "online"}  # older names that WANDB_MODE still has


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

    def log(self, record: dict[str, Any], *, total_step: int) -> None:
        numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
        self._run.log({f"{record['kind']}/{key}": value for key, value in numbers.items()}, step=total_step)

    def finish(self) -> None:
        self._run.finish()


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


def open_tracker(*, name: str, project: str, mode: str, run_dir: Path, config: dict[str, Any]) -> Tracker:
    """The tracker called `name`: none or wandb. One that does not begin is said and done without."""
    if name != "wandb":
        return NoTracker()
    try:
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
