"""Every kind of damage is found and named: at opening what is cheap to see, by verify all of it at once.

Mutations that must turn it red: any check of reader.py, manifest.py or verify.py taken out.
"""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from known_shards import ENTRIES, columns_of, random_single_rows, write_folder

from bert_lamb.errors import UserError
from bert_lamb.shards import check_hashes, num_bytes_to_hash, open_instances, read_manifest
from bert_lamb.shards.manifest import NEXT_SENTENCE, NO_SENTENCE_TASK, Vocabulary
from bert_lamb.shards.verify import row_faults, verify
from bert_lamb.shards.writer import map_columns, write_columns

FIRST = "seq32/train-00000-of-00003.arrow"
SECOND = "seq32/train-00001-of-00003.arrow"
THIRD = "seq32/train-00002-of-00003.arrow"


def edit_manifest(directory, change):
    path = directory / "manifest.json"
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


TEXT = {"max_seq_length": 32, "split": "train", "num_tokens": 8, "left_out": {"trimmed": 2}}


def flip_byte(path, place=-2000):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def flip_token(path):
    """Flip one bit inside the tokens: sizes, counts and footer stay as they are."""
    content = bytearray(path.read_bytes())
    tokens = bytes(map_columns(path).input_ids[:20])
    content[content.index(tokens) + 6] ^= 1
    path.write_bytes(content)


def test_a_sound_folder_has_no_complaints(shards_dir):
    assert verify(shards_dir) == []
    check_hashes(shards_dir)


def test_absent_manifest(tmp_path):
    with pytest.raises(UserError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
    assert len(verify(tmp_path)) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda plain: plain.update(format_version=1), "format_version 1"),
        (lambda plain: plain.update(format_version=4), "format_version 4 .*expected format_version 2 or 3"),
        (lambda plain: plain.update(format_version=True), "format_version True"),
        (lambda plain: plain.update(format_version="3"), "format_version '3'"),
        (lambda plain: plain.update(format_version=2), "a field text .*none in version 2"),
        (lambda plain: plain.pop("text"), r"missing keys \['text'\]"),
        (lambda plain: plain["text"].append({**TEXT, "left_out": {"lost": 1}}), r"unknown reasons \['lost'\]"),
        (lambda plain: plain["text"].append({**TEXT, "left_out": {"trimmed": 9}}), "with 9 of 8 tokens left out"),
        (lambda plain: plain["text"].append({**TEXT, "left_out": {"trimmed": -1}}), "with -1 of 8 tokens left out"),
        (lambda plain: plain["text"].extend([TEXT, TEXT]), "text of train 32 twice"),
        (lambda plain: plain["text"].append({**TEXT, "split": "test"}), "or of no known split"),
        (lambda plain: plain.update(format="other"), "format 'other'"),
        (lambda plain: plain.update(extra=1), r"unknown keys \['extra'\]"),
        (
            lambda plain: plain.update(sentence_task="cloze"),
            "sentence_task 'cloze', which is not one of next",
        ),
        (lambda plain: plain.pop("sentence_task"), r"missing keys \['sentence_task'\]"),
        (lambda plain: plain["vocabulary"].pop("sep_id"), r"missing keys \['sep_id'\]"),
        (lambda plain: plain["vocabulary"].update(size="200"), r"vocabulary\.size of type str, not int"),
        (lambda plain: plain["vocabulary"].update(size=True), r"vocabulary\.size of type bool, not int"),
        (lambda plain: plain["documents"]["dropped"].update(too_short="2"), r"dropped\.too_short of type str"),
        (lambda plain: plain["instance_sets"][0]["shards"][1].pop("sha256"), r"shards\[1\] .*missing keys"),
        (lambda plain: plain["instance_sets"][0].update(num_tokens=7), "num_tokens 7 but"),
        (lambda plain: plain["instance_sets"][0].update(split="test"), "split is not one of"),
        (lambda plain: plain["instance_sets"].append(plain["instance_sets"][0]), "twice"),
        (lambda plain: plain["instance_sets"][0]["shards"][0].update(file="../x.arrow"), "outside the folder"),
        (lambda plain: plain["instance_sets"][0]["shards"][0].update(file=SECOND), "named twice"),
        (
            lambda plain: plain["instance_sets"][0].update(shards=[], num_instances=0, num_tokens=0),
            "without instances",
        ),
    ],
)
def test_manifests_that_depart_from_the_format_are_refused(shards_dir, change, complaint):
    edit_manifest(shards_dir, change)
    with pytest.raises(UserError, match=complaint):
        read_manifest(shards_dir)
    assert len(verify(shards_dir)) == 1


