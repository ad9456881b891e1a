"""One of two ranks that fine-tunes every case of a file, one after the other; some are killed once and resumed.

What the host reads back in the case lamb1 is counted, into reads.json beside the file.

usage, under torchrun: squad_worker.py CASES.json     name -> arguments of `bert-lamb squad`
"""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import deepspeed
import torch

from bert_lamb.cli.compose import compose
from bert_lamb.engine.launch import join_process_group, this_process
from bert_lamb.finetuning.squad.command import squad
from tests.finetuning.killing import kill_in_third_step
from tests.train.host_reads import HostReads

KILLED = ("zero1", "fsdp")


def main(file: Path) -> None:
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled, which takes half a minute
    process = this_process(device="cpu", num_threads=1)
    join_process_group(process)
    for name, words in json.loads(file.read_text()).items():
        if name in KILLED:
            kill_in_third_step(partial(squad, compose("squad", [*words, "checkpoint.interval_steps=2"])))
            if process.is_main:
                shutil.copytree(file.parent / name, file.parent / f"left-{name}")
            torch.distributed.barrier()
            words = [*words, "checkpoint.interval_steps=2", "if_exists=resume"]
        if name == "lamb1":
            reads = HostReads()
            with reads.watching():
                squad(compose("squad", words))
            if process.is_main:
                (file.parent / "reads.json").write_text(json.dumps(reads.by_part()))
        else:
            squad(compose("squad", words))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
