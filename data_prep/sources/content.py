"""What a file is by its content, whatever its name says: nothing but text may become training text.

The head of a file is looked at while the work is planned, before anything is written, and again when it is read.
"""

import codecs
import json
import re
import tarfile
from pathlib import Path

from bert_lamb.errors import UserError
from data_prep.sources.packing import DAMAGED_ARCHIVE_ERRORS, is_packed, open_binary, unreadable, unsupported_form
from data_prep.sources.source import Source

HEAD_BYTES = 1 << 16
MAX_HEADS = 10_000  # files looked at while planning; the others are looked at when they are read
MAX_PACKED_HEADS = 100  # bz2 takes a tenth of a second for the first byte
MAGIC_OF_SUFFIX = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zst": b"\x28\xb5\x2f\xfd"}

UNPACK = "unpack it, and give the files that come out"
REPACK = "unpack it, or pack it again with gzip, bzip2, xz or zstd under a name that ends so"
EXTRACT = "give its text, extracted by a program for such files"
CONVERT = "convert it to UTF-8 (iconv -f {encoding} -t utf-8)"
FORMS = (  # (how the file begins, what it is, what to do)
    (b"PK\x03\x04", "a zip archive (also .docx, .epub and .odt are zip archives)", UNPACK),
    (b"PK\x05\x06", "an empty zip archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a rar archive", UNPACK),
    (b"!<arch>\n", "an ar archive", UNPACK),
    (b"\x1f\x8b", "packed with gzip", "give it a name that ends in .gz, or unpack it"),
    *(
        (b"BZh%d%s" % (level, block), "packed with bzip2", "give it a name that ends in .bz2, or unpack it")
        for level in range(1, 10)
        for block in (b"1AY&SY", b"\x17rE8P\x90")
    ),
    (b"\xfd7zXZ\x00", "packed with xz", "give it a name that ends in .xz, or unpack it"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "give it a name that ends in .zst, or unpack it"),
    (b"\x04\x22\x4d\x18", "packed with lz4", REPACK),
    (b"\x1f\x9d", "packed with compress (.Z)", REPACK),
    (b"\x1f\xa0", "packed with compress -H", REPACK),
    (b"LZIP\x01", "packed with lzip", REPACK),
    (b"\x89LZO", "packed with lzop", REPACK),
    (b"\x5d\x00\x00", "packed with lzma, the older form of xz", REPACK),
    (b"\xff\x06\x00\x00sNaPpY", "packed with snappy", REPACK),
    (b"%PDF-", "a PDF document", EXTRACT),
    (b"%!PS-Adobe", "a PostScript document", EXTRACT),
    (b"{\\rtf", "a document in Rich Text Format", EXTRACT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an older Microsoft Office", EXTRACT),
    (b"AT&TFORM", "a DjVu document", EXTRACT),
    (b"\x89PNG", "a picture", "take it out"),
    (b"\xff\xd8\xff", "a picture", "take it out"),
    (b"GIF89a", "a picture", "take it out"),
    (b"GIF87a", "a picture", "take it out"),
    (b"II*\x00", "a picture", "take it out"),
    (b"MM\x00*", "a picture", "take it out"),
    (b"\x7fELF", "a program", "take it out"),
    (b"SQLite format 3\x00", "a SQLite database", "export its text, such as to JSON lines"),
    (b"\x89HDF", "an HDF5 file", "export its text, such as to JSON lines"),
    (b"\x93NUMPY", "a NumPy array", "take it out"),
    (b"PAR1\x15", "a Parquet file", "set sources.{source}.kind=parquet"),
    (b"ARROW1\x00\x00", "an Arrow file", "set sources.{source}.kind=arrow"),
    (b"FEA1\x00", "a Feather file of version 1", "write it again with pandas or pyarrow, which write version 2"),
    (b"version https://git-lfs.github.com/spec/", "a git-lfs pointer in place of the file", "fetch it: git lfs pull"),
    (b"\xff\xfe\x00\x00", "in UTF-32", CONVERT.format(encoding="utf-32")),
    (b"\x00\x00\xfe\xff", "in UTF-32", CONVERT.format(encoding="utf-32")),
    (b"\xff\xfe", "in UTF-16", CONVERT.format(encoding="utf-16")),
    (b"\xfe\xff", "in UTF-16", CONVERT.format(encoding="utf-16")),
)
BEGINNINGS = re.compile(b"|".join(re.escape(magic) for magic, _, _ in FORMS))
MAGIC_OF_TABLES = {"parquet": (b"PAR1", b"PARE"), "arrow": (b"ARROW1",)}

TITLE_OF_WIKITEXT = re.compile(r" = (?!= )\S(?:.*\S)? = ?\r?\n?", re.ASCII)
# BERT's normalizer deletes these: what is around them would run together ("one\0two"), or be no text at all. White
# space is not among them, and neither is what str.splitlines takes for the end of a line.
NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f]")
JOINED_BY_AT = re.compile(r" @[-,.]@ ")
MARKED_FORMS = (  # of text: (how it begins, what it is, what to do)
    (re.compile(r"\s*<mediawiki[\s>]"), "a MediaWiki dump", "set sources.{source}.kind=mediawiki"),
    (re.compile(r'\s*<doc id="'), "output of wikiextractor", "set sources.{source}.kind=wikiextractor"),
    (re.compile(r"\s*(?:<!doctype html|<html[\s>])", re.IGNORECASE), "an HTML page", EXTRACT),
)


