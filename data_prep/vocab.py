"""`bert-lamb vocab`: a vocabulary of its own, trained on the documents that `prepare` would use."""

import json
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import beside, write_atomically
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.outputs.if_exists import Decision, State, check_if_same, decide
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.staged import OutputKind, delete, is_complete
from bert_lamb.shards.manifest import MANIFEST_FILE
from data_prep.documents import vocabulary_fit
from data_prep.documents.make import make_vocabulary
from data_prep.documents.vocabulary_file import read_entries
from data_prep.pool import Pool
from data_prep.prepare import open_workspace, partitions_of, warn
from data_prep.settings import Settings, Spread
from data_prep.workspace import versions

# Its work is never complete there: the vocabulary leaves for its own place.
VOCABULARY = OutputKind("a vocabulary of bert-lamb vocab", MANIFEST_FILE, key="none of it", option="output_file")


def train_vocabulary(settings: Settings, spread: Spread, *, output_file: Path, if_exists: str) -> None:
    """Train a vocabulary on the documents that `prepare` would use, and write it to a file of its own.

    Beside it, OUTPUT_FILE.json keeps the settings and versions it was made with. Raises UserError as `prepare` does.
    """
    work_dir, record_file = beside(output_file, ".work"), Path(f"{output_file}.json")
    words = {"kind": VOCABULARY.name, "option": VOCABULARY.option}
    record = read_record(record_file)
    is_there = output_file.exists() or output_file.is_symlink()
    state = State.absent if not is_there else State.finished if record else State.foreign
    decision = decide(state, output_file, if_exists=if_exists, detail="something else", **words)
    config = to_plain(settings.to_config())
    if decision is Decision.keep:
        check_if_same(record["config"], config, output_file, **words)
        is_complete(work_dir, VOCABULARY, if_exists="restart")  # what a killed run left of its work
        print(f"{output_file}: already there; nothing to do")
        return
    partitions_of(settings, spread)  # what is refused is refused before anything is deleted
    if is_complete(work_dir, VOCABULARY, if_exists=if_exists):
        raise UserError(found=f"{work_dir}", expected="nothing there", fix="delete it")
    output_file.unlink(missing_ok=True)  # restart: or a run that is killed now would leave what looks like its result
    partitions, workspace = open_workspace(settings, spread, work_dir, is_text_read=False, kind=VOCABULARY)
    with Pool(spread.num_workers) as pool:
        make_vocabulary(partitions, workspace, settings, pool)
    texts = vocabulary_fit.sample_texts(partitions, settings.cleaning)
    warn(vocabulary_fit.warnings_of_trained(workspace.vocabulary_path, texts, is_lowercase=settings.is_lowercase))
    record = {"kind": VOCABULARY.name, "config": config, "versions": versions(settings)}
    write_atomically(record_file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    workspace.vocabulary_path.replace(output_file)
    delete(workspace.directory)
    num_entries = len(read_entries(output_file))
    print(f"{output_file}: {num_entries:,} entries, sha256 {file_sha256(output_file)}")


def read_record(file: Path) -> dict[str, Any]:
    """What a vocabulary was made with; nothing where no file is, or none of ours."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    is_ours = isinstance(record, dict) and record.get("kind") == VOCABULARY.name
    return record if is_ours and isinstance(record.get("config"), dict) else {}