@pytest.mark.parametrize("text", ['{"format": ', "[" * 100_000, "9" * 5000])
def test_a_manifest_that_is_not_json(shards_dir, text):
    (shards_dir / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="not JSON"):
        read_manifest(shards_dir)


def test_opening_names_the_available_sets(shards_dir):
    with pytest.raises(UserError, match=r"train 32, heldout 32, train 64.*max_seq_length 512"):
        open_instances(shards_dir, max_seq_length=512, split="train")


def rewrite(directory, file, change):
    """Put another Arrow table in a shard's place and its size in the manifest, so that only the footer tells."""
    table = change(pa.ipc.open_file((directory / file).read_bytes()).read_all())
    with pa.OSFile(str(directory / file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)

    def set_size(plain):
        for instance_set in plain["instance_sets"]:
            for shard in instance_set["shards"]:
                if shard["file"] == file:
                    shard["num_bytes"] = (directory / file).stat().st_size

    edit_manifest(directory, set_size)


def with_a_null(table):
    """Its first document number is a null, in a column whose schema says that there is none."""
    documents = pa.array([None, *table["document"].to_pylist()[1:]], pa.uint64())
    return pa.Table.from_arrays([*table.columns[:3], documents], schema=table.schema)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / THIRD).unlink(), f"no file .*{THIRD}"),
        (lambda folder: (folder / THIRD).write_bytes((folder / THIRD).read_bytes()[:-1]), f"bytes in shard .*{THIRD}"),
        (lambda folder: (folder / "vocab.txt").unlink(), r"no file .*vocab\.txt"),
        (lambda folder: flip_byte(folder / THIRD, -1), f"{THIRD} that Arrow cannot read"),
        (lambda folder: rewrite(folder, THIRD, lambda t: t.slice(1).combine_chunks()), f"22 instances in .*{THIRD}"),
        (lambda folder: rewrite(folder, THIRD, lambda t: t.drop_columns(["document"])), f"columns .*{THIRD}"),
        (lambda folder: rewrite(folder, THIRD, with_a_null), f"nulls in shard .*{THIRD}"),
        (
            lambda folder: rewrite(folder, THIRD, lambda t: pa.concat_tables([t.slice(0, 5), t.slice(5)])),
            f"2 record batches in shard .*{THIRD}",
        ),
    ],
)
def test_opening_refuses_what_costs_no_reading(shards_dir, damage, complaint):
    damage(shards_dir)
    with pytest.raises(UserError, match=complaint):
        open_instances(shards_dir, max_seq_length=32, split="train")
    assert any(THIRD in line or "vocab.txt" in line for line in verify(shards_dir))


def swap(directory, first, second):
    spare = directory / "spare"
    (directory / first).rename(spare)
    (directory / second).rename(directory / first)
    spare.rename(directory / second)


@pytest.mark.parametrize("other", [SECOND, "seq32/heldout-00000-of-00001.arrow", "seq64/train-00001-of-00002.arrow"])
def test_swapped_shards_are_found_and_named(shards_dir, other):
    swap(shards_dir, FIRST, other)
    with pytest.raises(UserError, match=FIRST):
        open_instances(shards_dir, max_seq_length=32, split="train")
    assert sorted(verify(shards_dir)) == sorted(
        f"{shards_dir / here}: it holds what belongs in {there}: swapped, or copied over"
        for here, there in ((FIRST, other), (other, FIRST))
    )


