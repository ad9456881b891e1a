"""The data card says what pyarrow counts by itself, its snippets run, and the same folder gives the same bytes.

Breaks that turn this file red are in mutations.txt beside it, under `card:`.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pytest
import yaml

from bert_lamb.shards import read_manifest
from bert_lamb.shards.inspect import instance_text, read_entries
from bert_lamb.shards.manifest import MANIFEST_FILE, SourceRecord, TextRecord
from bert_lamb.shards.reader import open_shard
from bert_lamb.shards.verify import verify
from data_prep.card import card, write_card
from data_prep.card.content import front_matter
from tests.launch import CHECKOUT
from tests.shards.known_shards import ENTRIES, random_rows, random_single_rows, write_folder

WORDS = [*ENTRIES[:5], "|", "`", "##`|", *(f"##w{number}" for number in range(8, 100)), *ENTRIES[100:]]
UNK = 1
WRITE = "import sys; from pathlib import Path; from data_prep.card import write_card; from bert_lamb.shards import "
WRITE += "read_manifest; write_card(Path(sys.argv[1]), read_manifest(Path(sys.argv[1])))"


def make_folder(directory, make_rows=random_rows, **options):
    """Two lengths, the shorter one in 3 shards of 24, 23 and 23 train rows; [UNK] and what Markdown stumbles over."""
    rows = {
        (32, "train"): make_rows(70, max_seq_length=32, documents=range(50), seed=1),
        (32, "heldout"): make_rows(9, max_seq_length=32, documents=range(50, 60), seed=2),
        (64, "train"): make_rows(40, max_seq_length=64, documents=range(50), seed=3),
    }
    rng = random.Random(4)
    for ids, *_ in (row for set_rows in rows.values() for row in set_rows):
        ids[:] = [rng.choice((UNK, 5, 6, 7)) if number > 4 and rng.random() < 0.1 else number for number in ids]
    return write_folder(directory, rows, entries=WORDS, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Written as prepare does it: the card first, the manifest last."""
    directory = tmp_path_factory.mktemp("card") / "shards"
    manifest = make_folder(directory)
    text = (directory / MANIFEST_FILE).read_text()
    (directory / MANIFEST_FILE).unlink()
    write_card(directory, manifest)
    (directory / MANIFEST_FILE).write_text(text)
    return directory


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def read_alone(directory, max_seq_length, split):
    """The rows of each shard, by pyarrow."""
    paths = sorted((directory / f"seq{max_seq_length}").glob(f"{split}-*.arrow"))
    return [pa.ipc.open_file(str(path)).read_all().to_pylist() for path in paths]


