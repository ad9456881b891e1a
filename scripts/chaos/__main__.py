"""The door of `python -m scripts.chaos`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))  # for `kit`

from scripts.chaos.main import main

if __name__ == "__main__":
    sys.exit(main())