def test_a_shard_of_another_folder_is_found(tmp_path, shards_dir, rows):
    """Same name, same rows but for the vocabulary: ids of a larger one, which this one does not have."""
    entries = [*ENTRIES, *(f"x{number}" for number in range(100))]
    foreign_rows = {key: [([*row[0][:-1], 290, 3], *row[1:]) for row in of_set] for key, of_set in rows.items()}
    write_folder(tmp_path / "foreign", foreign_rows, entries=entries)
    (shards_dir / SECOND).write_bytes((tmp_path / "foreign" / SECOND).read_bytes())
    complaints = verify(shards_dir)
    assert any(f"{shards_dir / SECOND}: its sha256" in line and "another shard" in line for line in complaints)
    assert all(SECOND in line for line in complaints)


def test_the_vocabulary_of_another_folder_is_found(shards_dir):
    """As many entries, the special ones at their places: the hash alone tells, and the ids are not worth reading."""
    (shards_dir / "vocab.txt").write_text("".join(f"{entry.replace('w', 'x')}\n" for entry in ENTRIES))
    assert verify(shards_dir) == [f"{shards_dir / 'vocab.txt'}: its sha256 is not the manifest's: another vocabulary"]


@pytest.mark.parametrize(
    ("field", "complaint"),
    [("num_instances", "24 instances in"), ("num_tokens", "tokens in"), ("num_bytes", "bytes in")],
)
def test_wrong_counts_in_the_manifest_are_found(shards_dir, field, complaint):
    """A shard's count and its set's sum both one too high: the shard tells."""

    def change(plain):
        found = plain["instance_sets"][0]
        found["shards"][0][field] += 1
        if field in found:
            found[field] += 1

    edit_manifest(shards_dir, change)
    complaints = verify(shards_dir)
    assert any(complaint in line and FIRST in line for line in complaints), complaints
    with pytest.raises(UserError, match=complaint):
        open_instances(shards_dir, max_seq_length=32, split="train")


def test_every_flipped_byte_is_found(tmp_path, rows):
    """Every fifth byte of a tiny shard in turn, whatever it is to Arrow: told, and nothing crashes on it."""
    folder = tmp_path / "tiny"
    write_folder(folder, {(32, "train"): rows[32, "train"][:3]})
    (path,) = folder.rglob("*.arrow")
    content = path.read_bytes()
    for place in range(0, len(content), 5):
        flipped = content[place] ^ (0x80 if place % 2 else 1)
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        assert f"{path}: its sha256 is not the manifest's: damaged, or another shard" in verify(folder), place
    path.write_bytes(content)
    assert verify(folder) == []


def test_a_flipped_token_is_found_by_the_hashes(shards_dir):
    flip_token(shards_dir / SECOND)
    open_instances(shards_dir, max_seq_length=32, split="train")  # too cheap a look to see it
    with pytest.raises(UserError, match=f"sha256 .*{SECOND}"):
        check_hashes(shards_dir)
    check_hashes(shards_dir, max_seq_length=64)
    assert any(SECOND in line and "sha256" in line for line in verify(shards_dir))


def test_hashing_reports_every_byte(shards_dir):
    manifest = read_manifest(shards_dir)
    counts: list[int] = []
    check_hashes(shards_dir, max_seq_length=64, on_bytes=counts.append)
    expected = num_bytes_to_hash(manifest, max_seq_length=64)
    assert sum(counts) == expected + (shards_dir / "vocab.txt").stat().st_size
    assert expected == sum(path.stat().st_size for path in (shards_dir / "seq64").iterdir())


def test_another_vocabulary_is_refused(shards_dir):
    path = shards_dir / "vocab.txt"
    path.write_text(path.read_text().replace("[MASK]", "mask") + "more\n")
    with pytest.raises(UserError, match=r"vocab\.txt"):
        check_hashes(shards_dir)
    complaints = "\n".join(verify(shards_dir))
    assert "another vocabulary" in complaints
    assert "201 entries" in complaints
    assert "[MASK] is not entry 4" in complaints


