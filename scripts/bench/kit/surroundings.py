"""What a measured number must be quoted with: command line, commit, versions, hardware, settings."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert_lamb.outputs.provenance import library_versions, versions
from kit import CHECKOUT

MEASURED = ("bert_lamb", "data_prep", "scripts/bench/*.py", "scripts/chaos/*.py")  # what the numbers depend on


def surroundings(settings: argparse.Namespace, *, packages: Sequence[str]) -> dict[str, Any]:
    """The entries that every result file starts with.

    packages: names on PyPI of the libraries whose versions matter. A bench that has imported torch also gets the
    versions of torch and CUDA, the number of threads and, if it measured on one, the GPU.
    """
    facts = versions()
    found: dict[str, Any] = {"python": facts["python"]}
    for package, version in library_versions(packages).items():
        found[package] = None if version == "not installed" else version
    hardware: dict[str, Any] = {"cpu": facts["processor"], "num_cpus": int(facts["num_cores"])}
    if "torch" in sys.modules:
        import torch

        found |= {"torch": torch.__version__, "cuda": torch.version.cuda}
        is_on_gpu = getattr(settings, "device", "cpu") == "cuda"
        hardware |= {
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if is_on_gpu else None,
        }
    command = ["python", os.path.relpath(sys.argv[0], CHECKOUT), *_relative(sys.argv[1:])]
    return {
        "command": shlex.join(command),
        "commit": _commit(),
        "versions": found,
        "hardware": hardware,
        "settings": {name: _relative(value) for name, value in vars(settings).items()},
    }


def _relative(value: Any) -> Any:
    """The value with paths in the checkout relative to it, and the last name of others: nobody needs where they are."""
    if isinstance(value, list):
        return [_relative(entry) for entry in value]
    if not isinstance(value, str | Path):
        return value
    return re.sub(r"(^|=)/.*/", r"\1", str(value).replace(f"{CHECKOUT}/", ""))


def _commit() -> str | None:
    """The commit, with "+" if files that the numbers depend on differ from it; None outside a checkout.

    `versions` has a shorter one, which any changed file makes dirty: also a result that was measured again.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--", *MEASURED)
        return git("rev-parse", "HEAD").strip() + ("+" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None
