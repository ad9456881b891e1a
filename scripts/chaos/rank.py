"""One rank of a program that is to be broken: `bert-lamb WORDS`, held where CHAOS_FOLDER/holds.json says.

torchrun starts it as a module; `jobs.Forked` calls it in a forked process.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = "CHAOS_FOLDER"


def main(words: Sequence[str]) -> int:
    from scripts.chaos.moments import arm

    folder, rank = Path(os.environ[FOLDER]), int(os.environ.get("RANK", "0"))
    (folder / f"rank-{rank}.pid").write_text(str(os.getpid()))
    arm(folder, rank)
    from bert_lamb.cli import main as cli

    sys.argv = ["bert-lamb", *words]
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
