"""The result file: one JSON object, with the surroundings and every sample."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_lamb.outputs.atomic import write_atomically


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write the file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=1) + "\n")
