"""scripts/launch/slurm.sh under a real SLURM of two nodes on this machine; skipped where that cannot be started."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import CHECKOUT
from tests.pretraining.test_pretrain import SMALL
from tests.synthetic import make_shards

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (Debian: slurm-wlm, munge)")
@pytest.mark.skipif(os.getuid() != 0, reason="needs root, for slurmd and a mount namespace")
def test_a_job_comes_back_when_asked_and_a_mistake_does_not(tmp_path):
    """Asked to stop, while it trains and while it starts: saved, requeued, resumed. Three mistakes: FAILED at once."""
    shards = make_shards(tmp_path / "s")
    folder = tmp_path / "slurm"
    folder.mkdir()
    settings = [*SMALL, "phases.phase1.total_steps=60", "runtime.micro_batch_size.phase1=32"]
    script = str(Path(__file__).with_name("slurm_story.py"))
    story = ["unshare", "--mount", sys.executable, script, str(folder), str(shards)]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT), "PATH": path}
    ended = subprocess.run([*story, *settings], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    seen = json.loads(ended.stdout)
    assert seen["asked"] == ["PENDING", 1]
    assert len(seen["saved"]) == 1
    assert seen["resumed"] == ["COMPLETED", 1, "0:0"]
    assert "resume   the run continues after phase1 step" in (folder / "run.log").read_text()
    assert seen["early"][1] == 1, "a signal before the first step brings the job back too"
    assert [(state, restarts) for state, restarts, _ in seen["mistakes"]] == [("FAILED", 0)] * 3
