"""Mirror of metrics.jsonl in an experiment tracker, or nothing. The file stays the record; the tracker is a view."""

from pathlib import Path
from typing import Any, Protocol


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


def open_tracker(*, name: str, project: str, mode: str, run_dir: Path, config: dict[str, Any]) -> Tracker:
    """The tracker called `name`: none or wandb."""
    if name == "wandb":
        return WandbTracker(project=project, mode=mode, run_dir=run_dir, config=config)
    return NoTracker()
