"""Run the Python blocks of a page one after the other, in one namespace, and write what each has trained.

usage: snippets_worker.py OUTPUT.pt PAGE.md ...; OUTPUT.pt: for each block its text, its optimizer and weights.
"""

import os
import re
import socket
import sys
from pathlib import Path

import torch

ONE_RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}


def run(pages: list[str]) -> list[dict[str, object]]:
    """Every block in the order of the pages; one that makes a process group has torchrun's variables of one rank."""
    namespace: dict[str, object] = {"__name__": "snippets"}
    found = []
    for page in pages:
        for block in re.findall(r"^```python\n(.*?)^```", Path(page).read_text(), flags=re.MULTILINE | re.DOTALL):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            needs_ranks = "init_process_group" in block
            os.environ |= {**ONE_RANK, "MASTER_PORT": str(port)} if needs_ranks else {}
            namespace.pop("weights", None)
            exec(compile(block, page, "exec"), namespace)
            for name in [*ONE_RANK, "MASTER_PORT"] if needs_ranks else []:
                del os.environ[name]
            found.append({"block": block, **state_of(namespace)})
    return found


def state_of(namespace: dict[str, object]) -> dict[str, object]:
    """The weights that a block left (`weights`, or those of `model`) and its optimizer, without what wraps them."""
    if "model" not in namespace:
        return {}
    weights = namespace.get("weights") or namespace["model"].state_dict()  # type: ignore[attr-defined]
    optimizer = namespace["optimizer"]
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
    return {
        "optimizer": type(optimizer).__name__,
        "skipped": int(optimizer.num_skipped_steps),
        "steps": max((int(state["step"]) for state in optimizer.state.values()), default=0),
        "weights": {name.removeprefix("module."): value.detach().clone() for name, value in weights.items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save(run(sys.argv[2:]), sys.argv[1])
