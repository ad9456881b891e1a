"""Data sets by their Hugging Face name: rows of `datasets`, streamed; the only file of this room that imports it."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from bert_lamb.errors import UserError


def hub_rows(name: str, subset: str | None, split: str, *, option: str, instead: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a split, in order, from the hub, its cache on this machine, or a folder with Parquet or json files.

    option: what names the data set, with its value, for messages; instead: what else may be set. Raises UserError, in
    one line, for whatever `datasets` cannot do: no network, no such name, no such split.
    """
    import datasets

    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # our error says it
    try:
        yield from datasets.load_dataset(name, subset, split=split, streaming=True)
    except UserError:
        raise
    except Exception as error:  # of any library below it
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            found=f"{option} whose split {split} cannot be read ({said})",
            expected="a data set that Hugging Face's hub or its cache on this machine has",
            fix=f"set {option.partition('=')[0]}, connect the machine (HF_HUB_OFFLINE unset), or {instead}",
        ) from error


def hash_of(examples: Sequence[Any]) -> str:
    """sha256 of the dataclasses that were read, which stands for the bytes of a file."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(astuple(example)).encode())
    return digest.hexdigest()
