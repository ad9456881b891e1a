"""What is left around words that were taken out: empty brackets, spaces before marks, pairs of commas (station 1)."""

# ruff: noqa: RUF001 (signs of other scripts are meant)

import re

HOLE = "\x02"  # stands where something was left out, until the line is tidied up

BRACKETS = re.compile(r"([(（])([^()（）]*)([)）])")
EMPTIED = re.compile(r"\((?=[ ,;:)])")  # quick to look for
SEPARATOR = re.compile(r"([,;，；])")
# A part of a bracket that only announces what is gone: "Greek:", "pronounced", "or".
ANNOUNCEMENT = re.compile(
    r"(?:[^:\x02]{1,40}:|(?:also |or |and |in |from |the |usually |sometimes |occasionally |often |locally )*"
    r"(?:pronounced|pronunciation|or|and|in|from|is|was|also|usually|sometimes|occasionally|often|locally|IPA)?)"
    r"[ \"'”“‘’*/\[\]\x02]*"
)
EMPTY_SQUARE_BRACKETS = re.compile(r"\[[ ,;:\x02]+\]|(?<![\w\]])\[\]")  # "int[]" is a type
DOUBLED_MARK = re.compile(r"[,;](\s*\x02[\s\x02]*[,;.:])")
ORPHANED_MARK = re.compile(r"^\s*\x02[\s\x02]*[,;:]")
SPACE_BEFORE_MARK = re.compile(r"(?<![. ]) +([,;:)](?=\s|$)|\.(?=\s(?!\.)|$))")  # " . . ." stays
SPACE_AFTER_BRACKET = re.compile(r"\( +")


def tidy(line: str) -> str:
    """The line without what only stood around holes, with single spaces; its words are not touched."""
    has_holes = HOLE in line
    is_emptied = "(" in line and (EMPTIED.search(line) or " )" in line or ",)" in line or ";)" in line)
    if has_holes or is_emptied:
        line = BRACKETS.sub(_without_empty_parts, line)
    if "[" in line:
        line = EMPTY_SQUARE_BRACKETS.sub("", line)
    if has_holes:
        line = ORPHANED_MARK.sub("", DOUBLED_MARK.sub(r"\1", line)).replace(HOLE, "")
    line = line.strip()
    if "  " in line or not line.isprintable():  # the common space is the only printable one
        line = " ".join(line.split())
    if is_emptied:
        line = SPACE_AFTER_BRACKET.sub("(", line)
    if has_holes or is_emptied or " ," in line or " ." in line:
        line = SPACE_BEFORE_MARK.sub(r"\1", line)
    return line


def _without_empty_parts(match: re.Match[str]) -> str:
    """A bracket without the parts between commas and semicolons that hold nothing any more; "" if none is left."""
    opening, inside, closing = match.groups()
    if not inside:  # "f()" is a function, "()" behind a space was something
        return match.group() if match.string[max(0, match.start() - 1) : match.start()].isalnum() else ""
    if HOLE not in inside and inside[0] not in " ,;:，；" and inside[-1] not in " ,;，；":
        return match.group()
    pieces = SEPARATOR.split(inside)
    kept: list[str] = []
    for number in range(0, len(pieces), 2):
        part = pieces[number]
        if _is_empty(part):
            continue
        kept += [pieces[number - 1] if kept else "", part]
    words = "".join(kept).strip(" \x02").lstrip(" ,;:")
    return f"{opening}{words}{closing}" if words else ""


def _is_empty(part: str) -> bool:
    if HOLE in part:
        return ANNOUNCEMENT.fullmatch(part.strip()) is not None
    return not any(character.isalnum() for character in part)
