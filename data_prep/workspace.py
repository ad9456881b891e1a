"""OUTPUT.partial while it grows: what is where in it, and what must be the same when a run resumes from it."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.provenance import library_versions
from bert_lamb.outputs.staged import UNFINISHED_MARK, OutputKind, check_purpose
from bert_lamb.shards.manifest import MANIFEST_FILE, read_manifest
from data_prep.settings import Settings

KIND = OutputKind("a folder of prepared shards", MANIFEST_FILE, key="instance_sets")
VOCABULARY_FILE = "vocab.txt"
CORPUS_MARK = f"{UNFINISHED_MARK}.corpus"  # the partitions that all this was made from; outputs/staged.py removes it
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

    @property
    def is_finished(self) -> bool:
        """All is there but for the clearing up: the manifest is written when the last shard is."""
        return (self.directory / MANIFEST_FILE).is_file()


def forget_another_corpus(workspace: Workspace, partition_ids: Sequence[str], *, is_vocabulary_given: bool) -> None:
    """Delete what was made from the whole of a corpus that is another now: files have come, gone or changed their size.

    What was made from a partition alone stays: its folder is named by what it reads.
    """
    mark = workspace.directory / CORPUS_MARK
    digest = hashlib.blake2b("\n".join(partition_ids).encode(), digest_size=16).hexdigest()
    if mark.is_file() and mark.read_bytes() == digest.encode():
        return
    (workspace.directory / MANIFEST_FILE).unlink(missing_ok=True)
    for path in (*workspace.instances_dir.glob("*.npy"), *workspace.directory.glob("seq*/*")):
        path.unlink(missing_ok=True)
    if not is_vocabulary_given:
        workspace.vocabulary_path.unlink(missing_ok=True)
        for path in workspace.documents_dir.glob("*/*.tokens.arrow"):
            path.unlink(missing_ok=True)
    write_atomically(mark, digest, is_shared=True)


def require_same_config(output_dir: Path, config: dict[str, Any]) -> None:
    """UserError naming the settings in which the shards that are there differ from the present configuration."""
    then = read_manifest(output_dir).preparation.config
    check_purpose(then, to_plain(config), output_dir, KIND)


def versions(settings: Settings) -> dict[str, str]:
    """Versions of what the bytes depend on."""
    libraries = (*LIBRARIES, "datasketch") if settings.cleaning.duplicates == "near" else LIBRARIES
    return {"python": platform.python_version(), **library_versions(libraries)}
