"""The command: settings, and the order of events."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from kit import CHECKOUT
from kit.results import write_result
from kit.surroundings import surroundings

import lamb_step
from lamb_step.comparison import set_up
from lamb_step.exactness import price_of_exactness
from lamb_step.groups import groups_of
from lamb_step.kinds import KINDS
from lamb_step.launches import count_launches
from lamb_step.report import report
from lamb_step.result import result_of
from lamb_step.tensors import DTYPES, Tensors
from lamb_step.tilings import checked
from lamb_step.timing import take_turns

RESULTS = CHECKOUT / "scripts" / "bench" / "results"


def main() -> None:
    settings = parse()
    torch.set_num_threads(settings.threads)
    groups = groups_of(settings.model)
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
    result = result_of(rows, groups, copy, about=about, zero=zero)
    write_result(settings.out, result)
    print(report(result))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The settings, with those filled in whose defaults depend on the device or on others."""
    parser = argparse.ArgumentParser(description=lamb_step.__doc__.splitlines()[0])
    parser.add_argument("--model", help="a name of conf/model, or a .json file with a list of shapes")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--params", choices=tuple(DTYPES), default="fp32", help="below fp32 they get fp32 masters")
    parser.add_argument("--grad-dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--form", choices=("list", "flat", "both"), default="both", help="flat: one tensor a group")
    parser.add_argument("--implementations", nargs="+", choices=tuple(KINDS), default=list(KINDS), metavar="NAME")
    parser.add_argument(
        "--tilings",
        nargs="+",
        type=checked,
        default=[],
        metavar="BLOCKxWARPSxCHUNK",
        help="of the fused kernels, a row for each beside their own",
    )
    parser.add_argument("--skip-nonfinite", choices=("on", "off"), default="on", help="of ours in list form")
    parser.add_argument("--repeats", type=int, help="rounds; 20 on a GPU, 5 on a CPU")
    parser.add_argument("--warmup", type=int, help="rounds that do not count; 3 on a GPU, 1 on a CPU")
    parser.add_argument("--steps-per-sample", type=int, help="10 on a GPU, 1 on a CPU")
    parser.add_argument("--copy-mb", type=int, help="size of the tensor that is copied; 1000 on a GPU, 400 on a CPU")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on the CPU")
    parser.add_argument("--num-all-reduces", type=int, default=200)
    parser.add_argument("--out", type=Path, help="default: scripts/bench/results/, named after the settings")
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
        settings.out = RESULTS / f"lamb_step_{'_'.join(words)}.json"
    return settings
