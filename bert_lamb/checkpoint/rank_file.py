"""One rank's file: fp32 fragments in one block of memory -> safetensors, with its sha256.

Written here and not by the library, because the hash must be of what was in memory, not of what the disk gives back,
and because the library would need a second copy to hand its bytes over before they are in a file.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from bert_lamb.outputs.atomic import flush_to_disk

FP32_BYTES = 4
CHUNK_BYTES = 1 << 24
ALIGNMENT = 8  # bytes; of the header


def write_rank_file(path: Path, sizes: Mapping[str, int], content: memoryview) -> tuple[int, str]:
    """Write fragments and flush them to the disk; returns (bytes, sha256 in hexadecimal).

    sizes: key -> elements of a fragment, in the order in which content, the bytes of all, has them. Hashing and
    writing leave the interpreter to other threads.
    """
    entries, end = {}, 0
    for key, numel in sizes.items():
        begin, end = end, end + FP32_BYTES * numel
        entries[key] = {"dtype": "F32", "shape": [numel], "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    digest, num_bytes = hashlib.sha256(), 0
    with path.open("wb") as stream:
        for part in (memoryview(len(header).to_bytes(8, "little") + header), *_chunks(content)):
            num_bytes += stream.write(part)
            digest.update(part)
    flush_to_disk(path)
    return num_bytes, digest.hexdigest()


def _chunks(content: memoryview) -> list[memoryview]:
    return [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
