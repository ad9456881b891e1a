"""The sha256 of a file, the one way in which bytes are told apart."""

import hashlib
from collections.abc import Callable, Generator
from pathlib import Path

CHUNK_BYTES = 1 << 22


def hash_in_chunks(path: Path) -> Generator[int, None, str]:
    """Read a file, yielding the number of bytes of each chunk; returns its sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            yield len(chunk)
    return digest.hexdigest()


def file_sha256(path: Path, *, on_bytes: Callable[[int], None] = lambda num_bytes: None) -> str:
    """sha256 of a file's bytes, in hexadecimal. on_bytes: called with the number of bytes of each chunk."""
    chunks = hash_in_chunks(path)
    while True:
        try:
            on_bytes(next(chunks))
        except StopIteration as end:
            return str(end.value)
