"""GLUE from Hugging Face: rows of `datasets`, streamed; the only file that imports it."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.finetuning.glue.examples import Example
from bert_lamb.finetuning.glue.tasks import GlueTask


def hub_rows(dataset: str, task: GlueTask, split: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a split, in order. dataset: glue, nyu-mll/glue, or with the task behind it (glue/mrpc).

    Raises UserError, in one line, for whatever `datasets` cannot do: no network, no such name, no such split.
    """
    import datasets

    name = dataset.removesuffix(f"/{task.name}")
    try:
        rows = datasets.load_dataset(name, task.name, split=split.replace("dev", "validation"), streaming=True)
        yield from rows
    except UserError:
        raise
    except Exception as error:  # of any library below it
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            found=f"dataset={dataset} whose split {split} cannot be read ({said})",
            expected="a data set that Hugging Face's hub or its cache on this machine has",
            fix="set dataset, connect the machine (HF_HUB_OFFLINE unset), or set data_dir to a folder with the files",
        ) from error


def hash_of(examples: Sequence[Example]) -> str:
    """sha256 of what was read, which stands for the bytes of a file."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(astuple(example)).encode())
    return digest.hexdigest()
