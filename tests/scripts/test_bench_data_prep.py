"""The benchmark of data preparation runs in one call and fills its rows, and its comparison of ids can fail.

Breaks that turn this file red: a station not timed, a row left out, a difference of ids not counted.
"""

import json
import subprocess
import sys

import pytest

from data_prep.documents.tokenization import SentenceTokenizer, packed
from data_prep.sources import Source
from tests.launch import CHECKOUT

SCRIPT = CHECKOUT / "scripts" / "bench" / "data_prep.py"
WORDS = ["the", "river", "runs", "from", "a", "stone", "bridge", "to", "the", "old", "city", "and", "back"]


@pytest.fixture
def folder(tmp_path):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, *sorted(set(WORDS)), ".", "##s", ""]))
    texts = [" ".join(WORDS[(n + i) % len(WORDS)] for i in range(9)).capitalize() + "." for n in range(40)]
    documents = ["\n".join(texts[n : n + 8]) for n in range(0, 40, 4)] * 20
    (tmp_path / "a.txt").write_text("\n\n".join(documents))
    return tmp_path


def test_one_call_fills_every_row(folder):
    arguments = ["--source", f"text={folder}/a.txt", "--vocabulary", f"{folder}/vocab.txt", "--megabytes", "0.05"]
    other = folder / "other.py"
    other.write_text("import shutil, sys; shutil.copy(*sys.argv[1:])")
    external = f"{sys.executable} {other} {{text}} {folder}/seen.txt"
    command = [sys.executable, str(SCRIPT), *arguments, "--rounds", "1", "--workers", "1", "--external", external]
    command += ["--out", f"{folder}/r.json"]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads((folder / "r.json").read_text())
    assert [row["what"].split(",")[0] for row in result["rows"]] == [
        "tokenizers",
        "bert-lamb prepare",
        "datasets.map + group_texts",
        "external: other.py",
    ]
    assert {len(document.splitlines()) for document in (folder / "seen.txt").read_text().split("\n\n")} == {8, 4}
    assert "1 worker / other.py: " in table
    assert all(row["wall_s"] > 0 and row["cpu_s"] > 0 and row["megabytes"] > 0.04 for row in result["rows"])
    stations = {"read", "clean", "sentences", "tokenise", "store tokens", "choose and group", "open groups"}
    stations |= {"make instances", "assemble rows", "write and hash shards", "data card", "the rest"}
    assert set(result["stations"]) == stations
    assert all(seconds > 0 for seconds in result["stations"].values())
    assert result["bytes_a_token"]["train 128"] > 2
    assert result["versions"]["tokenizers"]
    assert "of raw" in table


def test_other_ids_are_counted(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.syspath_prepend(str(CHECKOUT))
    import importlib.util

    spec = importlib.util.spec_from_file_location("bench_data_prep", SCRIPT)
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_data_prep", bench)
    spec.loader.exec_module(bench)
    sources = [Source("s", "text", str(folder / "a.txt"))]
    tokenizer = SentenceTokenizer(folder / "vocab.txt", is_lowercase=True)
    num_lines, num_differing = bench.check_ids(sources, tokenizer)
    assert (num_lines, num_differing) == (1600 - 20 * 4, 0)
    tokenizer._ids_of_chunk["bridge"] = packed([1], tokenizer.dtype)
    assert 0 < bench.check_ids(sources, tokenizer)[1] < num_lines
