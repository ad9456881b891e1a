"""When a run is done before its last step: its held-out metrics have reached what was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Held-out metrics by name and what each must come to: an accuracy that much or more, a loss that much or less.

    Nothing asked for is never reached.
    """

    values: Mapping[str, float]

    def is_reached(self, metrics: Mapping[str, float] | None) -> bool:
        """metrics: of a held-out evaluation, the same on every rank; None where there is nothing to evaluate on."""
        if not self.values or metrics is None:
            return False
        return all(
            metrics[name] <= value if name.endswith("loss") else metrics[name] >= value
            for name, value in self.values.items()
        )
