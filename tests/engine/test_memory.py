"""Bytes: counted by hand, and of a machine as its files say. test_zero_exactness.py has the state of the engines.

Breaks that turn this file red: a count that keeps what is freed, or adds views; a container's limit that is not read.
"""

from pathlib import Path

import torch

from bert_lamb.engine import memory
from bert_lamb.engine.memory import peak_of, usable_bytes

CPU = torch.device("cpu")


def test_the_peak_of_a_product_and_its_gradient():
    """By hand, of [100, 1000] x [1000, 1000] in fp32: product, activation and its gradient 0.4 MB each, the weight's
    gradient 4. The sum's gradient is one number, spread without memory."""
    inputs, weight = torch.randn(100, 1000), torch.randn(1000, 1000, requires_grad=True)
    with peak_of(CPU) as peak:
        product = inputs @ weight
        activation = product.relu()
        activation.sum().backward()
    assert peak.bytes == 3 * 400_000 + 4_000_000 + 2 * 4


def test_what_is_freed_no_longer_counts_and_what_was_there_never_does():
    before = torch.zeros(10_000)
    with peak_of(CPU) as peak:
        for _ in range(5):
            torch.zeros(1000).view(10, 100)[3:].add_(1)
        before.view(100, 100)[3:].add_(1)
        torch.zeros(500)
    assert peak.bytes == 4000


def test_a_machine_is_as_large_as_its_container_and_ranks_share_it(tmp_path, monkeypatch):
    limit, other = tmp_path / "memory.max", tmp_path / "limit_in_bytes"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (limit, other))
    whole = usable_bytes(CPU, ranks_on_host=1)
    total = Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]  # kB
    assert whole == int(total) * 1024 // 2
    limit.write_text("max\n")
    other.write_text("9223372036854771712\n")  # what the older kernels say for none
    assert usable_bytes(CPU, ranks_on_host=1) == whole
    limit.write_text("1000000\n")
    assert usable_bytes(CPU, ranks_on_host=1) == 500_000
    assert usable_bytes(CPU, ranks_on_host=4) == 125_000
