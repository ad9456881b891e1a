"""Third stop of the report: phases -> panels, each a few curves over the steps of the run. Nothing is drawn here.

With other runs to compare, a panel has the main curve of every run instead of all curves of one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bert_lamb.report.metrics import Run

BLUE, ORANGE, GREEN, GREY, PALE_BLUE = "#3d85d8", "#e07b39", "#3fa36b", "#8c8c8c", "#8fb8e6"
COLOURS = (BLUE, ORANGE, GREEN, "#a06cd5", "#c2527f", "#8a7a3d")  # of runs, in their order; then again
TOO_LARGE = 1e300  # for an axis with margins
MAX_POINTS = 800  # of a curve, drawn and read: about two a pixel

Form = Literal["line", "dashed", "points"]


@dataclass(frozen=True)
class Curve:
    """x: steps of the run, ascending. y: values there; NaN leaves a gap. is_named: in the legend."""

    label: str
    colour: str
    x: list[int]
    y: list[float]
    form: Form = "line"
    is_named: bool = True


@dataclass(frozen=True)
class Band:
    """What is shaded behind the curves, between lower and upper."""

    x: list[int]
    lower: list[float]
    upper: list[float]


@dataclass(frozen=True)
class Panel:
    """What one figure shows. is_logarithmic: at first. has_switch: the reader may change between linear and log."""

    title: str
    unit: str
    curves: list[Curve]
    is_logarithmic: bool = False
    has_switch: bool = False
    starts_at_zero: bool = False
    band: Band | None = None


@dataclass(frozen=True)
class Quantity:
    """A field of the lines of steps, and what it becomes in a panel.

    has_level: with what guessing by word frequency costs. instead: the field of a compared run that lacks this one.
    """

    name: str
    title: str
    unit: str
    main: str  # the label of its curve
    measured: dict[str, tuple[str, str]] = field(default_factory=dict)  # kind of line -> (field, label): as points
    beside: dict[str, tuple[str, str]] = field(default_factory=dict)  # field -> (label, colour) of curves beside it
    is_logarithmic: bool = False
    has_switch: bool = False
    starts_at_zero: bool = False
    has_level: bool = False
    instead: str | None = None


MLM = {"heldout": ("mlm_loss", "masked LM, held out")}
IMAGES = {"image_scores": ("loss", "test images")}
QUANTITIES = (
    Quantity(
        "mlm_loss",
        "Loss",
        "nats",
        "masked LM",
        measured=MLM,
        beside={"loss": ("loss", GREY), "nsp_loss": ("next sentence", GREEN)},
        has_switch=True,
        starts_at_zero=True,
        has_level=True,
        instead="loss",
    ),
    Quantity("loss", "Loss", "nats", "loss", measured=MLM | IMAGES, has_switch=True, starts_at_zero=True),
    Quantity(
        "mlm_accuracy",
        "Masked-LM accuracy",
        "share of masked tokens",
        "training",
        measured={"heldout": ("mlm_accuracy", "held out")},
    ),
    Quantity(
        "accuracy",
        "Accuracy",
        "share of images",
        "training",
        measured={"image_scores": ("accuracy", "test images")},
    ),
    Quantity("lr", "Learning rate", "", "learning rate", has_switch=True),
    Quantity(
        "grad_norm", "Gradient norm before clipping", "L2 norm", "gradient norm", is_logarithmic=True, has_switch=True
    ),
    Quantity(
        "trust_ratio_median",
        "Trust ratio over all adapted parameters",
        "",
        "median",
        beside={"trust_ratio_max": ("highest", PALE_BLUE), "trust_ratio_min": ("lowest", PALE_BLUE)},
        is_logarithmic=True,
        has_switch=True,
    ),
    Quantity("sequences_per_second", "Throughput", "sequences a second", "sequences", starts_at_zero=True),
    Quantity(
        "tokens_per_second",
        "Tokens a second",
        "",
        "tokens",
        beside={"positions_per_second": ("positions, padding included", GREY)},
        starts_at_zero=True,
    ),
    Quantity("mfu", "Model FLOPs utilization", "share of the peak", "utilization", starts_at_zero=True),
)


def points(run: Run, name: str, kind: str = "steps") -> tuple[list[int], list[float]]:
    """Steps of the run and the values of `name` there; NaN, a gap, where it is not finite or too large for an axis."""
    x, y = [], []
    for phase in run.phases:
        for record in getattr(phase, kind):
            if record.get(name) is not None:
                x.append(phase.first_step + record["step"])
                y.append(record[name] if abs(record[name]) < TOO_LARGE else math.nan)
    return x, y


def thin(x: list[int], y: list[float]) -> tuple[list[int], list[float]]:
    """At most MAX_POINTS of them: the lowest and the highest of each of equal parts, so that no spike is lost."""
    if len(x) <= MAX_POINTS:
        return x, y
    num_parts, kept = MAX_POINTS // 2 - 1, {0, len(x) - 1}
    for part in range(num_parts):
        begin, end = len(x) * part // num_parts, len(x) * (part + 1) // num_parts
        finite = [i for i in range(begin, end) if not math.isnan(y[i])] or [begin]
        kept |= {min(finite, key=lambda i: y[i]), max(finite, key=lambda i: y[i])}
    return [x[i] for i in sorted(kept)], [y[i] for i in sorted(kept)]


def panels_of(run: Run, others: Mapping[str, Run], own_label: str) -> list[Panel]:
    """The panels that the run has numbers for. others: label -> a run to compare; own_label: the first run's there."""
    panels: list[Panel] = []
    for quantity in QUANTITIES:
        is_there = bool(points(run, quantity.name)[0]) or quantity.name in ("loss", "lr", "grad_norm")
        if is_there and quantity.title not in (panel.title for panel in panels):
            curves = compared({own_label: run, **others}, quantity) if others else curves_of(run, quantity)
            band = None if others else band_of(run, quantity)
            panels.append(
                Panel(
                    quantity.title,
                    quantity.unit,
                    curves,
                    is_logarithmic=quantity.is_logarithmic,
                    has_switch=quantity.has_switch,
                    starts_at_zero=quantity.starts_at_zero,
                    band=band,
                )
            )
    return panels


