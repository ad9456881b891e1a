"""Time of one optimizer step over a model's tensors: ours beside PyTorch's, timm's, DeepSpeed's and NVIDIA apex's.

    python scripts/bench/lamb_step.py                                   # BERT-Large on a GPU, BERT-Base on a CPU
    python scripts/bench/lamb_step.py --params bf16 --grad-dtype bf16 --out scripts/bench/results/h100_bf16.json

All candidates of a form step on the same memory in turns: a drift of the machine meets all of them alike, and memory
holds one set of tensors. First each takes one step from the same fixed point; what it makes of it is compared with
`reference`, and who differs is not timed. README.md explains the columns.

Letters: w parameter, g gradient, m and v first and second moment.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from surroundings import surroundings  # noqa: E402

from bert_lamb.optim import Lamb, Lars, LayerwiseOptimizer, Segments, parameter_groups  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHORT = {dtype: name for name, dtype in DTYPES.items()}
FP32_BYTES = 4
BETAS, EPS, WEIGHT_DECAY = (0.9, 0.999), 1e-6, 0.01
LR = 1e-3  # while timed: weights stay small over thousands of steps
LR_COMPARED = 0.1  # of the step that is compared: long, so that rounding of w is a small part of it
STEPS_BEFORE = 9  # counted before the step that is compared, so that bias corrections matter
TOLERANCE = 1e-3  # fp32 norms of millions of elements, as timm takes them, are off by 1e-4 on a CPU


# -- the tensors -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """A param group's parameters: names and shapes, in order. first: number of its first parameter in the model."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    weight_decay: float
    adapt: bool
    first: int

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(shape.numel() for shape in self.shapes)

    @property
    def numel(self) -> int:
        return sum(self.sizes)


def groups_of(model: str) -> list[Group]:
    """The groups of a model of conf/model, or of a JSON file with a list of shapes.

    In such a file tensors of one dimension are taken for biases, which are neither decayed nor adapted.
    """
    if model.endswith(".json"):
        shapes = json.loads(Path(model).read_text())
        named = [(f"{i}.{'bias' if len(shape) == 1 else 'weight'}", _on_meta(shape)) for i, shape in enumerate(shapes)]
    else:
        named = _parameters_of_bert(model)
    groups: list[Group] = []
    for group in parameter_groups(named, weight_decay=WEIGHT_DECAY):
        names, parameters = zip(*group["params"], strict=True)
        first = sum(len(other.names) for other in groups)
        shapes = tuple(parameter.shape for parameter in parameters)
        groups.append(Group(names, shapes, group["weight_decay"], group["adapt"], first))
    return groups


def _on_meta(shape: Sequence[int]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.empty(*shape, device="meta"))


def _parameters_of_bert(model: str) -> list[tuple[str, torch.nn.Parameter]]:
    import yaml

    from bert_lamb.model.bert import BertPretrainingModel, bert_config

    path = CHECKOUT / "conf" / "model" / f"{model}.yaml"
    if not path.is_file():
        sys.exit(f"found --model {model}; expected a name of conf/model, or a .json file with a list of shapes")
    sizes = yaml.safe_load(path.read_text())
    # The vocabulary of the paper, padded to 30,528; what else is needed has no part in the shapes.
    config = bert_config(
        **sizes,
        vocab_size=30_522,
        vocab_size_multiple=8,
        dropout=0.1,
        max_position_embeddings=512,
        init_std=0.02,
        pad_token_id=0,
    )
    with torch.device("meta"):
        return list(BertPretrainingModel(config, seed=0).named_parameters())


def fill(number: int, w: Tensor, g: Tensor, m: Tensor, v: Tensor) -> None:
    """The fixed point that every compared step starts from; number: of the parameter in the model."""
    random = torch.Generator(w.device).manual_seed(number)
    w.normal_(0, 0.02, generator=random)
    g.normal_(0, 1e-3, generator=random)
    m.normal_(0, 1e-3, generator=random)
    v.uniform_(1e-7, 1e-6, generator=random)


