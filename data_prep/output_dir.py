"""Output folders that are complete or absent: made under another name, marked, and renamed at the end."""

import shutil
from pathlib import Path

from bert_lamb.errors import UserError

UNFINISHED_MARK = "unfinished.txt"  # in OUTPUT.partial: this folder is ours to delete


def partial_dir_of(output_dir: Path) -> Path:
    """Where an output is made before it is renamed to its place."""
    return output_dir.with_name(output_dir.name + ".partial")


def is_complete(output_dir: Path, *, complete_mark: str, if_exists: str) -> bool:
    """Whether a complete output is there to be kept; where `if_exists` is "restart", it is deleted first.

    complete_mark: the file that is only in complete outputs. if_exists: "refuse", "resume" or "restart".
    Raises UserError where `if_exists` is "refuse" and there is any output, and where something else is in the way,
    which is never deleted.
    """
    partial_dir = partial_dir_of(output_dir)
    if partial_dir.exists():
        if not (partial_dir / UNFINISHED_MARK).is_file():
            raise _in_the_way(partial_dir)
        if if_exists == "refuse":
            raise UserError(
                found=f"an unfinished output in {partial_dir}",
                expected="none, or leave to begin it anew",
                fix="add if_exists=resume or if_exists=restart, unless another process is still writing there",
            )
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
        return True
    shutil.rmtree(output_dir)
    return False


def begin(output_dir: Path) -> Path:
    """An empty OUTPUT.partial; what an interrupted run left there is deleted, and this is said."""
    partial_dir = partial_dir_of(output_dir)
    if partial_dir.exists():
        print(f"{partial_dir}: an earlier run was interrupted; beginning anew")
        shutil.rmtree(partial_dir)
    partial_dir.mkdir(parents=True)
    (partial_dir / UNFINISHED_MARK).write_text("bert-lamb is at work here, or was interrupted.\n")
    return partial_dir


def publish(output_dir: Path) -> None:
    """Rename OUTPUT.partial, whose complete mark has been written, to its place."""
    partial_dir = partial_dir_of(output_dir)
    (partial_dir / UNFINISHED_MARK).unlink()
    partial_dir.rename(output_dir)


def _in_the_way(path: Path) -> UserError:
    return UserError(
        found=f"{path}, which holds something else than a complete output",
        expected="no such path, an empty folder, or what an earlier run left",
        fix="choose another output_dir, or move it away yourself",
    )