def look_at_heads(files: list[tuple[str, Path]], source: Source) -> None:
    """Refuse files of a source that are not of its kind, before any output is touched; UserError names the first."""
    packed, plain = ([path for _, path in files if is_packed(path) is is_one] for is_one in (True, False))
    for path in (*packed[:MAX_PACKED_HEADS], *plain[:MAX_HEADS]):
        look_at_head(path, source)


def look_at_head(path: Path, source: Source) -> None:
    """UserError that says what a file is and what to do, where its content is not what its name or kind says."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, 0, error) from error
    if source.kind in MAGIC_OF_TABLES:
        form = None if head.startswith(MAGIC_OF_TABLES[source.kind]) else form_of(head)
        if form is not None:
            raise unlike(path, *form, source.name, source.kind)
        return
    where = f"{path}"
    if is_packed(path):
        _look_at_packing(path, head, source)
        head, where = read_head(path), f"{path}, unpacked"
    if (form := form_of(head)) is not None:
        raise unlike(where, *form, source.name, source.kind)
    if (place := head.find(b"\0")) >= 0 and (source.kind != "jsonl" or _is_wide(head)):
        raise no_text(path, place, head)
    if source.kind == "text" and (form := form_of_text(head)) is not None:
        raise unlike(where, *form, source.name, source.kind)


def read_head(path: Path) -> bytes:
    """The first bytes of a file, unpacked; nothing where it is damaged, which its reader says with the place."""
    try:
        with open_binary(path) as stream:
            return stream.read(HEAD_BYTES)
    except DAMAGED_ARCHIVE_ERRORS as error:
        if (unsupported := unsupported_form(path, error)) is not None:
            raise unsupported from error
        return b""


def form_of(head: bytes) -> tuple[str, str] | None:
    """(what a file is, what to do), where it begins like something that is not UTF-8 text."""
    if match := BEGINNINGS.match(head):
        return next((what, fix) for magic, what, fix in FORMS if match[0].startswith(magic))
    if b"\0" not in head[: tarfile.BLOCKSIZE]:
        return None
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return "a tar archive", UNPACK


def form_of_text(head: bytes) -> tuple[str, str] | None:
    """(what a text is, what to do), where it is marked up as another kind of source reads it."""
    text = head.decode("utf-8", "ignore").removeprefix("\ufeff")
    for pattern, what, fix in MARKED_FORMS:
        if pattern.match(text):
            return what, fix
    if is_like_wikitext(text):
        return "in the form of WikiText (' = Title = ', '@-@')", "set sources.{source}.kind=wikitext"
    if len(JOINED_BY_AT.findall(text)) >= 3:
        return "tokenized text ('@-@' within words)", "undo the tokenization, such as with sacremoses"
    first_line = text.lstrip().split("\n", 1)[0]
    if first_line.startswith("{") and _is_json_object(first_line):
        return "JSON lines", "set sources.{source}.kind=jsonl"
    return None


def is_like_wikitext(text: str) -> bool:
    """Whether text begins with a title as WikiText marks it, alone between empty lines."""
    lines = [line for line in text.split("\n", 4)[:4] if line.strip()]
    return bool(lines) and bool(TITLE_OF_WIKITEXT.fullmatch(lines[0]))


def no_text(path: Path | str, place: int, surroundings: bytes) -> UserError:
    """What is said of a NUL byte. surroundings: bytes around it, by which text of two bytes a character is known."""
    if _is_wide(surroundings):
        found, fix = "as in UTF-16 or data that are no text", f"{CONVERT.format(encoding='utf-16le')}, or take it out"
    else:
        found, fix = "which no text holds", "take the file out, or delete such bytes if it is text (tr -d '\\000')"
    return UserError(found=f"a NUL byte, {found}, at byte {place} of {path}", expected="UTF-8 text", fix=fix)


def _is_wide(data: bytes) -> bool:
    """Whether so many bytes are NUL as in text of two bytes a character."""
    return data.count(b"\0") > len(data) / 4


def _look_at_packing(path: Path, head: bytes, source: Source) -> None:
    """UserError where a file is something else than packed as its name says. A damaged one is for its reader."""
    magic = MAGIC_OF_SUFFIX[path.suffix.lower()]
    is_skippable = path.suffix.lower() == ".zst" and head[1:4] == b"\x2a\x4d\x18" and head[:1] in b"PQRSTUVWXYZ[\\]^_"
    if head.startswith(magic) or magic.startswith(head) or is_skippable:
        return
    form = form_of(head)
    if form is None and _is_text(head) and (source.kind != "mediawiki" or head.startswith(b"<")):
        form = "not packed at all", f"take {path.suffix} off its name"
    if form is not None:
        raise unlike(path, *form, source.name, f"{path.suffix} and {source.kind}")


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a character that is cut at the end is none yet
    except UnicodeDecodeError:
        return False
    return not NO_TEXT.search(text)


def _is_json_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def unlike(where: object, what: str, fix: str, source_name: str, kind: str) -> UserError:
    """What is said of a file that is something else than its source says."""
    return UserError(
        found=f"{where}, which by its content is {what}",
        expected=f"{kind} files",
        fix=fix.format(source=source_name),
    )
