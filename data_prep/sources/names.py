"""Which files of a folder are data, by their names alone.

A folder holds more than data: notes about it, what editors and downloads leave, and the same text in another form. What
the name gives away is passed over and counted, with an example; what it does not is found out by content.py.
"""

import re
from pathlib import PurePosixPath

PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")

HIDDEN = "hidden"
UNFINISHED = "backup or unfinished"
CHECKSUM = "checksum or signature"
ABOUT = "readme, license or mark"
OTHER_SUFFIX = "of another suffix"
EMPTY = "empty"
READ_ALREADY = "read already by another path"
LEADS_NOWHERE = "link that leads nowhere"
NO_FILE = "no regular file"

SYSTEM_FOLDERS = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
UNFINISHED_SUFFIXES = (
    *("~", ".bak", ".old", ".orig", ".save", ".swp", ".swo", ".tmp", ".temp", ".lock"),
    *(".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload", ".incomplete", ".aria2"),
)
CHECKSUM_SUFFIXES = (".md5", ".sha1", ".sha224", ".sha256", ".sha384", ".sha512", ".b2", ".crc", ".sfv", ".asc", ".sig")
CHECKSUM_NAME = re.compile(r"(?:md5|sha\d*|b2|check)sums?(?:\.txt)?", re.IGNORECASE)
ABOUT_NAME = re.compile(
    r"readme(?:[._-].*)?"
    r"|(?:licen[cs]e|copying|copyright|notice|changelog|citation|authors|contributing)(?:\.(?:txt|md|rst|html?|cff|bib))?"
    r"|_success|_committed_\w+|_started_\w+|_common_metadata|_metadata"  # Spark's and Hadoop's marks
    r"|dataset_infos?\.json|dataset_dict\.json|state\.json"  # of `datasets`
    r"|makefile|thumbs\.db|desktop\.ini",
    re.IGNORECASE,
)
# Where a kind takes files whatever their suffix: these say that they hold something else than running text.
OTHER_FORMS = {
    "archive": ".zip .7z .rar .tar .tgz .tbz .tbz2 .txz .tzst .lz .lz4 .lzma .lzo .z .br .sz .cab .iso .dmg .jar",
    "document with pages": ".pdf .doc .docx .odt .rtf .ps .djvu .epub .mobi .azw .azw3 .fb2 .ppt .pptx .odp .chm",
    "picture, sound or film": (
        ".png .jpg .jpeg .gif .bmp .tif .tiff .webp .svg .ico .heic .mp3 .wav .ogg .flac .m4a .mp4 .mkv .avi .mov .webm"
    ),
    "data in another form": (
        ".json .jsonl .ndjson .yaml .yml .xml .html .htm .xhtml .csv .tsv .xls .xlsx .ods .parquet .arrow .feather "
        ".tex .bib .srt .vtt .sql .db .sqlite .npy .npz .pkl .pt .bin .safetensors .h5 .hdf5 .idx"
    ),
    "program, settings or log": (
        ".py .ipynb .sh .bat .js .css .c .h .cpp .java .rb .pl .so .dll .exe .toml .ini .cfg .conf .log .url .torrent"
    ),
}
PAGES_OF_A_PART = re.compile(r"-p\d+p\d+$")  # of Wikipedia's dumps in parts: enwiki-...-articles1.xml-p1p41242.bz2
FORM_OF_SUFFIX = {suffix: form for form, suffixes in OTHER_FORMS.items() for suffix in suffixes.split()}


def is_hidden(name: str) -> bool:
    """Whether a file or a folder, with all below it, is left out as hidden, or as the system's own."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def reason_against(name: str, suffixes: tuple[str, ...] | None, *, is_pattern: bool) -> str | None:
    """Why a file of this name is passed over in a folder; None where it is taken.

    suffixes: those of the kind, before one of PACKED_SUFFIXES; None where it takes any. is_pattern: the name was
    matched by a pattern, which may ask for suffixes of its own.
    """
    lower = name.lower()
    if lower.endswith(UNFINISHED_SUFFIXES) or (name.startswith("#") and name.endswith("#")):
        return UNFINISHED
    if lower.endswith(CHECKSUM_SUFFIXES) or CHECKSUM_NAME.fullmatch(name):
        return CHECKSUM
    if ABOUT_NAME.fullmatch(name):
        return ABOUT
    suffix = suffix_of(name)
    if suffixes is None:
        return FORM_OF_SUFFIX.get(suffix)
    return None if suffix in suffixes or is_pattern else OTHER_SUFFIX


def suffix_of(name: str) -> str:
    """The suffix in lower case, before one of PACKED_SUFFIXES if there is one, and without PAGES_OF_A_PART."""
    path = PurePosixPath(name)
    suffix = PurePosixPath(path.stem).suffix if path.suffix.lower() in PACKED_SUFFIXES else path.suffix
    return PAGES_OF_A_PART.sub("", suffix.lower())


def printable(name: str) -> str:
    """A file name that any terminal and any line can hold."""
    return name if name.isprintable() else ascii(name)