def test_verify_tells_everything_at_once(shards_dir):
    (shards_dir / FIRST).unlink()
    flip_token(shards_dir / SECOND)
    (shards_dir / "seq32" / "stray.arrow").write_bytes(b"")
    (shards_dir / "vocab.txt").write_text("[PAD]\n")

    def change(plain):
        plain["documents"]["num_read"] = 63
        plain["sources"][0]["num_kept"] = 59
        plain["instance_sets"][1]["num_true_labels"] += 1

    edit_manifest(shards_dir, change)
    complaints = verify(shards_dir)
    for part in (
        f"no file {shards_dir / FIRST}",
        f"{shards_dir / SECOND}: its sha256",
        "stray.arrow: a shard that the manifest does not name",
        "vocab.txt: 1 entries",
        "63 read, but 62 by train + heldout + dropped",
        "63 read, but 62 by documents read from the sources",
        "kept do not sum to the 60",
        "num_true_labels",
    ):
        assert any(part in line for line in complaints), (part, complaints)


def test_a_document_in_both_splits_is_found(tmp_path, rows):
    leaked = [(*row[:3], 49) if number == 4 else row for number, row in enumerate(rows[32, "heldout"])]
    train = [(*row[:3], 49) if number == 0 else row for number, row in enumerate(rows[32, "train"])]
    write_folder(tmp_path / "leak", {(32, "train"): train, (32, "heldout"): leaked})
    assert verify(tmp_path / "leak") == ["1 documents both in train and in heldout, the first is 49"]


def test_unequal_shards_and_more_documents_than_declared_are_found(shards_dir):
    def change(plain):
        plain["documents"].update(num_train=5, num_read=17)
        plain["sources"][0].update(num_read=17, num_kept=15)
        shards = plain["instance_sets"][0]["shards"]
        shards[0], shards[1] = shards[1], shards[0]

    edit_manifest(shards_dir, change)
    complaints = verify(shards_dir)
    assert any("train documents in the shards, but 5" in line for line in complaints)
    assert sum("belongs" in line for line in complaints) == 2


VOCABULARY = Vocabulary("vocab.txt", "", 200, True, 0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("start", 9, "do not begin with [CLS]"),
        ("first_sep", 9, "without [SEP] at the end of segment A"),
        ("end", 9, "do not end with [SEP]"),
        ("word", 3, "exactly two [SEP]"),
        ("word", 2, "exactly one [CLS]"),
        ("word", 0, "hold [PAD] or [MASK]"),
        ("word", 4, "hold [PAD] or [MASK]"),
        ("word", 200, "outside 0..199"),
    ],
)
def test_each_invariant_of_a_row(rows, place, value, fault):
    row = 17
    columns = columns_of(rows[64, "train"])
    assert row_faults(columns, 64, VOCABULARY, NEXT_SENTENCE) == []
    start, stop = columns.offsets[row], columns.offsets[row + 1]
    first_sep = start + int(columns.segment_a_lengths[row]) - 1
    positions = {"start": start, "first_sep": first_sep, "end": stop - 1, "word": start + 1}
    columns.input_ids[positions[place]] = value
    faults = row_faults(columns, 64, VOCABULARY, NEXT_SENTENCE)
    assert any(fault in line and line.startswith(f"1 rows, the first is {row},") for line in faults), faults


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("start", 9, "do not begin with [CLS]"),
        ("end", 9, "do not end with [SEP]"),
        ("first", 3, "with [SEP] right after [CLS] or another [SEP]"),
        ("last", 3, "with [SEP] right after [CLS] or another [SEP]"),
        ("first", 2, "exactly one [CLS]"),
        ("last", 0, "hold [PAD] or [MASK]"),
        ("last", 4, "hold [PAD] or [MASK]"),
        ("last", 200, "outside 0..199"),
    ],
)
def test_each_invariant_of_a_row_without_a_sentence_task(place, value, fault):
    row = 17
    columns = columns_of(random_single_rows(40, max_seq_length=64, documents=range(50), seed=4))
    assert row_faults(columns, 64, VOCABULARY, NO_SENTENCE_TASK) == []
    start, stop = columns.offsets[row], columns.offsets[row + 1]
    positions = {"start": start, "first": start + 1, "last": stop - 2, "end": stop - 1}
    columns.input_ids[positions[place]] = value
    faults = row_faults(columns, 64, VOCABULARY, NO_SENTENCE_TASK)
    assert any(fault in line and line.startswith(f"1 rows, the first is {row},") for line in faults), faults


