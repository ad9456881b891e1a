"""Instances as text, against rows that the test wrote down and against what pyarrow reads by itself.

Breaks that turn this file red stand in tests/mutations.txt under `inspect:`, tried: a special token glued to the piece
after it, the label's words swapped, numbers off by a shard or by one, no pieces.
"""

import os
import subprocess
import sys

import pyarrow as pa
import pytest
from known_shards import columns_of, random_rows, write_folder

from bert_lamb.cli import main as cli
from bert_lamb.errors import UserError
from bert_lamb.shards.inspect import Entries, inspect, instance_text
from bert_lamb.shards.manifest import MANIFEST_FILE
from tests.launch import CHECKOUT

ENTRIES = Entries(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##able", "to", "##s", "."], frozenset(range(5)))
ROW = ([2, 8, 5, 6, 3, 7, 1, 8, 9, 3], 5, True, 17)  # A begins in the middle of a word, as truncation leaves it


def show(directory, **changes):
    defaults = {"max_seq_length": None, "split": None, "shard": None, "first": 0, "count": 3, "with_pieces": False}
    return inspect(directory, **{**defaults, **changes})


@pytest.mark.parametrize(
    ("sentence_task", "is_true", "label"),
    [
        ("next_sentence", False, "next (B follows A)"),
        ("next_sentence", True, "random next (B was taken from another document)"),
        ("sentence_order", False, "in order (B follows A)"),
        ("sentence_order", True, "swapped (A follows B)"),
    ],
)
def test_a_pair_word_by_word(sentence_task, is_true, label):
    columns = columns_of([(*ROW[:2], is_true, 17)])
    assert instance_text(columns, 0, ENTRIES, sentence_task=sentence_task).splitlines() == [
        "  document  17",
        "  tokens    10 (5 of A, 5 of B)",
        f"  label     {label}",
        "  A         [CLS] ##s unable [SEP]",
        "  B         to [UNK] ##s . [SEP]",
    ]


def test_without_a_sentence_task_there_are_no_segments():
    columns = columns_of([([2, 7, 9, 3, 5, 6, 3], 7, False, 3)])
    assert instance_text(columns, 0, ENTRIES, sentence_task="none").splitlines() == [
        "  document  3",
        "  tokens    7",
        "  label     none (there is no sentence task)",
        "  text      [CLS] to . [SEP] unable [SEP]",
    ]


def test_pieces_have_their_ids_and_ids_without_entry_are_told():
    columns = columns_of([ROW, ([2, 5, 3, 99, 3], 3, False, 1)])
    pieces = instance_text(columns, 0, ENTRIES, sentence_task="next_sentence", with_pieces=True).splitlines()
    assert pieces[3:] == [
        "  A         [CLS]:2 ##s:8 un:5 ##able:6 [SEP]:3",
        "  B         to:7 [UNK]:1 ##s:8 .:9 [SEP]:3",
    ]
    assert instance_text(columns, 1, ENTRIES, sentence_task="next_sentence").endswith("  B         [no entry 99] [SEP]")


def test_long_lines_are_broken_without_losing_a_word():
    columns = columns_of(random_rows(1, max_seq_length=200, documents=range(9), seed=1))
    entries = Entries([f"w{number}" for number in range(200)], frozenset())
    whole = instance_text(columns, 0, entries, sentence_task="next_sentence")
    broken = instance_text(columns, 0, entries, sentence_task="next_sentence", line_width=60)
    assert broken.split() == whole.split()
    assert max(map(len, broken.splitlines())) <= 60 < max(map(len, whole.splitlines()))


def test_every_instance_of_the_set_is_where_its_number_says(shards_dir):
    """Document, A and B of all 70, over the three shards, against pyarrow and vocab.txt."""
    entries = (shards_dir / "vocab.txt").read_text().split("\n")
    expected = []
    for path in sorted((shards_dir / "seq32").glob("train-*.arrow")):
        for row, found in enumerate(pa.ipc.open_file(str(path)).read_all().to_pylist()):
            words, cut = [entries[number] for number in found["input_ids"]], found["segment_a_length"]
            title = f"instance {len(expected)} of train 32, row {row} of seq32/{path.name}"
            expected.append((title, str(found["document"]), " ".join(words[:cut]), " ".join(words[cut:])))
    assert len(expected) == 70

    def told(texts):
        for text in texts:
            title, document, _, _, segment_a, segment_b = text.splitlines()
            yield title, document[12:], segment_a[12:], segment_b[12:]

    assert list(told(show(shards_dir, count=70))) == expected
    assert list(told(show(shards_dir, first=22, count=4))) == expected[22:26], "over the end of the first shard"
    assert list(told(show(shards_dir, first=68))) == expected[68:], "no more than there are"
    second = "seq32/train-00001-of-00003.arrow"
    assert list(told(show(shards_dir, shard=second, first=1, count=2))) == expected[25:27]
    assert list(told(show(shards_dir, shard=str(shards_dir / second), count=99))) == expected[24:47]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"first": 70}, "found first=70; expected 0..69, the instances of train 32"),
        ({"split": "heldout", "first": 9}, "expected 0..8, the instances of heldout 32"),
        (
            {"shard": "seq32/train-00001-of-00003.arrow", "first": 23},
            "expected 0..22, the instances of seq32/train-00001-of-00003.arrow",
        ),
        ({"max_seq_length": 128}, "train 32, heldout 32, train 64; expected train instances of max_seq_length 128"),
        ({"split": "dev"}, "expected dev instances of max_seq_length 32"),
        ({"shard": "seq32/train-00003-of-00003.arrow"}, "such as seq32/train-00000-of-00003.arrow"),
        ({"shard": "vocab.txt"}, "found shard=vocab.txt; expected a shard of"),
    ],
)
def test_what_is_not_there_is_refused(shards_dir, changes, complaint):
    with pytest.raises(UserError) as error:
        show(shards_dir, **changes)
    assert complaint in str(error.value)


