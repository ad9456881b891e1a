"""One of two ranks that fine-tunes every case of a file; the first case is killed once and resumed.

usage, under torchrun: glue_worker.py CASES.json     name -> arguments of `bert-lamb glue`
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch

from bert_lamb.cli.compose import compose
from bert_lamb.engine.launch import join_process_group, this_process
from bert_lamb.finetuning.glue.command import glue
from tests.finetuning.killing import kill_in_third_step


def main(file: Path) -> None:
    process = this_process(device="cpu", num_threads=1)
    join_process_group(process)
    cases = json.loads(file.read_text())
    first = next(iter(cases))
    kill_in_third_step(partial(glue, compose("glue", cases[first])))
    torch.distributed.barrier()
    cases[first].append("if_exists=resume")
    for words in cases.values():
        glue(compose("glue", words))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
