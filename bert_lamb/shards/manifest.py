"""manifest.json: what a folder of shards holds, and the proof that it is complete (FORMAT.md, "Manifest").

Written last, so its presence means that everything it names is there. Read strictly: a key too many, a key too few or
another type is refused, and so is every version that this code does not know.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bert_lamb.errors import UserError
from bert_lamb.outputs.read_back import NOT_AS_WRITTEN

MANIFEST_FILE = "manifest.json"
FORMAT_NAME = "bert_lamb shards"
FORMAT_VERSION = 3
READABLE_VERSIONS = (2, 3)
VERSION_WITH_TEXT = 3  # the first with the manifest's field `text`
SPLITS = ("train", "heldout")
NEXT_SENTENCE = "next_sentence"  # Devlin et al. 2019: does B follow A, or is it from another document?
SENTENCE_ORDER = "sentence_order"  # Lan et al. 2020 (ALBERT): do A and B stand in their order, or swapped?
NO_SENTENCE_TASK = "none"  # Liu et al. 2019 (RoBERTa): full sentences of one or more documents, no second loss
SENTENCE_TASKS = (NEXT_SENTENCE, SENTENCE_ORDER, NO_SENTENCE_TASK)
TRIMMED = "trimmed"  # from a pair that was longer than an instance
LAST_SENTENCE = "last_sentence"  # of a document, with none after it for a second segment
SINGLE_SENTENCE = "single_sentence"  # the only one of its document, which therefore makes no pair
LEFT_OUT_REASONS = (TRIMMED, LAST_SENTENCE, SINGLE_SENTENCE)

Record = TypeVar("Record")


@dataclass(frozen=True)
class Vocabulary:
    """The WordPiece vocabulary whose ids the shards hold."""

    file: str  # relative to the manifest
    sha256: str
    size: int  # entries, one a line
    is_lowercase: bool
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int


@dataclass(frozen=True)
class Preparation:
    """What made the shards: everything their bytes depend on, but for the text itself."""

    config: dict[str, Any]
    versions: dict[str, str]  # library -> version


@dataclass(frozen=True)
class SourceRecord:
    """One source of text and how many of its documents were used."""

    name: str
    license: str
    num_read: int  # documents
    num_kept: int  # documents


@dataclass(frozen=True)
class DocumentCounts:
    """Where the documents went: num_read = num_train + num_heldout + the sum of dropped."""

    num_read: int
    num_train: int
    num_heldout: int
    dropped: dict[str, int]  # reason -> documents


@dataclass(frozen=True)
class Shard:
    """One Arrow file."""

    file: str  # relative to the manifest
    num_instances: int
    num_tokens: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class InstanceSet:
    """All instances of one length and split, in the order of their shards."""

    max_seq_length: int  # tokens, [CLS] and [SEP] included
    split: str  # "train" or "heldout"
    num_instances: int
    num_tokens: int
    num_true_labels: int  # instances whose sentence_label is True
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class TextRecord:
    """How much of the text of one split the instances of one length hold."""

    max_seq_length: int  # tokens, [CLS] and [SEP] included
    split: str  # "train" or "heldout"
    num_tokens: int  # of the documents used, each document once, without [CLS] and [SEP]
    left_out: dict[str, int]  # reason, one of LEFT_OUT_REASONS -> of these tokens, those in no instance

    @property
    def num_left_out(self) -> int:
        return sum(self.left_out.values())


@dataclass(frozen=True)
class Manifest:
    """The whole of manifest.json."""

    format: str
    format_version: int
    vocabulary: Vocabulary
    sentence_task: str  # one of SENTENCE_TASKS: what an instance's sentence_label says
    preparation: Preparation
    sources: tuple[SourceRecord, ...]
    documents: DocumentCounts
    instance_sets: tuple[InstanceSet, ...]
    text: tuple[TextRecord, ...] = ()  # for every length and split with documents; empty where it was not counted

    def instance_set(self, *, max_seq_length: int, split: str) -> InstanceSet:
        """The one set of this length and split; UserError names those that there are."""
        for candidate in self.instance_sets:
            if (candidate.max_seq_length, candidate.split) == (max_seq_length, split):
                return candidate
        available = ", ".join(f"{found.split} {found.max_seq_length}" for found in self.instance_sets)
        raise UserError(
            found=f"shards with the instance sets {available or 'none'}",
            expected=f"{split} instances of max_seq_length {max_seq_length}",
            fix="choose one of these, or prepare again with other max_seq_lengths or heldout_proportion",
        )

    def to_json(self) -> str:
        """The text of manifest.json; the same manifest always gives the same bytes."""
        plain = dataclasses.asdict(self)
        if self.format_version < VERSION_WITH_TEXT:
            del plain["text"]
        return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


def manifest_from_json(text: str, *, origin: str) -> Manifest:
    """Parse and check; UserError, with `origin` as the file's name, unless it is a manifest of a readable version."""

    def refuse(found: str, expected: str) -> UserError:
        return UserError(found=f"{found} in {origin}", expected=expected, fix="prepare the shards again")

    try:
        plain = json.loads(text)
    except NOT_AS_WRITTEN as error:
        raise refuse(f"text that is not JSON ({error})", "the manifest that prepare wrote") from error
    if not isinstance(plain, dict) or plain.get("format") != FORMAT_NAME:
        found = plain.get("format") if isinstance(plain, dict) else type(plain).__name__
        raise refuse(f"format {found!r:.80}", repr(FORMAT_NAME))
    version, readable = plain.get("format_version"), " or ".join(map(str, READABLE_VERSIONS))
    if type(version) is not int or version not in READABLE_VERSIONS:
        raise UserError(
            found=f"format_version {version!r:.80} in {origin}",
            expected=f"format_version {readable}, which this version of bert_lamb reads",
            fix="use the version of bert_lamb that made the shards, or prepare them again",
        )
    if version < VERSION_WITH_TEXT and "text" not in plain:
        plain["text"] = []
    elif version < VERSION_WITH_TEXT:
        raise refuse("a field text", f"none in version {version}")
    try:
        manifest = _record_from_plain(Manifest, plain, "manifest")
        _check_consistency(manifest)
    except _Malformed as error:
        raise refuse(str(error), "the fields of FORMAT.md") from error
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a folder of shards; UserError if it is absent, malformed or of an unknown version."""
    path = directory / MANIFEST_FILE
    if not path.is_file():
        raise UserError(
            found=f"no {MANIFEST_FILE} in {directory}",
            expected="a folder of complete shards",
            fix="run bert-lamb prepare, or give the folder that it wrote",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(found=f"{error} in {path}", expected="UTF-8", fix="prepare the shards again") from error
    return manifest_from_json(text, origin=str(path))


class _Malformed(Exception):
    """Where a manifest departs from FORMAT.md."""


def _record_from_plain(kind: type[Record], plain: Any, where: str) -> Record:
    """Build a dataclass from parsed JSON whose keys and types must be exactly its fields'."""
    if not isinstance(plain, dict):
        raise _Malformed(f"{where} is {type(plain).__name__}, not an object")
    hints = typing.get_type_hints(kind)
    unknown, missing = sorted(plain.keys() - hints.keys()), sorted(hints.keys() - plain.keys())
    if unknown or missing:
        raise _Malformed(f"{where} with unknown keys {unknown} and missing keys {missing}")
    return kind(**{name: _value_from_plain(hint, plain[name], f"{where}.{name}") for name, hint in hints.items()})


