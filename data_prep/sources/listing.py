"""Which files a source reads: a file, a folder with everything below it, or a glob pattern (before station 1).

Links are followed, to files and to folders. A folder and a pattern that asks for the same files give the same keys. No
file is read twice, whatever links lead to it, so a circle of links ends. What is passed over is counted by reason, with
an example.
"""

import errno
import fnmatch
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bert_lamb.errors import UserError
from data_prep.sources import names
from data_prep.sources.content import MAGIC_OF_TABLES
from data_prep.sources.source import Source

ALL_BELOW = "**"
ANY_NAME = frozenset("*?")
WILDCARDS = frozenset("*?.")  # a pattern whose last part has nothing else asks for no names, as a folder does


@dataclass
class Listing:
    """The files of a source, and what was passed over."""

    files: list[tuple[str, Path]] = field(default_factory=list)  # (key, path), sorted
    passed_over: Counter[str] = field(default_factory=Counter)  # reason -> files; a folder counts as one
    examples: dict[str, str] = field(default_factory=dict)  # reason -> the first of them

    def pass_over(self, reason: str, name: str) -> None:
        self.passed_over[reason] += 1
        self.examples.setdefault(reason, names.printable(name))

    def describe_passed_over(self) -> str:
        """Such as "2 hidden (.cache/), 1 empty (b.txt)"; an empty text where there is nothing."""
        return ", ".join(
            f"{count:,} {reason} ({self.examples[reason]})" for reason, count in sorted(self.passed_over.items())
        )


class _Place(NamedTuple):
    """A file or folder as it was reached, and where it really is."""

    path: str
    real_path: str  # without links

    def below(self, entry: os.DirEntry[str]) -> "_Place":
        is_link = entry.is_symlink()
        return _Place(
            entry.path, os.path.realpath(entry.path) if is_link else f"{self.real_path.rstrip('/')}/{entry.name}"
        )


def list_files(source: Source, *, suffixes: tuple[str, ...] | None) -> Listing:
    """The files that source.path names.

    suffixes: taken from a folder, also before .gz, .bz2, .xz or .zst; None takes every file whose name does not say
    that it is something else (names.py). What is named itself, or matched by a pattern that asks for more than any
    name, is taken whatever its name. The key is the path below the folder, or below the part of the pattern that holds
    no wildcard (brackets in the name of a folder that is there are none). An empty file is passed over, but for tables,
    which are never empty.

    Raises UserError if there is no file, and for a folder that cannot be read and a name that is not UTF-8.
    """
    path = Path(source.path)
    listing = Listing()
    is_empty_sound = source.kind not in MAGIC_OF_TABLES
    if path.is_file():
        listing.files = [(path.name, path)]
    elif path.is_symlink() and not path.exists():
        listing.pass_over(names.LEADS_NOWHERE, path.name)
    elif path.is_dir():
        _list(path, (ALL_BELOW, "*"), suffixes, listing, is_pattern=False, is_empty_sound=is_empty_sound)
    elif path.exists():
        listing.pass_over(names.NO_FILE, path.name)
    else:
        num_fixed = _num_fixed(path.parts)
        folder, pattern = Path(*path.parts[:num_fixed]), path.parts[num_fixed:]
        if pattern and folder.is_dir():
            _list(folder, pattern, suffixes, listing, is_pattern=True, is_empty_sound=is_empty_sound)
    if not listing.files:
        passed_over = f" (passed over: {listing.describe_passed_over()})" if listing.passed_over else ""
        raise UserError(
            found=f"no file at {source.path}{passed_over}",
            expected=f"a file, folder or glob pattern of {source.kind} files",
            fix=f"set sources.{source.name}.path; a pattern such as 'folder/**/*.txt' takes whatever it matches",
        )
    for _, file in listing.files:
        _require_text(file)
    return listing


def _num_fixed(parts: tuple[str, ...]) -> int:
    """How many parts lead to the folder of a pattern: those without wildcards, and folders with brackets ('a [1]')."""
    for number, part in enumerate(parts):
        is_folder = not ANY_NAME & set(part) and Path(*parts[: number + 1]).is_dir()
        if glob.has_magic(part) and not is_folder:
            return number
    return len(parts)