def test_a_folder_that_is_not_whole_is_refused(shards_dir):
    (shards_dir / "seq32" / "train-00001-of-00003.arrow").write_bytes(b"")
    assert len(show(shards_dir)) == 3, "only the shards that are shown are opened"
    with pytest.raises(UserError, match="0 bytes in shard"):
        show(shards_dir, first=24)
    vocabulary = (shards_dir / "vocab.txt").read_bytes()
    (shards_dir / "vocab.txt").write_bytes(vocabulary.replace(b"[UNK]", b"[unk]"))
    with pytest.raises(UserError, match=r"another .*vocab\.txt than the shards were made with"):
        show(shards_dir)
    (shards_dir / "vocab.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match="expected UTF-8"):
        show(shards_dir)
    (shards_dir / MANIFEST_FILE).unlink()
    with pytest.raises(UserError, match=r"no manifest\.json in"):
        show(shards_dir)


def test_the_command_prints_instances_apart(tmp_path, capsys):
    rows = {(32, "train"): random_rows(5, max_seq_length=32, documents=range(9), seed=1)}
    write_folder(tmp_path / "shards", rows, sentence_task="sentence_order")
    assert cli.main(["inspect", f"shards_dir={tmp_path}/shards", "first=3", "pieces=true"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.startswith("instance 3 of train 32, row 3 of seq32/train-00000-of-00001.arrow\n  document  ")
    assert "  A         [CLS]:2 w" in first
    assert second.startswith("instance 4 ")
    assert ("swapped" in first) == rows[32, "train"][3][2]


def test_a_reader_that_leaves_early_sees_no_traceback(shards_dir):
    """As `bert-lamb inspect ... | head -1` does."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "bert_lamb", "inspect", f"shards_dir={shards_dir}"]
    found = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False, cwd=CHECKOUT)
    os.close(write_end)
    assert (found.returncode, found.stderr) == (0, "")
