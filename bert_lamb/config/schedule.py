"""The learning rate of a phase, or of the run, and the rules that derive it from the batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bert_lamb.config.checks import Complaints, check_if_bearable, check_if_positive, check_if_share
from bert_lamb.errors import UserError


class DecayOrigin(Enum):
    """From where decay is measured."""

    start = "start"  # step 0, as Google's and NVIDIA's code: the lr drops at once when warm-up ends
    warmup_end = "warmup_end"  # continuous: the multiplier is 1 when warm-up ends


class Decay(Enum):
    """How the lr falls after the warm-up."""

    polynomial = "polynomial"  # (1 - progress)^decay_power
    cosine = "cosine"  # half a wave
    constant = "constant"  # not at all; with cooldown_proportion at the end
    exponential = "exponential"  # x decay_rate every decay_interval_steps, a little at every step


class DecayOver(Enum):
    """What a learning-rate curve covers."""

    phase = "phase"  # each phase has its own, and warms up again
    run = "run"  # the first phase's continues over all of them, and so does the bias correction


class Scaling(Enum):
    """A rule that derives the learning rate from the global batch size; pretraining/scaling.py has the formulas."""

    none = "none"
    lamb_paper = "lamb_paper"  # peak lr and warm-up, as in the paper's table
    linear = "linear"  # peak lr, from scaling_base_lr at scaling_base_batch_size
    sqrt = "sqrt"


@dataclass
class CurveConfig:
    """A learning-rate curve; bert_lamb/train/schedule.py has the formulas."""

    peak_lr: float | None = None  # None: derived (scaling), or that of the first phase (decay_over=run)
    warmup_proportion: float | None = None  # of the steps that the curve covers; None: as peak_lr
    warmup_power: float = 1.0  # 1: the lr rises in a straight line
    warmup_start_share: float = 0.0  # of the peak: where the warm-up begins
    decay: Decay = Decay.polynomial
    decay_power: float = 1.0  # of polynomial decay
    decay_origin: DecayOrigin = DecayOrigin.warmup_end
    decay_rate: float | None = None  # of exponential decay
    decay_interval_steps: int | None = None  # of exponential decay
    end_share: float = 0.0  # of the peak: what polynomial and cosine decay end at, and exponential decay nears
    cooldown_proportion: float = 0.0  # of the steps that the curve covers: the last ones, in a straight line to 0


CURVE_FIELDS = tuple(CurveConfig.__dataclass_fields__)


def check_curve(prefix: str, curve: CurveConfig) -> Complaints:
    complaints = Complaints()
    check_if_positive(
        complaints, prefix, curve, "peak_lr", "warmup_power", "decay_power", "decay_rate", "decay_interval_steps"
    )
    check_if_bearable(complaints, f"{prefix}peak_lr", curve.peak_lr)
    shares = ["warmup_start_share", "end_share", "cooldown_proportion"]
    shares += ["warmup_proportion"] if curve.warmup_proportion is not None else []
    check_if_share(complaints, prefix, curve, *shares)
    both = (curve.warmup_proportion or 0) + curve.cooldown_proportion
    complaints.unless(both <= 1, f"{prefix}warmup_proportion + {prefix}cooldown_proportion", both, "at most 1")
    of_decay = {"decay_power": Decay.polynomial, "decay_rate": Decay.exponential}
    of_decay["decay_interval_steps"] = Decay.exponential
    for name, decay in of_decay.items():
        value, default = getattr(curve, name), getattr(CurveConfig, name)
        complaints.unless(
            curve.decay is decay or value == default,
            prefix + name,
            value,
            f"{default}, or {prefix}decay={decay.value}, which alone has it",
        )
        complaints.unless(
            default is not None or curve.decay is not decay or value is not None,
            prefix + name,
            value,
            f"a number with {prefix}decay={decay.value}",
        )
    if curve.decay is Decay.constant:
        complaints.unless(curve.end_share == 0, f"{prefix}end_share", curve.end_share, "0 with decay=constant")
    if curve.decay_rate is not None:
        complaints.unless(curve.decay_rate <= 1, f"{prefix}decay_rate", curve.decay_rate, "a number in (0, 1]")
    return complaints


def check_curves(
    curves: Mapping[str, CurveConfig],
    *,
    decay_over: DecayOver,
    scaling: Scaling,
    base_lr: float | None,
    base_batch_size: int | None,
) -> Complaints:
    """What each phase must say of its curve, and must leave to another. curves: by phase, in order."""
    complaints = Complaints()
    complaints.unless(
        decay_over is DecayOver.phase or scaling is not Scaling.lamb_paper,
        "decay_over",
        decay_over.value,
        "phase with scaling=lamb_paper, whose rule is for phases",
    )
    is_derived = scaling in (Scaling.linear, Scaling.sqrt)
    for key, base in (("scaling_base_lr", base_lr), ("scaling_base_batch_size", base_batch_size)):
        expected = f"a number above 0 with scaling={scaling.value}" if is_derived else "none: only linear and sqrt"
        complaints.unless((base is not None and base > 0) if is_derived else base is None, key, base, expected)
    for index, (name, curve) in enumerate(curves.items()):
        complaints.extend(check_curve(f"phases.{name}.", curve))
        if index > 0 and decay_over is DecayOver.run:
            first = next(iter(curves.values()))
            for field in CURVE_FIELDS:
                value, of_first = getattr(curve, field), getattr(first, field)
                complaints.unless(
                    value in (getattr(CurveConfig, field), of_first),
                    f"phases.{name}.{field}",
                    value.value if isinstance(value, Enum) else value,
                    "nothing: with decay_over=run the first phase's curve continues",
                )
            continue
        if curve.peak_lr is None and scaling is Scaling.none:
            complaints.append(no_value(f"phases.{name}.peak_lr"))
        if curve.warmup_proportion is None and scaling is not Scaling.lamb_paper:
            complaints.append(no_value(f"phases.{name}.warmup_proportion"))
    return complaints


def no_value(key: str) -> UserError:
    return UserError(found=f"no value for {key}", expected="one", fix=f"add {key}=... to the command line or a recipe")
