"""TensorFlow's checkpoints: every byte of a real one read right, or refused.

Truth: the values that TensorFlow 2.21 was given to write (google/make_checkpoint.py), the published values of CRC-32C.
"""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from bert_lamb.checkpoint.importing.crc32c import OF_BYTE, crc32c, masked_crc32c
from bert_lamb.checkpoint.importing.tensor_bundle import _handle, list_bundle
from bert_lamb.errors import UserError
from tests.checkpoint.importing.google.make_checkpoint import values

GOOGLE = Path(__file__).parent / "google"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 1000\n"


@pytest.mark.parametrize(
    ("content", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),  # the check value of the catalogue of CRCs
        (bytes(32), 0x8A9136AA),  # RFC 3720, appendix B.4, here and below
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_checksums_are_the_published_ones(content, crc):
    assert crc32c(content) == crc


@pytest.mark.parametrize("num_bytes", [8191, 8192, 8193, 16_383, 70_001, 300_000])
def test_lanes_give_the_checksum_of_one_byte_at_a_time(num_bytes):
    content = np.random.Generator(np.random.PCG64(num_bytes)).bytes(num_bytes)
    register = 0xFFFFFFFF
    for octet in content:
        register = int(OF_BYTE[(register ^ octet) & 0xFF]) ^ (register >> 8)
    assert crc32c(content) == register ^ 0xFFFFFFFF


@pytest.fixture
def prefix(tmp_path) -> Path:
    for name in ("bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"):
        shutil.copy(GOOGLE / name, tmp_path / name)
    return tmp_path / "bert_model.ckpt"


def index_of(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def data_of(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.data-00000-of-00001")


def test_every_tensor_is_the_one_that_was_written(prefix):
    found = {one.key: one for one in list_bundle(prefix)}
    wanted = values()
    assert {key for key in found if key.rpartition("/")[2] not in ("adam_m", "adam_v")} == {*wanted, "global_step"}
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        assert found[name].dtype == "F32"
        assert np.array_equal(found[name].read().numpy(), value)


def read_all(prefix: Path) -> dict[str, bytes]:
    return {one.key: one.read().numpy().tobytes() for one in list_bundle(prefix) if one.dtype == "F32"}


def test_no_changed_byte_of_the_index_is_overlooked(prefix):
    """Each is refused, but for those of the footer that only say where nothing is; every byte was tried once."""
    sound, whole = index_of(prefix).read_bytes(), read_all(prefix)
    harmless = 0
    for position in [*range(0, len(sound) - 100, 29), *range(len(sound) - 100, len(sound))]:
        changed = bytearray(sound)
        changed[position] ^= 0xFF
        index_of(prefix).write_bytes(changed)
        try:
            assert read_all(prefix) == whole
            harmless += 1
        except UserError as refusal:
            assert "\n" not in str(refusal)  # noqa: PT017
    assert harmless < 48


def test_no_index_cut_short_is_read(prefix):
    sound = index_of(prefix).read_bytes()
    for length in [*range(0, len(sound), 97), len(sound) - 1]:
        index_of(prefix).write_bytes(sound[:length])
        with pytest.raises(UserError, match=r"bert_model\.ckpt\.index \(.* bytes\) that is (empty|damaged)"):
            list_bundle(prefix)


def packed(prefix: Path) -> None:
    """The index block says that it is packed with snappy, and has the checksum of that."""
    content = bytearray(index_of(prefix).read_bytes())
    _, position = _handle(content[-48:], 0)
    (offset, num_bytes), _ = _handle(content[-48:], position)
    content[offset + num_bytes] = 1
    checksum = masked_crc32c(bytes(content[offset : offset + num_bytes + 1]))
    content[offset + num_bytes + 1 : offset + num_bytes + 5] = struct.pack("<I", checksum)
    index_of(prefix).write_bytes(content)


def of_another_tensor(prefix: Path) -> None:
    content = bytearray(data_of(prefix).read_bytes())
    content[40] ^= 1
    data_of(prefix).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: index_of(p).unlink(), r"no file .*\.index; .* fix: set source to the checkpoint's prefix"),
        (lambda p: index_of(p).write_bytes(POINTER), r"that is a git-lfs pointer.*git lfs pull"),
        (lambda p: index_of(p).write_bytes(b"<html>" * 20), "that is markup such as a web page"),
        (lambda p: index_of(p).write_bytes(bytes(200)), "no table's magic number at its end"),
        (packed, "a block packed with snappy"),
        (lambda p: data_of(p).unlink(), r"no file .*\.data-00000-of-00001"),
        (
            lambda p: data_of(p).write_bytes(b"abc"),
            r"\.data-00000-of-00001 with 3 bytes; expected .* as the index says",
        ),
        (lambda p: data_of(p).write_bytes(POINTER), r"-of-00001 that is a git-lfs pointer; .*git lfs pull"),
        (of_another_tensor, r"bert/embeddings/LayerNorm/beta in .* with another checksum than the index says"),
    ],
)
def test_what_is_wrong_with_the_files_is_refused(prefix, spoil, message):
    spoil(prefix)
    with pytest.raises(UserError, match=message) as refusal:
        read_all(prefix)
    assert "\n" not in str(refusal.value)


def test_a_data_file_cut_short_is_refused_whatever_is_missing(prefix):
    """The last tensor is the count of steps, which nobody takes over: a file without it was not fetched to its end."""
    sound = data_of(prefix).read_bytes()
    for num_bytes in (1, 9):
        data_of(prefix).write_bytes(sound[:-num_bytes])
        with pytest.raises(UserError, match=r"with 10,(803|795) bytes; expected global_step in bytes 10,796 to 10,804"):
            list_bundle(prefix)
    data_of(prefix).write_bytes(sound + b"more")
    list_bundle(prefix)


def test_a_checkpoint_of_objects_is_refused_by_name():
    with pytest.raises(UserError, match=r"objects\.ckpt\.index of tf\.train\.Checkpoint"):
        list_bundle(GOOGLE / "objects.ckpt")
