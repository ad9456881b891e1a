"""One of two ranks that are examined twice; test_ranks.py reads what is left. usage: doctor_worker.py FOLDER"""

import sys
from pathlib import Path

from bert_lamb.cli import main as cli
from bert_lamb.doctor import ranks, training

WORDS = ["doctor", "runtime=cpu", "runtime.engine=fsdp", "all_reduce_mb=1", "timeout_seconds=60"]


def main(folder: Path) -> int:
    words = [*WORDS, f"run_dir={folder}/run"]
    print("status", cli.main([*words, f"output={folder}/sound.json"]), flush=True)
    ranks.PREFIX = "second"  # keys of the store are used once
    taken = training.take_step

    def take_step(examination, *rest):
        if examination.process.rank == 1:
            raise ZeroDivisionError("inside the step")
        return taken(examination, *rest)

    training.take_step = take_step
    return cli.main([*words, f"output={folder}/broken.json"])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
