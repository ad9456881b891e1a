"""The door of `python scripts/bench/train_step`."""

import sys
from pathlib import Path

# scripts/bench in the place of this folder, whose files belong to the package `train_step`.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from train_step.main import main  # noqa: E402

if __name__ == "__main__":
    main()