def tables_of(text):
    """Every Markdown table as its rows of cells, the header first."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    rows = [[re.split(r" (?<!\\)\| ", line[2:-2]) for line in block.splitlines()] for block in blocks]
    return [[header, *body] for header, _, *body in rows]


def rewrite(folder, tmp_path, **changes):
    """The card of a copy of the folder, whose manifest is another in some fields."""
    copy = shutil.copytree(folder, tmp_path / "shards")
    write_card(copy, replace(read_manifest(folder), **changes))
    return (copy / "README.md").read_text(encoding="utf-8")


def test_the_folder_stays_sound(folder):
    assert verify(folder) == []
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.svg"))
    assert names == ["figures/lengths-seq32.svg", "figures/lengths-seq64.svg", "figures/vocabulary.svg"]


def test_counts_are_those_of_the_shards(folder, text):
    _, sources, documents, sets, *lengths, _ = tables_of(text)
    assert sources[1:] == [["`text`", "public domain", "62", "60"]]
    assert documents[1:] == [
        ["read", "62", "100.0 %"],
        ["kept for training", "50", "80.6 %"],
        ["held out", "10", "16.1 %"],
        ["dropped: too short", "2", "3.2 %"],
    ]
    assert sets[0] == ["length", "split", "instances", "tokens", "fill ratio", "random next", "shards", "MB"]
    for told, (max_seq_length, split) in zip(sets[1:], [(32, "train"), (32, "heldout"), (64, "train")], strict=True):
        shards = read_alone(folder, max_seq_length, split)
        rows = [row for shard in shards for row in shard]
        num_tokens = sum(len(row["input_ids"]) for row in rows)
        num_bytes = sum(path.stat().st_size for path in (folder / f"seq{max_seq_length}").glob(f"{split}-*"))
        assert told == [
            str(max_seq_length),
            {"train": "train", "heldout": "held out"}[split],
            str(len(rows)),
            f"{num_tokens:,}",
            f"{100 * num_tokens / len(rows) / max_seq_length:.1f} %",
            f"{100 * sum(row['sentence_label'] for row in rows) / len(rows):.1f} %",
            str(len(shards)),
            f"{num_bytes / 1e6:.2g}",  # 0.0048
        ]
        of_length = lengths[[32, 64].index(max_seq_length)]
        column = 1 + (split == "heldout")
        for line in of_length[1:]:
            first, last = (int(line[0].split(" to ")[place]) for place in (0, -1))
            inside = sum(first <= len(row["input_ids"]) <= last for row in rows)
            count, share, _ = line[column].split(" ")
            assert count == str(inside), line
            assert float(share.removeprefix("(")) == pytest.approx(100 * inside / len(rows), rel=0.05), line
        assert sum(int(line[column].split(" ")[0]) for line in of_length[1:]) == len(rows)


def test_text_left_out_by_length_and_reason(folder, text, tmp_path):
    """Nothing where it was not counted, as in shards of an earlier version."""
    assert "left out" not in text
    counted = (
        TextRecord(32, "train", 2000, {"trimmed": 100, "last_sentence": 3}),
        TextRecord(32, "heldout", 10, {"single_sentence": 10}),
        TextRecord(64, "train", 2000, {}),
    )
    rewritten = rewrite(folder, tmp_path, text=counted)
    assert [table[0] for table in tables_of(rewritten)] == [
        *(table[0] for table in tables_of(text)[:4]),
        tables_of(rewritten)[4][0],
        *(table[0] for table in tables_of(text)[4:]),
    ]
    header, *rows = tables_of(rewritten)[4]
    assert header[2:] == [
        "tokens of the text",
        "left out",
        "share",
        "trimmed from pairs longer than an instance",
        "last sentences without a second segment",
        "documents of a single sentence",
    ]
    assert rows == [
        ["32", "train", "2,000", "103", "5.2 %", "5.0 %", "0.15 %", "0 %"],
        ["32", "held out", "10", "10", "100.0 %", "0 %", "0 %", "100.0 %"],
        ["64", "train", "2,000", "0", "0 %", "0 %", "0 %", "0 %"],
    ]


@pytest.mark.parametrize("tokens_per_shard", [None, 50])
def test_frequencies_are_those_of_the_tokens_counted(folder, text, tmp_path, monkeypatch, tokens_per_shard):
    """All of them, or the first 50 of each shard, as the card then says."""
    shards = [[number for row in rows for number in row["input_ids"]] for rows in read_alone(folder, 32, "train")]
    num_tokens = sum(map(len, shards))
    if tokens_per_shard:
        shutil.copytree(folder, tmp_path / "shards")
        monkeypatch.setattr(card, "MAX_COUNTED_TOKENS", tokens_per_shard * 3 + 2)
        monkeypatch.setattr("data_prep.card.counts.TOKENS_PER_CHUNK", 7)
        write_card(tmp_path / "shards", read_manifest(folder))
        text = (tmp_path / "shards" / "README.md").read_text(encoding="utf-8")
        assert f"Counted over 150 of {num_tokens:,} tokens (the first 50 of each shard) of the train set" in text
    else:
        assert f"Counted over all {num_tokens:,} tokens of the train set of length 32" in text
    counts = Counter(number for shard in shards for number in shard[:tokens_per_shard] if number not in (2, 3))
    total = counts.total()
    assert f"`[UNK]` is {100 * counts[UNK] / total:.1f} % of the tokens" in text
    continued = sum(count for number, count in counts.items() if WORDS[number].startswith("##"))
    assert f"- {100 * continued / total:.1f} % continue a word" in text
    assert f"- {len(counts)} of 200 entries occur" in text
    cells = [row[start : start + 3] for start in (0, 3, 6) for row in tables_of(text)[-1][1:]]
    expected = sorted(counts, key=lambda number: (-counts[number], number))[:30]
    assert [rank for rank, _, _ in cells] == [str(rank) for rank in range(1, 31)]
    quoted = {5: "`\\|`", 6: "`` ` ``", 7: "`` ##`\\| ``"}
    assert [entry for _, entry, _ in cells] == [quoted.get(number, f"`{WORDS[number]}`") for number in expected]
    assert [float(share.split(" ")[0]) for _, _, share in cells] == pytest.approx(
        [100 * counts[number] / total for number in expected], rel=0.06
    )


def test_sample_rows_are_the_first_of_each_label(folder, text):
    manifest = read_manifest(folder)
    entries = read_entries(folder, manifest.vocabulary)
    expected = []
    for max_seq_length in (32, 64):
        labels = [row["sentence_label"] for row in read_alone(folder, max_seq_length, "train")[0]]
        rows = sorted({labels.index(False), labels.index(True)}) if max_seq_length == 32 else [0]
        found = manifest.instance_set(max_seq_length=max_seq_length, split="train")
        columns = open_shard(folder, found.shards[0], manifest.vocabulary)
        expected += [
            (max_seq_length, row, instance_text(columns, row, entries, sentence_task="next_sentence", line_width=96))
            for row in rows
        ]
    told = re.findall(r"^Length (\d+), instance (\d+):\n\n```text\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert [(int(length), int(row), sample) for length, row, sample in told] == expected
    assert len(expected) == 3


def test_the_front_matter_and_the_configuration_parse(folder, text):
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == ["other"], "public domain is none of the hub's names"
    assert front["license_details"] == "public domain"
    assert front["pretty_name"] == "BERT pretraining shards: text"
    config, versions = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    assert config == read_manifest(folder).preparation.config
    assert versions == {"numpy": "2"}


def test_licences_that_the_hub_knows_stay_as_given(folder):
    def license_of(*given):
        records = tuple(SourceRecord(f"s{number}", text, 1, 1) for number, text in enumerate(given))
        manifest = replace(read_manifest(folder), sources=records)
        return front_matter(manifest, [32])

    assert license_of("cc-by-sa-4.0", "cc0-1.0", "cc-by-sa-4.0")["license"] == ["cc-by-sa-4.0", "cc0-1.0"]
    mixed = license_of("cc0-1.0", "CC BY-SA 3.0 and GFDL: both", "")
    assert mixed["license"] == ["cc0-1.0", "other"]
    assert mixed["license_details"] == "cc0-1.0; CC BY-SA 3.0 and GFDL: both"
    assert license_of("")["license"] == ["unknown"]


def test_text_from_outside_stays_text(folder, tmp_path):
    """What means something to Markdown, Jinja, HTML or yaml, in names and licences of sources and in reasons."""
    hostile, quoted = "a|b: `{{ 1 }}` <i>&amp;\n{% raw %}", r"a\|b: `{{ 1 }}` <i>&amp; {% raw %}"
    manifest = read_manifest(folder)
    text = rewrite(
        folder,
        tmp_path,
        sources=(SourceRecord(hostile, hostile, 3456, 2), SourceRecord("s", "", 1, 0)),
        documents=replace(manifest.documents, dropped={hostile: 2}),
        preparation=replace(manifest.preparation, config={hostile: hostile}),
    )
    _, sources, documents, *_ = tables_of(text)
    assert sources[1:] == [[f"`` {quoted} ``", quoted, "3,456", "2"], ["`s`", "not given", "1", "0"]]
    assert documents[-1] == [f"dropped: {quoted}", "2", "3.2 %"]
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["pretty_name"] == f"BERT pretraining shards: {hostile}, s"
    assert front["license_details"] == hostile
    config, _ = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)\n```\n", text, re.DOTALL))
    assert config == {hostile: hostile}


def run_python(code, *arguments, cwd, **environment):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, env=environment).stdout


def test_the_snippets_run_and_datasets_knows_the_configurations(folder, text, tmp_path):
    by_datasets, by_pandas, by_pyarrow = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    rows = [row for shard in read_alone(folder, 32, "train") for row in shard]
    count = (
        "\nfor name in ('seq32', 'seq64'): print({k: v.num_rows for k, v in load_dataset(str(folder), name).items()})"
    )
    told = run_python(by_datasets + count, cwd=folder, HF_HOME=str(tmp_path)).splitlines()
    assert told[0] == str(rows[0])
    assert told[1:] == ["{'train': 70, 'heldout': 9}", "{'train': 40}"]
    assert run_python(by_pandas, cwd=folder).strip() == " ".join(WORDS[number] for number in rows[0]["input_ids"])
    assert run_python(by_pyarrow, cwd=folder).startswith("70 input_ids: list<item: uint16 not null> not null")


def test_two_processes_write_the_same_bytes(folder, tmp_path):
    """In another folder, with another hash seed, time zone and matplotlib configuration."""
    (tmp_path / "matplotlibrc").write_text("axes.linewidth: 5\nxtick.labelsize: 20\nfont.size: 20\n")
    written = []
    for name, seed in (("one", "1"), ("another", "2")):
        copy = tmp_path / name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("README.md", "figures"))
        changes = {"MPLCONFIGDIR": str(tmp_path), "TZ": "Asia/Tokyo"} if name == "another" else {}
        run_python(WRITE, copy, cwd=copy, PYTHONHASHSEED=seed, **changes)
        paths = [copy / "README.md", *sorted((copy / "figures").iterdir())]
        written.append({path.relative_to(copy): path.read_bytes() for path in paths})
    assert written[0] == written[1]
    assert written[0] == {path: (folder / path).read_bytes() for path in written[0]}
    for data in written[0].values():
        assert str(tmp_path).encode() not in data


def test_figures_are_whole_and_their_axes_named(folder):
    for path, labels in {
        "lengths-seq32.svg": {
            "tokens of the instance, special tokens included",
            "% of the instances (log)",
            "held out",
        },
        "lengths-seq64.svg": {"tokens of the instance, special tokens included", "% of the instances (log)", "train"},
        "vocabulary.svg": {"rank of the entry (log)", "occurrences (log)"},
    }.items():
        root = ET.parse(folder / "figures" / path).getroot()
        words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert labels <= words
        assert "held out" not in words - labels, "length 64 has no held-out set"
        assert not list(root.iter("{http://purl.org/dc/elements/1.1/}date"))


@pytest.mark.parametrize(
    ("sentence_task", "make_rows", "columns"),
    [("sentence_order", random_rows, ["swapped"]), ("none", random_single_rows, [])],
)
def test_the_sentence_task_names_the_label(tmp_path, sentence_task, make_rows, columns):
    manifest = make_folder(tmp_path / "shards", make_rows, sentence_task=sentence_task)
    write_card(tmp_path / "shards", manifest)
    assert verify(tmp_path / "shards") == []
    text = (tmp_path / "shards" / "README.md").read_text(encoding="utf-8")
    assert tables_of(text)[3][0] == ["length", "split", "instances", "tokens", "fill ratio", *columns, "shards", "MB"]
    assert "random" not in text
    assert ("A and B are swapped" in text) == bool(columns)
    assert len(re.findall("```text", text)) == 2 + len(columns)
