"""A small folder of shards, made from rows that the tests know."""

from pathlib import Path

import pytest
from known_shards import Row, random_rows, write_folder


@pytest.fixture(scope="session")
def rows() -> dict[tuple[int, str], list[Row]]:
    return {
        (32, "train"): random_rows(70, max_seq_length=32, documents=range(50), seed=1),
        (32, "heldout"): random_rows(9, max_seq_length=32, documents=range(50, 60), seed=2),
        (64, "train"): random_rows(40, max_seq_length=64, documents=range(50), seed=3),
    }


@pytest.fixture
def shards_dir(tmp_path: Path, rows: dict[tuple[int, str], list[Row]]) -> Path:
    """Three shards of 24, 23 and 23 train instances of length 32, one of held-out ones, two of length 64."""
    write_folder(tmp_path / "shards", rows)
    return tmp_path / "shards"
