"""Read a vocab.txt, and refuse what only looks like one (before station 2).

The ids of a whole preparation hang on the lines of this file, and a file that is slightly off still gives ids: an entry
that ends in a carriage return is found by no word, so that the word becomes pieces or [UNK] without an error.
"""

import re
from collections import Counter
from pathlib import Path

from bert_lamb.errors import UserError

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (PAD, UNK, CLS, SEP, MASK)
EXPECTED = f"a BERT vocabulary: UTF-8, one WordPiece a line, with {', '.join(SPECIAL_TOKENS)}"
BYTE_ORDER_MARK = "\ufeff"
MIN_FOREIGN_SHARE, MIN_FOREIGN_ENTRIES = 0.01, 10  # that begin with the mark of another tokenizer, to be one of it
FOREIGN_MARKS = {"\u2581": "SentencePiece", "\u0120": "byte-level BPE, as in GPT-2 and RoBERTa"}
NEVER_IN_A_WORD = re.compile(r"[ \t\r\v\f]")  # text is cut at white space before its words are looked up
OTHER_FORMATS = {  # how a file begins -> what it is
    rb"\xff\xfe|\xfe\xff": "UTF-16 text",
    rb"\s*\{\s*\"": "JSON, such as a tokenizer.json or vocab.json,",
    rb"version https://git-lfs": "a pointer of git-lfs, where the file itself was not fetched,",
    rb"#version:": "merges of a byte-level BPE",
    rb"PK\x03\x04|\x1f\x8b|\xfd7zXZ|\x28\xb5\x2f\xfd|BZh": "a packed file",
    rb"[^\n]{0,99}\x00": "binary data, or UTF-16,",
}


def read_entries(path: Path) -> list[str]:
    """The entries of a vocab.txt in the order of their ids; UserError, with the line, if it is none of BERT's.

    A byte order mark at the beginning, and a carriage return at the end of every line, belong to no entry.
    """
    if not path.is_file():
        raise UserError(found=f"no file {path}", expected="a vocab.txt", fix="set vocabulary.file")
    content = path.read_bytes()
    for beginning, name in OTHER_FORMATS.items():
        if re.match(beginning, content):
            raise _refusal(f"{name} in {path}")
    try:
        text = content.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise UserError(found=f"{error} in {path}", expected="UTF-8", fix="set vocabulary.file") from error
    entries = text.removesuffix("\n").split("\n")
    if "\r" in text:
        entries = _without_carriage_returns(entries, path)
    for mark, name in FOREIGN_MARKS.items():
        num_marked = f"\n{text}".count(f"\n{mark}")
        if num_marked >= max(MIN_FOREIGN_ENTRIES, MIN_FOREIGN_SHARE * len(entries)):
            raise _refusal(f"a vocabulary of {name} ({num_marked:,} entries begin with {mark}) in {path}")
    if "" in entries:
        raise _refusal(f"an empty line {1 + entries.index('')} in {path}", expected="one entry a line")
    if found := NEVER_IN_A_WORD.search("\n".join(entries)):
        number = found.string.count("\n", 0, found.start())
        raise _refusal(
            f"white space in line {1 + number} of {path}: {entries[number][:40]!r}",
            expected="entries that a word can be: text is cut at white space first",
        )
    missing = sorted(set(SPECIAL_TOKENS).difference(entries), key=SPECIAL_TOKENS.index)
    if missing:
        raise _refusal(f"no {', '.join(missing)} among the {len(entries)} entries of {path}")
    if len(set(entries)) < len(entries):
        doubles = [entry for entry, count in Counter(entries).items() if count > 1]
        lines = [number for number, entry in enumerate(entries, 1) if entry == doubles[0]]
        raise _refusal(
            f"entries more than once in {path}: {doubles[:5]}, the first in lines {lines[:5]}", expected="each once"
        )
    return entries


def _without_carriage_returns(lines: list[str], path: Path) -> list[str]:
    """The lines of a file whose every line ends with CR LF, or of one with none; the last may be without its end."""
    ends = [line.endswith("\r") for line in lines]
    if not all(ends[:-1]):
        number, without = (1 + ends.index(is_end) if is_end in ends else None for is_end in (True, False))
        if number is None:  # the carriage returns are elsewhere
            return lines
        raise _refusal(
            f"a carriage return at the end of line {number} of {path}, but not of line {without}",
            expected="the same line end everywhere",
        )
    return [line.removesuffix("\r") for line in lines]


def _refusal(found: str, *, expected: str = EXPECTED) -> UserError:
    return UserError(found=found, expected=expected, fix="set vocabulary.file to the vocab.txt of a BERT model")
