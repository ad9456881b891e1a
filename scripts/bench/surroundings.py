"""What a measured number cannot be read without: command line, commit, versions, hardware, settings."""

import argparse
import contextlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


def surroundings(settings: argparse.Namespace, *, packages: Sequence[str]) -> dict[str, Any]:
    """packages: whose versions matter. torch's threads and the GPU are told where torch is in use."""
    versions: dict[str, Any] = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    hardware: dict[str, Any] = {"cpu": _cpu_name(), "num_cpus": os.cpu_count()}
    if "torch" in sys.modules:
        import torch

        versions |= {"torch": torch.__version__, "cuda": torch.version.cuda}
        is_on_gpu = getattr(settings, "device", "cpu") == "cuda"
        hardware |= {
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if is_on_gpu else None,
        }
    return {
        "command": shlex.join(["python", os.path.relpath(sys.argv[0], CHECKOUT), *sys.argv[1:]]),
        "commit": _commit(),
        "versions": versions,
        "hardware": hardware,
        "settings": {**vars(settings), "out": str(settings.out)},
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit, with "+" where files of the package or of this folder differ from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--", "bert_lamb", "data_prep", "scripts/bench/*.py")
        return git("rev-parse", "HEAD").strip() + ("+" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None
