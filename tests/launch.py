"""Start a Python module on several ranks of this machine, as torchrun does, and keep what it said."""

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def run_ranks(world_size: int, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node world_size arguments`, each rank on one thread; output is captured together."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world_size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        [*command, *arguments],
        env=environment,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
