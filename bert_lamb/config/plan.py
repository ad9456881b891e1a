"""`plan`: what `pretrain` would run with, the devices it would run on, and what they cost."""

from dataclasses import dataclass, field

from bert_lamb.config.checks import Complaints, check_if_positive
from bert_lamb.config.doctor import DoctorPhaseConfig
from bert_lamb.config.pretrain import PretrainConfig, check_pretrain


@dataclass
class PlannerConfig:
    """The devices. What is None is the table's (bert_lamb/planner/hardware.py), or is left out."""

    gpu: str = "h100"  # a name of the table
    gpus: int = 8  # ranks
    gpus_per_node: int | None = None
    network_gbit: float | None = None  # Gbit/s of a node, each way
    watts: float | None = None  # of a GPU; None: its board's power
    price_per_gpu_hour: float | None = None  # in any currency
    fill: float | None = None  # mean length of the rows / max_seq_length; None: of `shards`, or of Wikipedia's
    compute_efficiency: float | None = None  # of the peak of matrix products; None: calibrated
    network_efficiency: float | None = None  # of the bandwidth; None: calibrated
    measure: bool = False  # take peak and compute efficiency from micro-steps on this machine


@dataclass
class PlanConfig(PretrainConfig):
    """`bert-lamb plan`: memory, time, energy and cost before a run; the words of `pretrain`."""

    shards: str | None = None  # type: ignore[assignment]  # None: Wikipedia's mean lengths, see planner.fill
    run_dir: str | None = None  # type: ignore[assignment]  # not looked at
    phases: dict[str, DoctorPhaseConfig] = field(default_factory=dict)  # type: ignore[assignment]
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    output: str | None = None  # a json file of the plan; if_exists says what to do where there is one


def check_plan(config: PlanConfig) -> Complaints:
    complaints, planner = Complaints(), config.planner
    names = ("gpus", "gpus_per_node", "network_gbit", "watts", "compute_efficiency", "network_efficiency")
    check_if_positive(complaints, "planner.", planner, *names)
    price = planner.price_per_gpu_hour
    complaints.unless(price is None or price >= 0, "planner.price_per_gpu_hour", price, "0 or more")
    fill = planner.fill
    complaints.unless(fill is None or 0 < fill <= 1, "planner.fill", fill, "a share above 0, at most 1")
    complaints.extend(check_pretrain(config))
    return complaints
