"""What was written is read back: by our reader, and by pyarrow, pandas and datasets that know nothing of us.

Mutations that must turn it red: forgetting a shard's start in `take`, offsets not starting at 0 in a slice, shards out
of order, a compressed shard (the zero-copy view fails).
"""

import hashlib
import itertools
import json
import pickle
import time
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_shards import columns_of, write_folder

from bert_lamb.shards import open_instances, read_manifest, writer
from bert_lamb.shards.manifest import TextRecord, manifest_from_json
from bert_lamb.shards.schema import (
    Columns,
    arrow_schema,
    concatenate,
    from_record_batch,
    offsets_of,
    to_record_batch,
)
from bert_lamb.shards.verify import verify
from bert_lamb.shards.writer import equal_shard_sizes, map_columns, write_columns, write_shard


def taken_rows(instances, indices):
    found = instances.take(np.array(indices, np.int64))
    return [
        (
            found.input_ids[found.offsets[i] : found.offsets[i + 1]].tolist(),
            int(found.segment_a_lengths[i]),
            bool(found.sentence_labels[i]),
        )
        for i in range(len(found))
    ]


@pytest.mark.parametrize("vocabulary_size", [1000, 100_000])
@pytest.mark.parametrize(("start", "stop"), [(0, 20), (0, 8), (3, 20), (9, 11), (20, 20)])
def test_record_batches_and_slices_of_them_are_read_as_arrow_reads_them(vocabulary_size, start, stop):
    """A slice begins anywhere in its buffers, for booleans also between two bytes."""
    rows = [([2, *range(5, 6 + i % 7), 3], 2 + i % 3, i % 4 == 0, 2**63 + i) for i in range(20)]
    batch = to_record_batch(columns_of(rows, vocabulary_size), vocabulary_size).slice(start, stop - start)
    found = from_record_batch(batch)
    ids = [found.input_ids[a:b].tolist() for a, b in itertools.pairwise(found.offsets)]
    assert ids == batch.column("input_ids").to_pylist()
    assert found.segment_a_lengths.tolist() == batch.column("segment_a_length").to_pylist()
    assert found.sentence_labels.tolist() == batch.column("sentence_label").to_pylist()
    assert found.documents.tolist() == batch.column("document").to_pylist()
    dtypes = [found.input_ids.dtype, found.offsets.dtype, found.sentence_labels.dtype, found.documents.dtype]
    assert dtypes == [np.uint16 if vocabulary_size == 1000 else np.int32, np.int32, np.bool_, np.uint64]


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_take_gives_the_written_rows_in_any_order(tmp_path_factory, rows, data):
    directory = tmp_path_factory.getbasetemp() / "taken"
    if not directory.exists():
        write_folder(directory, rows)
    instances = open_instances(directory, max_seq_length=32, split="train")
    written = rows[32, "train"]
    indices = data.draw(st.lists(st.integers(0, len(written) - 1), max_size=100))
    assert taken_rows(instances, indices) == [written[index][:3] for index in indices]


def test_lengths_and_flat_tokens(shards_dir, rows):
    written = [row[0] for row in rows[32, "train"]]
    instances = open_instances(shards_dir, max_seq_length=32, split="train")
    assert len(instances) == 70
    assert instances.lengths.dtype == np.uint16
    assert instances.lengths.tolist() == [len(ids) for ids in written]
    chunks = list(instances.iter_input_ids(100))
    assert max(map(len, chunks)) == 100
    assert np.concatenate(chunks).tolist() == [token for ids in written for token in ids]
    assert instances.vocabulary_path.read_text().startswith("[PAD]\n")


def test_out_of_range_is_an_index_error(shards_dir):
    instances = open_instances(shards_dir, max_seq_length=32, split="train")
    for index in (-1, 70):
        with pytest.raises(IndexError):
            instances.take(np.array([index]))


def test_instances_travel_to_another_process(shards_dir):
    instances = open_instances(shards_dir, max_seq_length=64, split="train")
    content = pickle.dumps(instances)
    assert len(content) < 1000  # the folder's name, not the tokens
    assert taken_rows(pickle.loads(content), [3, 1]) == taken_rows(instances, [3, 1])


