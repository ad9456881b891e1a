"""What a figure must be quoted with: versions, hardware, commit, command."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

LIBRARIES = ("bert-lamb", "torch", "deepspeed", "transformers", "tokenizers", "numpy", "pyarrow", "hydra-core")


def versions() -> dict[str, str]:
    """What a figure must be quoted with: versions, hardware, commit and command."""
    facts = {"python": platform.python_version(), "platform": platform.platform()}
    facts["processor"] = _processor()
    facts["num_cores"] = str(os.cpu_count())
    facts |= library_versions(LIBRARIES)
    facts["git_commit"] = _git_commit()
    facts["command"] = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return facts


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of Python packages by their names on PyPI."""
    found = {}
    for library in libraries:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _git_commit() -> str:
    checkout = Path(__file__).resolve().parent.parent.parent
    if not (checkout / ".git").exists():
        return "not a checkout"
    try:
        describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
