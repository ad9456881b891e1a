"""What the checks of all commands share: complaints, collected so that a configuration is fixed in one round."""

import re
from enum import Enum
from typing import Any

from bert_lamb.errors import UserError

MAX_LEARNING_RATE = 1e30
MAX_SEED = 2**63 - 1  # what torch, numpy and the files take


class IfExists(Enum):
    """What to do when the output is there already."""

    refuse = "refuse"  # stop with an error
    resume = "resume"  # continue it, or keep it if it is finished; refuse if the configuration differs
    restart = "restart"  # delete it and start again


class Complaints(list[UserError]):
    """Collects what is wrong with one configuration."""

    def unless(self, condition: bool, key: str, value: object, expected: str) -> None:
        if not condition:
            self.append(UserError(found=f"{key}={value}", expected=expected, fix=f"set {key}"))


def check_if_positive(complaints: Complaints, prefix: str, holder: object, *names: str) -> None:
    for name in names:
        value = getattr(holder, name)
        complaints.unless(value is None or value > 0, prefix + name, value, "a number above 0")


def check_if_bearable(complaints: Complaints, key: str, rate: float | None) -> None:
    """rate: a peak learning rate; a step is it times a trust ratio, and a number of fp32."""
    complaints.unless(rate is None or rate <= MAX_LEARNING_RATE, key, rate, f"at most {MAX_LEARNING_RATE:g}")


def check_if_share(complaints: Complaints, prefix: str, holder: object, *names: str) -> None:
    for name in names:
        value = getattr(holder, name)
        complaints.unless(0 <= value <= 1, prefix + name, value, "a share in 0..1")


def check_if_counts_from_zero(complaints: Complaints, prefix: str, holder: object, *names: str) -> None:
    for name in names:
        value = getattr(holder, name)
        complaints.unless(value >= 0, prefix + name, value, "0 (never) or more")


def check_seed(complaints: Complaints, seed: int) -> None:
    complaints.unless(0 <= seed <= MAX_SEED, "seed", seed, "0 to 2^63 - 1")


def check_names(complaints: Complaints, key: str, mapping: dict[str, Any]) -> None:
    """Names of phases and sources become parts of names of files."""
    for name in mapping:
        is_plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", str(name)) is not None
        complaints.unless(is_plain, f"{key}.{name}", "...", "a name of letters a to z, digits, _ and -")
