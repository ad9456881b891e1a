"""Files that appear whole or not at all."""

import os
from pathlib import Path

PARTIAL_SUFFIX = ".partial"  # of what is being written; a finished file or folder never ends in it


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