def _value_from_plain(hint: Any, plain: Any, where: str) -> Any:
    """One field's value, checked against the type its dataclass declares."""
    if hint is Any:
        return plain
    if dataclasses.is_dataclass(hint):
        return _record_from_plain(typing.cast(type[Any], hint), plain, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wanted: type = {tuple: list, None: hint}.get(origin, origin)
    if type(plain) is not wanted:  # exact: True is no count
        raise _Malformed(f"{where} of type {type(plain).__name__}, not {wanted.__name__}")
    items: Any = plain
    if origin is tuple:
        return tuple(_value_from_plain(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    if origin is dict:
        return {key: _value_from_plain(arguments[1], item, f"{where}.{key}") for key, item in items.items()}
    return plain


def _check_consistency(manifest: Manifest) -> None:
    """What the types do not say: known tasks and splits, nothing twice, files inside the folder, sums that agree."""
    if manifest.sentence_task not in SENTENCE_TASKS:
        raise _Malformed(f"sentence_task {manifest.sentence_task!r}, which is not one of {', '.join(SENTENCE_TASKS)},")
    seen: set[tuple[int, str]] = set()
    files = [manifest.vocabulary.file]
    for found in manifest.instance_sets:
        name = f"instance set {found.split} {found.max_seq_length}"
        if found.split not in SPLITS:
            raise _Malformed(f"{name} whose split is not one of {', '.join(SPLITS)}")
        if (found.max_seq_length, found.split) in seen:
            raise _Malformed(f"{name} twice")
        seen.add((found.max_seq_length, found.split))
        if not found.num_instances:
            raise _Malformed(f"{name} without instances")
        files += [shard.file for shard in found.shards]
        for field in ("num_instances", "num_tokens"):
            total = sum(getattr(shard, field) for shard in found.shards)
            if total != getattr(found, field):
                raise _Malformed(f"{name} with {field} {getattr(found, field)} but {total} in its shards")
    seen = set()
    for record in manifest.text:
        name = f"text of {record.split} {record.max_seq_length}"
        if record.split not in SPLITS or (record.max_seq_length, record.split) in seen:
            raise _Malformed(f"{name} twice, or of no known split")
        seen.add((record.max_seq_length, record.split))
        if unknown := sorted(record.left_out.keys() - set(LEFT_OUT_REASONS)):
            raise _Malformed(f"{name} with the unknown reasons {unknown}")
        if min(record.left_out.values(), default=0) < 0 or record.num_left_out > record.num_tokens:
            raise _Malformed(f"{name} with {record.num_left_out} of {record.num_tokens} tokens left out")
    for file in files:
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise _Malformed(f"file {file!r} outside the folder")
    if len(set(files)) != len(files):
        raise _Malformed("a file named twice")