def test_the_columns_of_a_row_without_a_sentence_task():
    rows = random_single_rows(40, max_seq_length=64, documents=range(50), seed=4)
    ids = rows[5][0]
    for changed, fault in (
        ((ids, len(ids) - 1, False, 1), "segment_a_length is not the length"),
        ((ids, len(ids), True, 1), "sentence_label is true"),
        (([2, 3], 2, False, 1), "length is not in 3..64"),
        (([2, *[9] * 63, 3], 65, False, 1), "length is not in 3..64"),
        (([], 0, False, 1), "length is not in 3..64"),
    ):
        columns = columns_of([*rows[:5], changed, *rows[6:]])
        (line,) = row_faults(columns, 64, VOCABULARY, NO_SENTENCE_TASK)
        assert line.startswith("1 rows, the first is 5,")
        assert fault in line
        assert row_faults(columns_of([changed]), 64, VOCABULARY, NO_SENTENCE_TASK)


def test_a_folder_is_read_by_its_own_sentence_task(tmp_path):
    """The same rows are sound without a sentence task and broken with one."""
    rows = {(64, "train"): random_single_rows(40, max_seq_length=64, documents=range(50), seed=4)}
    write_folder(tmp_path / "single", rows, sentence_task=NO_SENTENCE_TASK)
    assert verify(tmp_path / "single") == []
    write_folder(tmp_path / "pairs", rows, sentence_task=NEXT_SENTENCE)
    assert any("leaves a segment empty" in line for line in verify(tmp_path / "pairs"))


def test_lengths_outside_the_bounds(rows):
    columns = columns_of(rows[64, "train"])
    longest = int(np.diff(columns.offsets).max())
    assert any("length is not in 5.." in line for line in row_faults(columns, longest - 1, VOCABULARY, NEXT_SENTENCE))
    segment_a_lengths = columns.segment_a_lengths.copy()
    segment_a_lengths[3] = np.diff(columns.offsets)[3]
    faults = row_faults(replace(columns, segment_a_lengths=segment_a_lengths), 64, VOCABULARY, NEXT_SENTENCE)
    assert any("leaves a segment empty" in line for line in faults)


def test_offsets_that_lead_nowhere_are_told_not_crashed_on(rows):
    columns = columns_of(rows[64, "train"])
    offsets = columns.offsets.copy()
    offsets[5] = 2**31 - 1
    assert row_faults(replace(columns, offsets=offsets), 64, VOCABULARY, NEXT_SENTENCE)


def test_writing_flushes_a_readable_file(tmp_path, rows):
    write_columns(tmp_path / "one.arrow", columns_of(rows[32, "heldout"]), vocabulary_size=200)
    assert pa.ipc.open_file(str(tmp_path / "one.arrow")).num_record_batches == 1


def test_text_that_is_in_no_instance_nor_left_out(shards_dir):
    """The instances must hold what is not left out; [CLS] and two [SEP] of each are no text."""
    manifest = read_manifest(shards_dir)
    found = manifest.instance_set(max_seq_length=32, split="train")
    held = found.num_tokens - 3 * found.num_instances

    def text(num_tokens, split="train"):
        edit_manifest(shards_dir, lambda plain: plain.update(text=[{**TEXT, "num_tokens": num_tokens, "split": split}]))
        return verify(shards_dir)

    assert text(held + 2) == []
    (complaint,) = text(held + 3)
    assert complaint == f"manifest.text: {held + 1} tokens of train 32 are not left out, but its instances hold {held}"
