"""Output folders that are complete or absent: made under another name, marked, and renamed at the end."""

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError

UNFINISHED_MARK = "unfinished.json"  # in OUTPUT.partial: this folder is ours to delete, and what it is to become


def temporary_of(path: Path) -> Path:
    """Where this process writes a file before it renames it to `path`; another process has another name for it."""
    return path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.partial")


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears under its name with all of its text."""
    temporary = temporary_of(path)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def partial_dir_of(output_dir: Path) -> Path:
    """Where an output is made before it is renamed to its place."""
    return output_dir.with_name(output_dir.name + ".partial")


def is_complete(output_dir: Path, *, complete_mark: str, if_exists: str) -> bool:
    """Whether a complete output is there to be kept; where `if_exists` is "restart", what is there is deleted first.

    complete_mark: the file that is only in complete outputs. if_exists: "refuse", "resume" or "restart".
    Raises UserError where `if_exists` is "refuse" and there is any output, and where something else is in the way,
    which is never deleted.
    """
    partial_dir = partial_dir_of(output_dir)
    if partial_dir.exists() and any(partial_dir.iterdir()):
        if not all(path.name.startswith(UNFINISHED_MARK) for path in partial_dir.iterdir()) and (
            not (partial_dir / UNFINISHED_MARK).is_file()
        ):
            raise _in_the_way(partial_dir)
        if if_exists == "refuse":
            raise UserError(
                found=f"an unfinished output in {partial_dir}",
                expected="none, or leave to go on with it",
                fix="add if_exists=resume or if_exists=restart, unless another process is still writing there",
            )
        if if_exists == "restart":
            delete(partial_dir)
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return False
    if not (output_dir / complete_mark).is_file():
        raise _in_the_way(output_dir)
    if if_exists == "refuse":
        raise UserError(
            found=f"a complete output in {output_dir}",
            expected="a new folder, or leave to use or delete this one",
            fix="choose another output_dir, or add if_exists=resume or if_exists=restart",
        )
    if if_exists == "resume":
        _remove_marks(output_dir)  # left by a process killed in the last line of `publish`
        return True
    # Deleted under the other name: whatever a process that is killed meanwhile leaves, it is no half output.
    (output_dir / UNFINISHED_MARK).write_text("{}\n")
    output_dir.rename(partial_dir)
    delete(partial_dir)
    return False


def begin(output_dir: Path, purpose: dict[str, Any]) -> Path:
    """OUTPUT.partial, with what an earlier run of the same purpose left in it; UserError if it had another purpose.

    purpose: plain values that decide what the output is to become. Processes that begin at the same time agree.
    """
    partial_dir = partial_dir_of(output_dir)
    partial_dir.mkdir(parents=True, exist_ok=True)
    mark = partial_dir / UNFINISHED_MARK
    text = json.dumps(purpose, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if not mark.is_file():
        write_whole(mark, text)
        return partial_dir
    found = json.loads(mark.read_text(encoding="utf-8"))
    wanted = json.loads(text)
    differing = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if differing:
        raise UserError(
            found=f"an unfinished output in {partial_dir} that was begun with other values of {', '.join(differing)}",
            expected="the present configuration",
            fix="go on with the configuration it was begun with, choose another output_dir, or add if_exists=restart",
        )
    return partial_dir


def begin_anew(output_dir: Path) -> Path:
    """An empty OUTPUT.partial; what an interrupted run left there is deleted, and this is said."""
    partial_dir = partial_dir_of(output_dir)
    if partial_dir.exists():
        print(f"{partial_dir}: an earlier run was interrupted; beginning anew")
        delete(partial_dir)
    return begin(output_dir, {})


def publish(output_dir: Path) -> None:
    """Rename OUTPUT.partial, whose complete mark has been written, to its place."""
    if output_dir.is_dir():
        output_dir.rmdir()  # an empty folder, see is_complete
    partial_dir_of(output_dir).rename(output_dir)
    _remove_marks(output_dir)


def _remove_marks(output_dir: Path) -> None:
    """The mark itself last; the others are CORPUS_MARK and what a process killed in `begin` left."""
    for mark in sorted(output_dir.glob(f"{UNFINISHED_MARK}*"), reverse=True):
        mark.unlink(missing_ok=True)


def delete(partial_dir: Path) -> None:
    """Delete an unfinished output, its mark last: a process that is killed meanwhile leaves what is known as ours."""
    for path in partial_dir.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != UNFINISHED_MARK:
            path.unlink()
    shutil.rmtree(partial_dir)


def _in_the_way(path: Path) -> UserError:
    return UserError(
        found=f"{path}, which holds something else than a complete output",
        expected="no such path, an empty folder, or what an earlier run left",
        fix="choose another output_dir, or move it away yourself",
    )