def curves_of(run: Run, quantity: Quantity) -> list[Curve]:
    """All that one run has of a quantity."""
    fields = {**quantity.beside, quantity.name: (quantity.main, BLUE)}
    curves = [Curve(label, colour, *thin(*points(run, name))) for name, (label, colour) in fields.items()]
    for kind, (name, label) in quantity.measured.items():
        curves.append(Curve(label, ORANGE, *points(run, name, kind), form="points"))
    if quantity.has_level:
        curves.append(Curve("word frequency", ORANGE, *unigram(run), form="dashed"))
    return [curve for curve in curves if curve.x]


def unigram(run: Run) -> tuple[list[int], list[float]]:
    """What guessing by word frequency costs: a level for each phase that measured it, NaN between the levels."""
    x, y = [], []
    for phase in run.phases:
        levels = [one["unigram_cross_entropy"] for one in phase.heldout if "unigram_cross_entropy" in one]
        if levels:
            x += [phase.first_step, phase.first_step + phase.num_steps, phase.first_step + phase.num_steps]
            y += [levels[-1], levels[-1], math.nan]
    return x, y


def compared(runs: Mapping[str, Run], quantity: Quantity) -> list[Curve]:
    """The main curve of every run, in its colour; what was measured beside it as points of that colour."""
    curves = []
    for index, (label, run) in enumerate(runs.items()):
        colour = COLOURS[index % len(COLOURS)]
        name = quantity.name if quantity.instead is None or points(run, quantity.name)[0] else quantity.instead
        form: Form = "dashed" if index >= len(COLOURS) else "line"
        curves.append(Curve(label, colour, *thin(*points(run, name)), form=form))
        for kind, (name, what) in quantity.measured.items():
            curves.append(Curve(f"{label}: {what}", colour, *points(run, name, kind), form="points", is_named=False))
    return [curve for curve in curves if curve.x]


def band_of(run: Run, quantity: Quantity) -> Band | None:
    """From the lowest to the highest trust ratio, over as many parts of the run as a curve has points at most."""
    if quantity.name != "trust_ratio_median":
        return None
    lowest, highest = (dict(zip(*points(run, f"trust_ratio_{end}"), strict=True)) for end in ("min", "max"))
    x = [step for step in lowest if step in highest]
    part = math.ceil(len(x) / MAX_POINTS) or 1
    parts = [x[i : i + part] for i in range(0, len(x), part)]
    return Band(
        [steps[0] for steps in parts],
        [min(lowest[step] for step in steps) for steps in parts],
        [max(highest[step] for step in steps) for steps in parts],
    )