class Tensors:
    """What the candidates of one form step on. Each attribute is a list per group of lists of tensors.

    form: "list": w, m and v as the model's parameters; "flat": one of each for a group, as ZeRO makes them.
    g is of `grad_dtype`; g32 has the same values in fp32, for optimizers that take nothing else. low: the parameters
    that follow their fp32 masters w; empty with fp32 parameters, and in form "flat", where they are the engine's.
    """

    def __init__(
        self, groups: list[Group], form: str, *, device: str, params_dtype: torch.dtype, grad_dtype: torch.dtype
    ) -> None:
        self.groups, self.form = groups, form

        def make(dtype: torch.dtype) -> list[list[Tensor]]:
            shapes = [group.shapes if form == "list" else (torch.Size([group.numel]),) for group in groups]
            return [[torch.zeros(shape, dtype=dtype, device=device) for shape in group] for group in shapes]

        self.w, self.m, self.v, self.g32 = (make(torch.float32) for _ in range(4))
        self.g = self.g32 if grad_dtype is torch.float32 else make(grad_dtype)
        has_low = form == "list" and params_dtype is not torch.float32
        self.low = make(params_dtype) if has_low else []
        self.grad_bytes = grad_dtype.itemsize
        self.copy_bytes = params_dtype.itemsize if has_low else 0
        w = f"w {SHORT[params_dtype]} + fp32" if has_low else "w fp32"
        self.dtypes = f"{w}, g {SHORT[grad_dtype]}"

    def by_parameter(self, per_group: list[list[Tensor]]) -> list[Tensor]:
        """One tensor for each parameter of the model, in its order; views in form "flat"."""
        if self.form == "list":
            return [tensor for tensors in per_group for tensor in tensors]
        return [
            piece.view(shape)
            for group, (flat,) in zip(self.groups, per_group, strict=True)
            for piece, shape in zip(flat.split(list(group.sizes)), group.shapes, strict=True)
        ]

    def reset(self) -> None:
        together = zip(*(self.by_parameter(kind) for kind in (self.w, self.g32, self.m, self.v)), strict=True)
        for number, tensors in enumerate(together):
            fill(number, *tensors)
        if self.g is not self.g32:
            for low, wide in zip(_flatten(self.g), _flatten(self.g32), strict=True):
                low.copy_(wide)
                wide.copy_(low)
        if self.low:
            for low, w in zip(_flatten(self.low), _flatten(self.w), strict=True):
                low.copy_(w)


def _flatten(per_group: list[list[Tensor]]) -> list[Tensor]:
    return [tensor for tensors in per_group for tensor in tensors]


def _parameter(value: Tensor, gradient: Tensor) -> torch.nn.Parameter:
    """A parameter that shares both memories."""
    parameter = torch.nn.Parameter(value)
    if gradient.dtype is not value.dtype:
        parameter.grad_dtype = gradient.dtype  # type: ignore[assignment]
    parameter.grad = gradient
    return parameter


# -- the candidates ----------------------------------------------------------------------------------------------------


class UnavailableError(Exception):
    """This optimizer cannot be had here; the message says why in one line."""


Build = Callable[[Tensors, argparse.Namespace], torch.optim.Optimizer]


@dataclass(frozen=True)
class Kind:
    """An implementation of an optimizer.

    formula: "lamb" or "lars" where its step must equal that of `reference`, else None.
    forms: that it makes sense in: optimizers with one trust ratio for each tensor are wrong on flat ones.
    is_ours: it gets the gradients' and parameters' dtypes that were asked for; others get fp32 of both.
    """

    title: str
    build: Build
    formula: str | None
    forms: tuple[str, ...] = ("list", "flat")
    is_ours: bool = False


