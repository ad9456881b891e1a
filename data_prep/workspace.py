"""OUTPUT.partial while it grows: what lies where in it, and what must be the same when a run goes on with it."""

import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.shards.manifest import read_manifest

VOCABULARY_FILE = "vocab.txt"
LIBRARIES = (
    "bert-lamb",
    "numpy",
    "pyarrow",
    "tokenizers",
    "sentencex",
    "mwparserfromhell",
    "markdown-it-py",
    "matplotlib",
)


@dataclass(frozen=True)
class Workspace:
    """Where things lie while OUTPUT.partial grows."""

    directory: Path

    @property
    def documents_dir(self) -> Path:
        return self.directory / "documents"

    @property
    def instances_dir(self) -> Path:
        return self.directory / "instances"

    @property
    def vocabulary_path(self) -> Path:
        return self.directory / VOCABULARY_FILE


def require_same_config(output_dir: Path, config: dict[str, Any]) -> None:
    """UserError naming the settings in which the shards that are there differ from the present configuration."""
    found = read_manifest(output_dir).preparation.config
    differing = sorted(key for key in config.keys() | found.keys() if config.get(key) != found.get(key))
    if differing:
        raise UserError(
            found=f"shards in {output_dir} that were made with other values of {', '.join(differing)}",
            expected="the present configuration",
            fix="choose another output_dir, or add if_exists=restart to delete them",
        )


def versions() -> dict[str, str]:
    """Versions of what the bytes depend on."""
    found = {library: importlib.metadata.version(library) for library in LIBRARIES}
    return {"python": platform.python_version(), **found}
