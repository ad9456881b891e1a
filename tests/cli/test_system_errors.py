"""A full disk, a path that is a file and the like are one line and exit status 2, whichever library meets them.

The disk is made full by a limit on the size of files, which needs no privilege: writing beyond it fails like writing to
a full disk does, in Python and in the libraries' own code. /dev/full is one more.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bert_lamb.cli import main as cli
from bert_lamb.cli.system_errors import user_error_of
from tests.launch import CHECKOUT

LIMITED = """
import contextlib, io, json, os, resource, sys
from pathlib import Path
import numpy, pyarrow, torch, tokenizers
from safetensors.torch import save_file
from bert_lamb.cli import main as cli
from bert_lamb.cli.system_errors import user_error_of
from data_prep.pool import Pool

def many_bytes():
    Path("worker").write_bytes(bytes(100_000))

def vocabulary():
    words = {f"word{number}": number for number in range(20_000)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "word0")).save("t.json")

def arrow():
    table = pyarrow.table({"a": numpy.arange(100_000)})
    with pyarrow.OSFile("a.arrow", "wb") as stream, pyarrow.ipc.new_file(stream, table.schema) as file:
        file.write(table)

WRITERS = {
    "python": many_bytes,
    "numpy": lambda: numpy.save("a.npy", numpy.zeros(100_000)),
    "arrow": arrow,
    "torch": lambda: torch.save(torch.zeros(100_000), "a.pt"),
    "safetensors": lambda: save_file({"a": torch.zeros(100_000)}, "a.safetensors"),
    "tokenizers": vocabulary,
    "pool": lambda: list(Pool.run(pool, [many_bytes, many_bytes])),
}

def main():
    global pool
    said = {}
    prepare = ["prepare", "corpus=text", "sources.text.path=t.txt", "vocabulary.train_size=200", "output_dir=o",
               "max_seq_lengths=[32]", "num_workers=1"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    with Pool(2) as pool:
        for name, write in WRITERS.items():
            try:
                write()
            except Exception as error:
                said[name] = str(user_error_of(error, output=Path("out"), how_to_go_on="run it again"))
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        status = cli.main(prepare)
    said["prepare"] = [status, told.getvalue().splitlines()[-1], os.path.exists("o")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    said["again"] = cli.main([*prepare, "if_exists=resume"])
    said["anew"] = cli.main([word.replace("=o", "=p") for word in prepare])
    print(json.dumps(said))

if __name__ == "__main__":
    main()
"""


def test_every_library_that_writes(tmp_path):
    """And `prepare` that resumes to the same bytes once there is room."""
    (tmp_path / "limited.py").write_text(LIMITED)
    sentences = [
        f"The {word} number {number} is here. It was there." for number in range(300) for word in ("cat", "dog")
    ]
    (tmp_path / "t.txt").write_text("\n\n".join(" ".join(sentences[n : n + 6]) for n in range(0, 600, 6)))
    ended = subprocess.run(
        [sys.executable, "limited.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    said = json.loads(ended.stdout.splitlines()[-1])
    status, line, is_there = said.pop("prepare")
    assert (said.pop("again"), said.pop("anew")) == (0, 0)
    assert said.keys() == {"python", "numpy", "arrow", "torch", "safetensors", "tokenizers", "pool"}
    for name, text in said.items():
        assert text.startswith(("found file too large at ", "found no space left on device at ")), (name, text)
        assert " MB free" in text
        assert "; fix: make room, and run it again; what was complete is kept" in text
    assert "bytes wanted" in said["numpy"]
    assert (status, is_there) == (2, False)
    assert line.startswith(("bert-lamb prepare: found file too large at o", "bert-lamb prepare: found no space left"))
    assert "run it again with if_exists=resume" in line
    made = [{path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.arrow")} for name in "op"]
    assert made[0] == made[1]
    assert made[0]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), "found no space left on device at out ("),
        (OSError(errno.ENOSPC, "No space left", "a", None, "b"), "found no space left on device at b ("),
        (OSError(errno.EDQUOT, "Quota"), "found disk quota exceeded at out ("),
        (OSError("2028 requested and 1520 written"), "(2,028 bytes wanted, 1,520 written, "),
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), "found no space left on"),
        (OSError(errno.EROFS, "Read-only", "/x/y"), "found read-only file system: /x/y; expected leave to"),
        (PermissionError(errno.EACCES, "Permission denied", b"/x"), "found permission denied: /x"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "found not a directory: a/b"),
        (OSError(errno.ENAMETOOLONG, "too long", "n"), "found file name too long: n"),
        (OSError(errno.EIO, "I/O"), "found input/output error: out; expected a file system that answers"),
        (OSError(errno.ESTALE, "Stale", "f"), "found stale file handle: f"),
        (MemoryError(), "found no memory for what is asked for (MemoryError)"),
        (MemoryError("Unable to allocate 8 TiB"), "found no memory for what is asked for (Unable to allocate 8 TiB)"),
    ],
)
def test_how_it_is_said(error, message):
    found = user_error_of(error, output=Path("out"), how_to_go_on="run it again")
    assert message in str(found)
    outer = ValueError("what a library makes of it")
    outer.__cause__ = error
    assert str(user_error_of(outer, output=Path("out"), how_to_go_on="run it again")) == str(found)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no space left on device (os error 28)"),
        KeyError(28),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        RuntimeError("shape mismatch"),
        OSError(errno.EBADF, "Bad file descriptor"),
        PermissionError(errno.EPERM, "without a path"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ],
)
def test_defects_keep_their_traceback(error):
    assert user_error_of(error, output=Path("out"), how_to_go_on="run it again") is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["output_dir=a_file/o"], "found not a directory: a_file/o.partial"),
        ([f"output_dir={'n' * 300}"], "found file name too long: nnn"),
        (["output_dir=a_file"], "in the way at a_file, which is not"),
    ],
)
def test_paths_that_cannot_be_written(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("A first sentence is here. A second one follows it.\n" * 9)
    assert cli.main(["prepare", "corpus=text", "sources.text.path=a_file", "num_workers=1", *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


def test_dev_full():
    with pytest.raises(OSError, match="No space left") as error:
        Path("/dev/full").write_text("x")
    assert "found no space left on device at o (" in str(user_error_of(error.value, output=Path("o"), how_to_go_on=""))


def test_pip_runs_out_of_room(tmp_path, monkeypatch, capsys):
    """In a process of its own, which says so in words; another failure of pip's is said as it is."""
    monkeypatch.chdir(tmp_path)
    for reason, message in (
        ("OSError: [Errno 28] No space left on device: 'a'", "found no space left on device at d.partial/wheels/"),
        ("NewConnectionError: [Errno 101] Network is unreachable", "found pip download gensim"),
    ):
        failed = subprocess.CompletedProcess([], 1, "", reason)
        monkeypatch.setattr("data_prep.demo.corpus.subprocess.run", lambda *_, failed=failed, **__: failed)
        assert cli.main(["demo-data", "output_dir=d"]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_torch_has_no_memory():
    """In the words of the library as it is installed."""
    for size in ((2**45,), (2**62, 2**62)):
        with pytest.raises(RuntimeError) as error:
            torch.empty(size)
        found = user_error_of(error.value, output=None, how_to_go_on="")
        assert str(found).startswith("found no memory for what is asked for (")