def _ours(optimizer_type: type[LayerwiseOptimizer], implementation: str, *, knows_segments: bool = True) -> Build:
    def build(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
        values = tensors.low or tensors.w
        groups = []
        for group, of_values, of_gradients in zip(tensors.groups, values, tensors.g, strict=True):
            parameters = [_parameter(w, g) for w, g in zip(of_values, of_gradients, strict=True)]
            groups.append({"params": parameters, "weight_decay": group.weight_decay, "adapt": group.adapt})
        options: dict[str, Any] = {} if optimizer_type is Lars else {"betas": BETAS, "eps": EPS}
        optimizer = optimizer_type(
            groups,
            lr=LR,
            implementation=implementation,
            skip_nonfinite=settings.skip_nonfinite == "on",
            awaits_binding=tensors.form == "flat",
            **options,
        )
        if tensors.form == "flat":
            flats = (parameter for group in optimizer.param_groups for parameter in group["params"])
            cuts = [_cut(group, knows_segments=knows_segments) for group in tensors.groups]
            optimizer.bind(zip(flats, cuts, strict=True))
        _give_state(optimizer, tensors, step=lambda: torch.tensor(float(STEPS_BEFORE)))
        return optimizer

    return build


def _cut(group: Group, *, knows_segments: bool) -> Segments:
    """As the ZeRO adapter cuts a partition that holds whole parameters; without segments it is one big parameter."""
    names, sizes = (group.names, group.sizes) if knows_segments else (("all",), (group.numel,))
    return Segments(names, tuple(range(len(names))), sizes, reduce_norms=_over_one_rank)


def _over_one_rank(partial: Tensor, operation: str) -> Tensor:
    """A reducer, so that `bind` leaves skipping to the engine as under ZeRO."""
    return partial


def _give_state(
    optimizer: torch.optim.Optimizer,
    tensors: Tensors,
    *,
    step: Callable[[], Any],
    group_step: Callable[[], Any] | None = None,
) -> None:
    """Put the shared moments, and masters, into the optimizer's state under the names that all of them use."""
    for group, ws, ms, vs in zip(optimizer.param_groups, tensors.w, tensors.m, tensors.v, strict=True):
        for parameter, w, m, v in zip(group["params"], ws, ms, vs, strict=True):
            state = {"step": step(), "exp_avg": m, "exp_avg_sq": v}
            optimizer.state[parameter] = state if parameter.dtype is torch.float32 else {**state, "master": w}
        if group_step is not None:
            group["step"] = group_step()


def _plain_groups(tensors: Tensors) -> list[dict[str, Any]]:
    """Groups of fp32 parameters with fp32 gradients, for other people's optimizers."""
    return [
        {"params": [_parameter(w, g) for w, g in zip(ws, gs, strict=True)], "weight_decay": group.weight_decay}
        for group, ws, gs in zip(tensors.groups, tensors.w, tensors.g32, strict=True)
    ]


def _torch_adamw(implementation: str) -> Build:
    def build(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(_plain_groups(tensors), lr=LR, betas=BETAS, eps=EPS, **{implementation: True})
        device = tensors.w[0][0].device if implementation == "fused" else "cpu"
        _give_state(optimizer, tensors, step=lambda: torch.tensor(float(STEPS_BEFORE), device=device))
        return optimizer

    return build


def _timm(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
    specification = importlib.util.find_spec("timm")
    if specification is None or not specification.submodule_search_locations:
        raise UnavailableError("timm is not installed")
    # timm's optimizers without timm's models, which need torchvision.
    root = next(iter(specification.submodule_search_locations))
    for name, path in (("timm", root), ("timm.optim", f"{root}/optim")):
        module = types.ModuleType(name)
        module.__path__ = [path]
        sys.modules[name] = module
    optimizer: torch.optim.Optimizer = importlib.import_module("timm.optim.lamb").Lamb(
        _plain_groups(tensors), lr=LR, betas=BETAS, eps=EPS, max_grad_norm=None
    )
    number = lambda: torch.tensor(float(STEPS_BEFORE))  # noqa: E731
    _give_state(optimizer, tensors, step=number, group_step=number)
    return optimizer


def _deepspeed(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
    if settings.device != "cuda":
        raise UnavailableError("its kernel is for CUDA only")
    if importlib.util.find_spec("deepspeed") is None:
        raise UnavailableError("deepspeed is not installed")
    from deepspeed.ops.lamb import FusedLamb

    optimizer: torch.optim.Optimizer = FusedLamb(_plain_groups(tensors), lr=LR, betas=BETAS, eps=EPS)
    _give_state(optimizer, tensors, step=lambda: STEPS_BEFORE)
    return optimizer


def _apex(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
    if settings.device != "cuda":
        raise UnavailableError("its kernel is for CUDA only")
    if importlib.util.find_spec("apex") is None:
        raise UnavailableError("NVIDIA's apex is not installed")
    if not hasattr(importlib.import_module("apex"), "__path__") or importlib.util.find_spec("apex.optimizers") is None:
        raise UnavailableError("apex is not NVIDIA's (PyPI's apex is another package)")
    optimizer: torch.optim.Optimizer = importlib.import_module("apex.optimizers").FusedLAMB(
        _plain_groups(tensors), lr=LR, betas=BETAS, eps=EPS, max_grad_norm=1e30
    )
    _give_state(optimizer, tensors, step=lambda: STEPS_BEFORE, group_step=lambda: STEPS_BEFORE)
    return optimizer


KINDS = {
    "lamb-reference": Kind("our Lamb reference", _ours(Lamb, "reference"), "lamb", is_ours=True),
    "lamb-foreach": Kind("our Lamb foreach", _ours(Lamb, "foreach"), "lamb", is_ours=True),
    "lamb-fused": Kind("our Lamb fused", _ours(Lamb, "fused"), "lamb", is_ours=True),
    "lars-foreach": Kind("our Lars foreach", _ours(Lars, "foreach"), "lars", is_ours=True),
    "lars-fused": Kind("our Lars fused", _ours(Lars, "fused"), "lars", is_ours=True),
    "adamw-foreach": Kind("torch AdamW foreach", _torch_adamw("foreach"), None),
    "adamw-fused": Kind("torch AdamW fused", _torch_adamw("fused"), None),
    "timm": Kind("timm Lamb", _timm, "lamb", forms=("list",)),
    "deepspeed": Kind("DeepSpeed FusedLamb", _deepspeed, None, forms=("list",)),  # corrects the step size, clips ratios
    "apex": Kind("apex FusedLAMB", _apex, "lamb", forms=("list",)),
    # What a step costs that knows nothing of the parameters in a partition: wrong, and the measure of exactness's cost.
    "unaware-foreach": Kind(
        "our Lamb foreach, unaware", _ours(Lamb, "foreach", knows_segments=False), None, ("flat",), is_ours=True
    ),
    "unaware-fused": Kind(
        "our Lamb fused, unaware", _ours(Lamb, "fused", knows_segments=False), None, ("flat",), is_ours=True
    ),
}


def counted_bytes(kind: str, tensors: Tensors, *, reads_norm: bool) -> int | None:
    """Bytes a step must read and write, over all parameters; None for what has a kernel for each operation or is alien.

    Fused, with gradients of g bytes and, in form "list" with bf16 or fp16 parameters, a copy of c bytes that follows:

        reads_norm           g                            the gradients' norm, for clipping or skipping
        Lamb, adapted        g + w 4 + m 8 + v 8          pass 1: moments and norms
                             w 8 + m 4 + v 4 + c          pass 3: the direction again, and the update
        Lamb, not adapted    g + w 8 + m 8 + v 8 + c      one pass
        Lars, adapted        g + w 4 + m 8, then w 8 + m 4 + c
        Lars, not adapted    g + w 8 + m 8 + c
        torch's AdamW        4 + w 8 + m 8 + v 8          always given fp32 gradients

    What is per parameter and not per element (norms, tables) is left out.
    """
    once, both = FP32_BYTES, 2 * FP32_BYTES
    if kind == "adamw-fused":
        return sum(group.numel for group in tensors.groups) * (once + 3 * both)
    name, _, implementation = kind.partition("-")
    if implementation != "fused":
        return None
    num_moments = 1 if name == "lars" else 2
    g, copy = tensors.grad_bytes, tensors.copy_bytes
    norm = g if reads_norm else 0
    pass_1 = g + once + num_moments * both
    pass_3 = both + num_moments * once + copy
    in_one = g + both + num_moments * both + copy
    return sum(group.numel * (norm + (pass_1 + pass_3 if group.adapt else in_one)) for group in tensors.groups)


# -- is it right -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """What `reference` makes of the fixed point, by parameter; lengths: the largest change of an element in each."""

    w: list[Tensor]
    lengths: list[Tensor]


def expect(formula: str, groups: list[Group], *, device: str, grad_dtype: torch.dtype) -> Expected:
    """One parameter at a time, so that it needs little memory and shares none with the candidates."""
    expected = Expected([], [])
    optimizer_type = {"lamb": Lamb, "lars": Lars}[formula]
    for group in groups:
        for index, shape in enumerate(group.shapes):
            w, g, m, v = (torch.zeros(shape, device=device) for _ in range(4))
            fill(group.first + index, w, g, m, v)
            before = w.clone()
            parameter = _parameter(w, g.to(grad_dtype).to(torch.float32))
            own = {"params": [parameter], "weight_decay": group.weight_decay, "adapt": group.adapt}
            options: dict[str, Any] = {} if formula == "lars" else {"betas": BETAS, "eps": EPS}
            optimizer = optimizer_type([own], lr=LR_COMPARED, implementation="reference", **options)
            optimizer.state[parameter] = {
                "step": torch.tensor(float(STEPS_BEFORE)),
                "exp_avg": m,
                "exp_avg_sq": v,
            }
            optimizer.step()
            expected.w.append(w)
            expected.lengths.append((w - before).abs().max())
    return expected


def difference(tensors: Tensors, expected: Expected, *, has_copies: bool) -> float:
    """Largest difference of an element, as a share of the largest change of an element of the same parameter.

    Infinite when a low-precision parameter is not its master rounded.
    """
    shares = [
        (found - right).abs().max() / length
        for found, right, length in zip(tensors.by_parameter(tensors.w), expected.w, expected.lengths, strict=True)
    ]
    if has_copies:
        pairs = zip(_flatten(tensors.low), _flatten(tensors.w), strict=True)
        if not all(torch.equal(low, w.to(low.dtype)) for low, w in pairs):
            return math.inf
    return float(torch.stack(shares).nan_to_num(nan=math.inf).max())


# -- time --------------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """A line of the table. reason: why there is no number; samples: milliseconds of one step, a round each."""

    kind: str
    title: str
    form: str
    dtypes: str
    optimizer: torch.optim.Optimizer | None = None
    reason: str | None = None
    max_relative_difference: float | None = None
    counted_bytes: int | None = None
    launches: int | None = None
    samples: list[float] = field(default_factory=list)
    host_samples: list[float] = field(default_factory=list)


def set_up(kinds: Iterable[str], forms: dict[str, Tensors], settings: argparse.Namespace) -> list[Row]:
    """The rows, each with an optimizer that took the compared step rightly, or with a reason."""
    groups = next(iter(forms.values())).groups
    grad_dtype = DTYPES[settings.grad_dtype]
    expected = {
        formula: expect(formula, groups, device=settings.device, grad_dtype=grad_dtype)
        for formula in ("lamb", "lars")
        if any(KINDS[kind].formula == formula for kind in kinds)
    }
    rows = []
    for form, tensors in forms.items():
        for kind in kinds:
            what = KINDS[kind]
            if form in what.forms:
                row = Row(kind, what.title, form, tensors.dtypes if what.is_ours else "w fp32, g fp32")
                rows.append(row)
                _try(row, tensors, None if what.formula is None else expected[what.formula], settings)
    return rows


def _try(row: Row, tensors: Tensors, expected: Expected | None, settings: argparse.Namespace) -> None:
    """Build the row's optimizer and take the compared step.

    Whatever goes wrong becomes the row's reason: what is not installed, does not compile or does not fit into memory
    differs from machine to machine, and must not cost the other rows.
    """
    print(f"{row.title}, {row.form} ...", file=sys.stderr, flush=True)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed tells how it compiles
            tensors.reset()
            optimizer = KINDS[row.kind].build(tensors, settings)
            _set_lr(optimizer, LR_COMPARED)
            optimizer.step()
            synchronize(settings.device)
            _set_lr(optimizer, LR)
            if expected is not None:
                has_copies = KINDS[row.kind].is_ours and bool(tensors.low)
                row.max_relative_difference = difference(tensors, expected, has_copies=has_copies)
    except UnavailableError as error:
        row.reason = str(error)
        return
    except Exception as error:
        kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
        row.reason = kind + " ".join(str(error).split())[:300]
        return
    if row.max_relative_difference is not None and not row.max_relative_difference <= TOLERANCE:
        row.reason = f"wrong, so not timed: it differs from reference by {row.max_relative_difference:.1e} of a step"
        return
    row.optimizer = optimizer
    reads_norm = getattr(optimizer, "skip_nonfinite", False) or getattr(optimizer, "max_grad_norm", None) is not None
    row.counted_bytes = counted_bytes(row.kind, tensors, reads_norm=reads_norm)


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(call: Callable[[], Any], *, num_calls: int, device: str) -> tuple[float, float]:
    """(milliseconds of one call, of which the host was at work: sending to a GPU, or on the CPU of all its threads)."""
    is_gpu = device == "cuda"
    clock = time.perf_counter if is_gpu else time.process_time
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if is_gpu else []
    synchronize(device)
    if is_gpu:
        events[0].record()
    began, began_work = time.perf_counter(), clock()
    for _ in range(num_calls):
        call()
    worked, took = clock() - began_work, time.perf_counter() - began
    if is_gpu:
        events[1].record()
        torch.cuda.synchronize()
        took = events[0].elapsed_time(events[1]) / 1e3
    return took * 1e3 / num_calls, worked * 1e3 / num_calls


@dataclass
class Copy:
    """torch's copy_ of a tensor too large for any cache, the bandwidth that steps are held against."""

    num_bytes: int  # read and written by one copy
    samples: list[float] = field(default_factory=list)

    @property
    def gb_per_s(self) -> float:
        return self.num_bytes / median(self.samples) / 1e6


def take_turns(rows: list[Row], settings: argparse.Namespace) -> Copy:
    """Fill the rows' samples: in each round everyone is measured once, and the copy too."""
    source = torch.ones(settings.copy_mb * 1_000_000 // FP32_BYTES, device=settings.device)
    target = torch.empty_like(source)
    copy = Copy(num_bytes=2 * source.numel() * FP32_BYTES)
    runners = [(row, row.optimizer.step) for row in rows if row.optimizer is not None]
    for _ in range(settings.warmup):
        target.copy_(source)
        for _, step in runners:
            step()
    for turn in range(settings.repeats):
        print(f"round {turn + 1} of {settings.repeats} ...", file=sys.stderr, flush=True)
        milliseconds, _ = measure(
            lambda: target.copy_(source), num_calls=settings.steps_per_sample, device=settings.device
        )
        copy.samples.append(milliseconds)
        for row, step in runners:
            milliseconds, host = measure(step, num_calls=settings.steps_per_sample, device=settings.device)
            row.samples.append(milliseconds)
            row.host_samples.append(host)
    return copy


def count_launches(rows: list[Row], device: str) -> None:
    """Fill `launches`: CUDA kernels of one step (without the driver's copies and fills); on the CPU operators."""
    probe = torch.ones(8, device=device)
    if not _launches(lambda: probe.mul_(2.0), device):
        return  # the profiler sees nothing here
    for row in rows:
        if row.optimizer is not None:
            row.launches = _launches(row.optimizer.step, device)


class _CountOperators(TorchDispatchMode):
    """Counts operators of ATen as Python calls them: one for a list of tensors, and none inside another."""

    num_operators = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_operators += 1
        return function(*args, **(kwargs or {}))


def _launches(call: Callable[[], Any], device: str) -> int:
    if device == "cpu":
        with _CountOperators() as count:
            call()
        return count.num_operators
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as of_kernels:
        call()
        torch.cuda.synchronize()
    return sum(
        event.device_type == torch.autograd.DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)
        and not event.name.startswith(("Memcpy", "Memset", "Optimizer.", "ProfilerStep"))
        for event in of_kernels.events() or []
    )


# -- the price of exactness under ZeRO ---------------------------------------------------------------------------------


def price_of_exactness(rows: list[Row], groups: list[Group], settings: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds that norms by segment add to a step on a flat partition, and of the all-reduce they need."""
    extra = {}
    for implementation in ("foreach", "fused"):
        exact, unaware = (_find(rows, f"{name}-{implementation}", "flat") for name in ("lamb", "unaware"))
        if exact is not None and unaware is not None and exact.samples and unaware.samples:
            pairs = zip(exact.samples, unaware.samples, strict=True)
            extra[implementation] = {
                "exact_ms": median(exact.samples),
                "unaware_ms": median(unaware.samples),
                "extra_ms": median(a - b for a, b in pairs),
            }
    num_norms = sum(len(group.names) for group in groups if group.adapt)
    return {"segment_norms": extra, "all_reduce": all_reduce_of_norms(num_norms, settings.num_all_reduces)}


def all_reduce_of_norms(num_parameters: int, num_repeats: int) -> dict[str, Any]:
    """Time of the all-reduce of [2, num_parameters] float64 over this process and another, with gloo; or a reason."""
    about = {"shape": [2, num_parameters], "ranks": 2, "backend": "gloo"}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"file://{folder}/store", num_parameters, num_repeats)
        other = torch.multiprocessing.get_context("spawn").Process(target=_all_reduce, args=(1, *arguments))
        other.start()
        try:
            samples = _all_reduce(0, *arguments)
        except RuntimeError as error:  # a machine without a loop-back network must not cost the table
            return {**about, "reason": str(error).splitlines()[0], "median_ms": None, "ms": []}
        finally:
            other.join()
    return {**about, "reason": None, "median_ms": median(samples), "ms": samples}


def _all_reduce(rank: int, store: str, num_parameters: int, num_repeats: int) -> list[float]:
    """Milliseconds of each, on this rank."""
    torch.set_num_threads(1)
    patience = timedelta(minutes=2)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=patience)
    norms = torch.ones(2, num_parameters, dtype=torch.float64)
    samples = []
    for _ in range(5 + num_repeats):
        norms.fill_(1.0)
        torch.distributed.barrier()
        began = time.perf_counter()
        torch.distributed.all_reduce(norms)
        samples.append((time.perf_counter() - began) * 1e3)
    torch.distributed.destroy_process_group()
    return samples[5:]


# -- what comes out ----------------------------------------------------------------------------------------------------


def _find(rows: list[Row], kind: str, form: str) -> Row | None:
    return next((row for row in rows if row.kind == kind and row.form == form), None)


def _ratio(row: Row, other: Row | None) -> float | None:
    """Median over the rounds of the times' ratio: both were measured within moments."""
    if other is None or not row.samples or not other.samples:
        return None
    return median(mine / its for mine, its in zip(row.samples, other.samples, strict=True))


def record(row: Row, rows: list[Row], num_parameters: int, copy: Copy) -> dict[str, Any]:
    """The row as it stands in the JSON file; what is not known is null."""
    time_ms = median(row.samples) if row.samples else None
    gb_per_s = row.counted_bytes / time_ms / 1e6 if row.counted_bytes is not None and time_ms is not None else None
    return {
        "kind": row.kind,
        "title": row.title,
        "form": row.form,
        "dtypes": row.dtypes,
        "reason": row.reason,
        "median_ms": time_ms,
        "min_ms": min(row.samples, default=None),
        "max_ms": max(row.samples, default=None),
        "host_ms": median(row.host_samples) if row.host_samples else None,
        "counted_bytes": row.counted_bytes,
        "counted_bytes_per_parameter": None if row.counted_bytes is None else row.counted_bytes / num_parameters,
        "gb_per_s": gb_per_s,
        "share_of_copy": None if gb_per_s is None else gb_per_s / copy.gb_per_s,
        "launches": row.launches,
        "ratio_to_adamw_foreach": _ratio(row, _find(rows, "adamw-foreach", row.form)),
        "ratio_to_adamw_fused": _ratio(row, _find(rows, "adamw-fused", row.form)),
        "max_relative_difference": row.max_relative_difference,
        "ms": row.samples,
        "host_ms_samples": row.host_samples,
    }


COLUMNS = {
    "optimizer": lambda r: r["title"],
    "form": lambda r: r["form"],
    "tensors": lambda r: r["dtypes"],
    "ms": lambda r: _number(r["median_ms"], ".3f"),
    "host ms": lambda r: _number(r["host_ms"], ".3f"),
    "B/param": lambda r: _number(r["counted_bytes_per_parameter"], ".1f"),
    "GB/s": lambda r: _number(r["gb_per_s"], ",.1f"),
    "of copy": lambda r: _number(r["share_of_copy"], ".0%"),
    "launches": lambda r: _number(r["launches"], ",d"),
    "/ AdamW foreach": lambda r: _number(r["ratio_to_adamw_foreach"], ".2f"),
    "/ AdamW fused": lambda r: _number(r["ratio_to_adamw_fused"], ".2f"),
    "differs": lambda r: _number(r["max_relative_difference"], ".0e"),
}
NUM_TEXT_COLUMNS = 3


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def table(records: list[dict[str, Any]]) -> str:
    """Aligned plain text, without columns that nobody fills; a row without numbers has its reason instead."""
    cells = [[column(record) for column in COLUMNS.values()] for record in records]
    is_filled = [any(line[i] != "-" for line in cells) for i in range(len(COLUMNS))]
    lines = [[cell for cell, keep in zip(line, is_filled, strict=True) if keep] for line in [list(COLUMNS), *cells]]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    texts = []
    for line, reason in zip(lines, [None, *(record["reason"] for record in records)], strict=True):
        padded = [
            cell.ljust(width) if i < NUM_TEXT_COLUMNS else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append("  ".join([*padded[:NUM_TEXT_COLUMNS], reason] if reason else padded))
    return "\n".join(texts)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a name of conf/model, or a .json file with a list of shapes")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--params", choices=tuple(DTYPES), default="fp32", help="below fp32 they get fp32 masters")
    parser.add_argument("--grad-dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--form", choices=("list", "flat", "both"), default="both", help="flat: one tensor a group")
    parser.add_argument("--implementations", nargs="+", choices=tuple(KINDS), default=list(KINDS), metavar="NAME")
    parser.add_argument("--skip-nonfinite", choices=("on", "off"), default="on", help="of ours in list form")
    parser.add_argument("--repeats", type=int, help="rounds; 20 on a GPU, 5 on a CPU")
    parser.add_argument("--warmup", type=int, help="rounds that do not count; 3 on a GPU, 1 on a CPU")
    parser.add_argument("--steps-per-sample", type=int, help="10 on a GPU, 1 on a CPU")
    parser.add_argument("--copy-mb", type=int, help="size of the tensor that is copied; 1000 on a GPU, 400 on a CPU")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on the CPU")
    parser.add_argument("--num-all-reduces", type=int, default=200)
    parser.add_argument("--out", type=Path, help="default: results/ beside this file, named after the settings")
    settings = parser.parse_args(arguments)
    if settings.device == "auto":
        settings.device = "cuda" if torch.cuda.is_available() else "cpu"
    is_gpu = settings.device == "cuda"
    defaults = {
        "model": ("bert_large", "bert_base"),
        "repeats": (20, 5),
        "warmup": (3, 1),
        "steps_per_sample": (10, 1),
        "copy_mb": (1000, 400),
    }
    for name, (on_gpu, on_cpu) in defaults.items():
        if getattr(settings, name) is None:
            setattr(settings, name, on_gpu if is_gpu else on_cpu)
    if settings.out is None:
        words = (Path(settings.model).stem, settings.device, f"w_{settings.params}", f"g_{settings.grad_dtype}")
        settings.out = Path(__file__).parent / "results" / f"lamb_step_{'_'.join(words)}.json"
    return settings


def main() -> None:
    settings = parse()
    torch.set_num_threads(settings.threads)
    groups = groups_of(settings.model)
    num_parameters = sum(group.numel for group in groups)
    about = surroundings(settings, packages=("triton", "timm", "deepspeed", "transformers"))
    forms = {
        form: Tensors(
            groups,
            form,
            device=settings.device,
            params_dtype=DTYPES[settings.params],
            grad_dtype=DTYPES[settings.grad_dtype],
        )
        for form in (("list", "flat") if settings.form == "both" else (settings.form,))
    }
    rows = set_up(settings.implementations, forms, settings)
    copy = take_turns(rows, settings)
    count_launches(rows, settings.device)
    zero = price_of_exactness(rows, groups, settings)
    records = [record(row, rows, num_parameters, copy) for row in rows]
    result = {
        "benchmark": "lamb_step",
        **about,
        "num_tensors": sum(len(group.names) for group in groups),
        "num_parameters": num_parameters,
        "groups": [{"adapt": g.adapt, "num_tensors": len(g.names), "num_parameters": g.numel} for g in groups],
        "copy": {
            "bytes_read_and_written": copy.num_bytes,
            "median_ms": median(copy.samples),
            "gb_per_s": copy.gb_per_s,
            "ms": copy.samples,
        },
        "zero": zero,
        "rows": records,
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result))


def report(result: dict[str, Any]) -> str:
    """All of it as text, the table last."""
    versions = ", ".join(f"{name} {version or '-'}" for name, version in result["versions"].items())
    hardware, reduced = result["hardware"], result["zero"]["all_reduce"]
    sizes = " + ".join(
        f"{group['num_parameters']:,} {'adapted' if group['adapt'] else 'exempt'}" for group in result["groups"]
    )
    lines = [
        f"{versions}; commit {result['commit'] or '-'}",
        f"{hardware['gpu'] or hardware['cpu']}; {hardware['num_cpus']} CPUs, threads: {hardware['threads']}",
        f"{result['settings']['model']}: {result['num_tensors']} tensors, {result['num_parameters']:,} parameters"
        f" ({sizes}); {result['settings']['repeats']} rounds of {result['settings']['steps_per_sample']} steps",
        f"copy_: {result['copy']['gb_per_s']:,.1f} GB/s read and written",
        "",
        "exactness under ZeRO, on one flat partition per group:",
        *(
            f"  norms by segment, {name}: {cost['extra_ms']:+.3f} ms on {cost['unaware_ms']:.3f} ms"
            for name, cost in result["zero"]["segment_norms"].items()
        ),
        f"  all-reduce of {reduced['shape']} float64 over {reduced['ranks']} gloo ranks: "
        + (reduced["reason"] or f"{reduced['median_ms']:.3f} ms"),
        "",
        table(result["rows"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
