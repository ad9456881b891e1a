"""vocab.txt, and what a vocabulary must have: BERT's special tokens, and entries that the casing can reach."""

import json
from pathlib import Path

from bert_lamb.checkpoint.folder.files import LFS_POINTER, PULL, read_bytes
from bert_lamb.checkpoint.folder.word_pieces import Casing, has_small_letters_alone
from bert_lamb.errors import UserError

TOKENIZER_FILE, VOCABULARY_FILE, CONFIG_FILE = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
SPECIAL_TOKENS = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
MAX_UNREACHABLE_SHARE = 0.05  # of the vocabulary; more of it that text can never give is another casing's vocabulary
# Of the entries with letters: where more have small ones, it was made of text in lower case; else most of its text has
# no letters of two cases, as in bert-base-chinese, whose folder says do_lower_case=false.
MAX_SHARE_WITHOUT_CAPITALS = 0.5
FIX = "put the tokenizer that the model was pretrained with into its folder"


def read_vocabulary(file: Path) -> dict[str, int]:
    """Entry -> id of a vocab.txt, one entry a line; of an entry that is there twice the last counts, as for Google."""
    content = read_bytes(file, expected="one WordPiece a line", fix=FIX)
    if content.startswith(LFS_POINTER):
        raise UserError(found=f"{file} that is a git-lfs pointer", expected="the vocabulary", fix=PULL)
    try:
        lines = content.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(found=f"{file} that is not UTF-8 ({error})", expected="UTF-8", fix=FIX) from error
    if lines[0].startswith("\ufeff"):
        raise UserError(
            found=f"{file} with a byte order mark, which would be part of its first entry",
            expected="UTF-8 without it",
            fix="remove its first three bytes",
        )
    return {line.removesuffix("\r"): number for number, line in enumerate(lines)}


def check_same_vocabulary(ours: dict[str, int], other: dict[str, int], folder: Path) -> None:
    # Of an entry that is twice in vocab.txt both readings keep the last, so its earlier number is free in both.
    differing = sorted(
        (ours.get(entry, other.get(entry, 0)), entry)
        for entry in ours.keys() | other.keys()
        if ours.get(entry) != other.get(entry)
    )
    if differing:
        entry = differing[0][1]
        raise UserError(
            found=f"{len(differing):,} entries that differ between {TOKENIZER_FILE} and {VOCABULARY_FILE} of {folder}, "
            f"such as {entry!r}: id {ours.get(entry)} and {other.get(entry)}",
            expected="the same vocabulary in both",
            fix="remove the one that the model was not pretrained with",
        )


def check_special_tokens(special: dict[str, str], vocabulary: dict[str, int], folder: Path) -> None:
    missing = [special[name] for name in ("unk", "cls", "sep", "pad") if special[name] not in vocabulary]
    if missing:
        raise UserError(
            found=f"a vocabulary of {len(vocabulary):,} entries without {', '.join(missing)} in {folder}",
            expected="BERT's special tokens among them",
            fix=FIX,
        )


def check_casing(
    vocabulary: dict[str, int], casing: Casing, special: dict[str, str], place: Path, *, fix: str | None = None
) -> None:
    """Refuse a casing under which much of the vocabulary cannot occur, or under which capitals have no entry.

    place, fix: where the vocabulary is, and what to set instead of the settings of its folder, for messages.
    """
    normalizer = casing.normalizer()
    words = [entry for entry in vocabulary if entry not in special.values() and not entry.startswith("[unused")]
    bare = [entry.removeprefix("##") for entry in words]
    setting = f"do_lower_case={json.dumps(casing.is_lowercase)}"
    if casing.is_lowercase:
        lost = [entry for entry in bare if normalizer.normalize_str(entry).strip() != entry and entry.isalpha()]
        if len(lost) > MAX_UNREACHABLE_SHARE * len(words):
            raise UserError(
                found=f"{setting} (strip_accents={json.dumps(casing.strips_accents)}) with a vocabulary of which "
                f"{len(lost):,} of {len(words):,} entries, such as {lost[0]!r}, can then not occur in {place}",
                expected="the casing that the vocabulary was made with",
                fix=fix or f"set do_lower_case and strip_accents in its {CONFIG_FILE} and {TOKENIZER_FILE}",
            )
    elif has_small_letters_alone(bare, MAX_SHARE_WITHOUT_CAPITALS):
        raise UserError(
            found=f"{setting} with a vocabulary that has no capital letter in {place}",
            expected="the casing that the vocabulary was made with",
            fix=fix or f"set do_lower_case in its {CONFIG_FILE} and {TOKENIZER_FILE}",
        )