def test_readable_with_pyarrow_pandas_and_datasets_alone(shards_dir, rows, tmp_path):
    paths = sorted(str(path) for path in (shards_dir / "seq32").glob("train-*.arrow"))
    assert [Path(path).name for path in paths] == [f"train-0000{number}-of-00003.arrow" for number in range(3)]
    expected = [
        {"input_ids": ids, "segment_a_length": length, "sentence_label": flag, "document": document}
        for ids, length, flag, document in rows[32, "train"]
    ]
    by_pyarrow = [row for path in paths for row in pa.ipc.open_file(path).read_all().to_pylist()]
    assert by_pyarrow == expected
    by_pandas = pandas.concat([pandas.read_feather(path) for path in paths])
    assert [ids.tolist() for ids in by_pandas["input_ids"]] == [row["input_ids"] for row in expected]
    assert by_pandas["document"].tolist() == [row["document"] for row in expected]
    by_datasets = datasets.load_dataset("arrow", data_files=paths, split="train", cache_dir=str(tmp_path / "cache"))
    assert by_datasets.to_list() == expected


def test_tokens_are_mapped_not_copied(shards_dir):
    instances = open_instances(shards_dir, max_seq_length=64, split="train")
    view = next(instances.iter_input_ids(10))
    assert not view.flags.owndata
    assert not view.flags.writeable


def test_large_vocabularies_take_int32(tmp_path):
    assert arrow_schema(65_536).field("input_ids").type.value_type == pa.uint16()
    assert arrow_schema(65_537).field("input_ids").type.value_type == pa.int32()
    columns = Columns(
        np.array([2, 70_000, 3, 5, 3], np.int32),
        np.array([0, 5], np.int32),
        np.array([3], np.uint16),
        np.array([False]),
        np.array([2**64 - 1], np.uint64),
    )
    write_columns(tmp_path / "large.arrow", columns, vocabulary_size=100_000)
    found = map_columns(tmp_path / "large.arrow")
    assert found.input_ids.tolist() == [2, 70_000, 3, 5, 3]
    assert found.documents.tolist() == [2**64 - 1]
    with pytest.raises(ValueError, match="input_ids is int32"):
        to_record_batch(columns, 1000)


def test_a_shard_appears_complete_or_not_at_all(tmp_path, rows, monkeypatch):
    """Killed after the last byte but before the rename: no file has a shard's name, and the next attempt succeeds."""
    columns = columns_of(rows[32, "train"])
    where = {"max_seq_length": 32, "split": "train", "number": 1, "num_shards": 3, "vocabulary_size": 200}

    def die(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "file_sha256", die)
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, columns, **where)
    assert [path.name for path in tmp_path.rglob("*.arrow*")] == ["train-00001-of-00003.arrow.partial"]
    monkeypatch.undo()
    shard, num_true_labels = write_shard(tmp_path, columns, **where)
    path = tmp_path / "seq32" / "train-00001-of-00003.arrow"
    assert list(tmp_path.rglob("*.arrow*")) == [path]
    assert (shard.file, shard.num_instances) == ("seq32/train-00001-of-00003.arrow", 70)
    assert (shard.num_tokens, shard.num_bytes) == (len(columns.input_ids), path.stat().st_size)
    assert shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert num_true_labels == sum(row[2] for row in rows[32, "train"])


def test_a_slice_is_written_as_its_rows_alone(tmp_path, rows):
    """A shard's bytes do not tell what block its rows were cut from."""
    written = rows[32, "train"]
    whole, alone = columns_of(written).slice(20, 50), columns_of(written[20:50])
    joined = concatenate((alone.slice(*part) for part in ((0, 7), (7, 30))), max_tokens=len(alone.input_ids))
    for name, columns in (("whole", whole), ("alone", alone), ("joined", joined)):
        write_columns(tmp_path / name, columns, vocabulary_size=200)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "alone").read_bytes() == (tmp_path / "joined").read_bytes()


