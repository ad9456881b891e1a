"""`doctor`: what `pretrain` would run with, as far as it is given, and how closely to look."""

from dataclasses import dataclass, field

from bert_lamb.config.checks import Complaints, check_if_positive
from bert_lamb.config.pretrain import PhaseConfig, PretrainConfig, check_training


@dataclass
class DoctorPhaseConfig(PhaseConfig):
    """a phase whose shards need not be there."""

    shards: str | None = None  # type: ignore[assignment]


@dataclass
class DoctorConfig(PretrainConfig):
    """`bert-lamb doctor`: a machine or a cluster before a run; the words of `pretrain`; all may be left out."""

    shards: str | None = None  # type: ignore[assignment]  # None: checks that read them are skipped
    run_dir: str | None = None  # type: ignore[assignment]  # None: checks of its file system are skipped
    phases: dict[str, DoctorPhaseConfig] = field(default_factory=dict)  # type: ignore[assignment]
    output: str | None = None  # a json file of the findings, which is overwritten
    step: bool = True  # build the engine and take one optimizer step
    all_reduce_mb: float | None = None  # MB (10^6 bytes) summed over ranks at most; None: the whole gradient
    timeout_seconds: float = 180.0  # that ranks wait for each other in one check


# Keys that a recipe asks for, and without which there is still enough to examine.
MAY_BE_MISSING = ("shards", "run_dir", "initial_weights")


def check_doctor(config: DoctorConfig) -> Complaints:
    complaints = Complaints()
    check_if_positive(complaints, "", config, "all_reduce_mb", "timeout_seconds")
    complaints.extend(check_training(config))
    return complaints