def _list(
    root: Path,
    pattern: tuple[str, ...],
    suffixes: tuple[str, ...] | None,
    listing: Listing,
    *,
    is_pattern: bool,
    is_empty_sound: bool,
) -> None:
    """Take what matches, or pass it over."""
    prefix, real_prefix = os.path.join(root, ""), os.path.join(os.path.realpath(root), "")
    asks_for_names = is_pattern and not set(pattern[-1]) <= WILDCARDS
    taken: list[tuple[bool, str, _Place]] = []  # (whether a link leads there, key, place)
    for place in sorted(_matches(_Place(str(root), os.path.realpath(root)), pattern, listing)):
        key = place.path[len(prefix) :]
        name = key.rpartition("/")[2]
        reason = None if asks_for_names else names.reason_against(name, suffixes, is_pattern=is_pattern)
        if reason == names.OTHER_SUFFIX and not os.path.exists(place.path):
            reason = names.LEADS_NOWHERE  # it may have been a folder, on a disk that is not mounted
        if reason is not None:
            listing.pass_over(reason, key)
            continue
        try:
            status = os.stat(place.path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise _unreadable("file", place.path, error) from error
            listing.pass_over(names.LEADS_NOWHERE, key)
            continue
        if not stat.S_ISREG(status.st_mode):
            listing.pass_over(names.NO_FILE, key)
        elif is_empty_sound and not status.st_size:
            listing.pass_over(names.EMPTY, key)
        else:
            taken.append((place.real_path != real_prefix + key, key, place))
    seen = set()
    for _, key, place in sorted(taken):  # without links first
        if place.real_path in seen:
            listing.pass_over(names.READ_ALREADY, key)
        else:
            seen.add(place.real_path)
            listing.files.append((key, Path(place.path)))
    listing.files.sort()


def _matches(folder: _Place, pattern: tuple[str, ...], listing: Listing) -> set[_Place]:
    """What is no folder and matches the pattern, part for part as `glob` has it."""
    part, rest = pattern[0], pattern[1:]
    if part == ALL_BELOW:
        folders = _folders_below(folder, listing)
        return {found for below in folders for found in _matches(below, rest or ("*",), listing)}
    found: set[_Place] = set()
    for entry in _entries(folder):
        if not fnmatch.fnmatchcase(entry.name, part):
            if not rest and entry.is_symlink() and not os.path.exists(entry.path) and "." not in entry.name:
                listing.pass_over(names.LEADS_NOWHERE, entry.name)  # perhaps a folder, on a disk that is not mounted
            continue
        if names.is_hidden(entry.name) and not part.startswith((".", entry.name)):
            if part == "*" and not rest and not _is_folder(entry):
                listing.pass_over(names.HIDDEN, entry.name)
        elif rest and _is_folder(entry):
            found.update(_matches(folder.below(entry), rest, listing))
        elif not rest and not _is_folder(entry):
            found.add(folder.below(entry))
    return found


def _folders_below(root: _Place, listing: Listing) -> Iterator[_Place]:
    """A folder and all below it that are not hidden, each once, by a path without links where it has one."""
    plain: list[_Place] = [root]
    linked: list[_Place] = []
    seen = set()
    while plain or linked:
        folder = plain.pop() if plain else linked.pop(0)
        if folder.real_path in seen:
            listing.pass_over(names.READ_ALREADY, f"{os.path.relpath(folder.path, root.path)}/")
            continue
        seen.add(folder.real_path)
        yield folder
        for entry in reversed(_entries(folder)):
            if _is_folder(entry):
                if names.is_hidden(entry.name):
                    listing.pass_over(names.HIDDEN, f"{os.path.relpath(entry.path, root.path)}/")
                else:
                    (linked if entry.is_symlink() else plain).append(folder.below(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(folder: _Place) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted; UserError where it may not be read: its text would be lost without a word."""
    try:
        with os.scandir(folder.path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable("folder", folder.path, error) from error


def _unreadable(what: str, path: str, error: OSError) -> UserError:
    return UserError(
        found=f"{what} {path} that cannot be read ({error.strerror})",
        expected="what may be read",
        fix="check its permissions and its disk",
    )


def _require_text(path: Path) -> None:
    """A name that is no UTF-8 can make no key."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            found=f"a file name that is not UTF-8: {bytes(path)!r}", expected="UTF-8", fix="rename the file"
        ) from error
