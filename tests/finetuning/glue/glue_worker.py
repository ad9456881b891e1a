"""One of two ranks that fine-tunes every case of a file; the first case is killed once and resumed.

usage, under torchrun: glue_worker.py CASES.json     name -> arguments of `bert-lamb glue`
"""

import json
import sys
from pathlib import Path

import torch

from bert_lamb.cli.compose import compose
from bert_lamb.engine.launch import join_process_group, this_process
from bert_lamb.finetuning.glue.command import glue
from bert_lamb.train.recorder import Recorder


class Killed(BaseException):
    pass


def main(file: Path) -> None:
    process = this_process(device="cpu", num_threads=1)
    join_process_group(process)
    cases = json.loads(file.read_text())
    first = next(iter(cases))
    kill_after_a_checkpoint(cases[first])
    torch.distributed.barrier()
    cases[first].append("if_exists=resume")
    for words in cases.values():
        glue(compose("glue", words))


def kill_after_a_checkpoint(words: list[str]) -> None:
    """All ranks die in the third step: the main process by its recorder, the others as it were by the launcher."""
    original = Recorder.step

    def step_or_die(self, stage, step, **rest):
        if step == 3:
            raise Killed
        original(self, stage, step, **rest)

    Recorder.step = step_or_die
    try:
        glue(compose("glue", words))
    except Killed:
        pass
    finally:
        Recorder.step = original


if __name__ == "__main__":
    main(Path(sys.argv[1]))