def test_an_instance_set_sums_its_shards(shards_dir, rows):
    found = read_manifest(shards_dir).instance_set(max_seq_length=32, split="train")
    assert [shard.num_instances for shard in found.shards] == [24, 23, 23]
    assert found.num_instances == 70
    assert found.num_tokens == sum(len(row[0]) for row in rows[32, "train"])
    assert found.num_true_labels == sum(row[2] for row in rows[32, "train"])


def test_equal_shard_sizes_by_hand():
    assert equal_shard_sizes(7, 3) == [3, 2, 2]
    assert equal_shard_sizes(6, 3) == [3, 3]
    assert equal_shard_sizes(1, 65_536) == [1]


def test_concatenate_undoes_slice(rows):
    columns = columns_of(rows[64, "train"])
    joined = concatenate(
        (columns.slice(*part) for part in ((0, 13), (13, 13), (13, 40))), max_tokens=len(columns.input_ids) + 5
    )
    for name in ("input_ids", "offsets", "segment_a_lengths", "sentence_labels", "documents"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(columns, name))
        assert getattr(joined, name).dtype == getattr(columns, name).dtype


def test_too_many_tokens_for_a_shard_are_refused():
    with pytest.raises(ValueError, match="at most 2147483647"):
        offsets_of(np.full(33_000, 65_535, np.uint16))


def test_manifest_round_trip(shards_dir):
    manifest = read_manifest(shards_dir)
    assert manifest_from_json(manifest.to_json(), origin="here") == manifest
    assert manifest.instance_set(max_seq_length=32, split="heldout").num_instances == 9


def test_text_that_was_counted_comes_back(shards_dir):
    text = (
        TextRecord(32, "train", 9000, {"trimmed": 70, "last_sentence": 3, "single_sentence": 0}),
        TextRecord(128, "heldout", 5, {}),
    )
    manifest = replace(read_manifest(shards_dir), text=text)
    assert manifest_from_json(manifest.to_json(), origin="here") == manifest
    assert [found.num_left_out for found in manifest.text] == [73, 0]


def test_shards_of_version_2_are_read_as_they_are(shards_dir):
    """All but the manifest's version and its field `text` is the same; and written again it is the same text."""
    path = shards_dir / "manifest.json"
    plain = json.loads(path.read_text())
    before = taken_rows(open_instances(shards_dir, max_seq_length=32, split="train"), range(70))
    assert (plain["format_version"], plain.pop("text")) == (3, [])
    path.write_text(json.dumps({**plain, "format_version": 2}, indent=2, ensure_ascii=False) + "\n")
    assert taken_rows(open_instances(shards_dir, max_seq_length=32, split="train"), range(70)) == before
    assert verify(shards_dir) == []
    manifest = read_manifest(shards_dir)
    assert (manifest.format_version, manifest.text) == (2, ())
    assert manifest.to_json() == path.read_text()


def test_take_is_fast(tmp_path):
    """The target of 100,000 instances a second at length 128, in batches of 4,096; measured at over 500,000."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(100, 129, 40_000)
    tokens = int(lengths.sum())
    columns = Columns(
        rng.integers(5, 200, tokens).astype(np.uint16),
        offsets_of(lengths),
        np.full(40_000, 50, np.uint16),
        rng.random(40_000) < 0.5,
        rng.integers(0, 50, 40_000).astype(np.uint64),
    )
    write_folder(tmp_path / "speed", {(128, "train"): [([2, 5, 3, 5, 3], 3, False, 1)]})
    instances = open_instances(tmp_path / "speed", max_seq_length=128, split="train")
    instances.lengths, instances._shards = lengths.astype(np.uint16), [columns]
    instances._shard_starts = np.array([0, 40_000])
    fastest = 0.0
    for _ in range(5):
        indices = rng.integers(0, 40_000, 4096)
        start = time.perf_counter()
        instances.take(indices)
        fastest = max(fastest, 4096 / (time.perf_counter() - start))
    assert fastest > 100_000
