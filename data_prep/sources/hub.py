"""Datasets of the Hugging Face hub, or a folder in its layout, streamed through `datasets`: nothing is cached."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from bert_lamb.errors import UserError
from data_prep.sources.columns import no_such_column, text_of
from data_prep.sources.source import Document, Source, Stretch


class HuggingFace:
    """Kind `huggingface`. A stretch is one of the files that the dataset is made of. Key: its number and the row."""

    suffixes = ()

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        with _hub_errors(source):
            num_files = _load(source).num_shards
        for number in range(num_files):
            yield Stretch(f"{number}", source.dataset, number, number + 1, 0, 0, is_whole=num_files == 1)

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        name = describe(source)
        with _hub_errors(source):
            dataset = _load(source)
            for row_number, row in enumerate(dataset.shard(num_shards=dataset.num_shards, index=stretch.start)):
                if source.text_column not in row:
                    raise no_such_column(source, sorted(row), name)
                text = text_of(row[source.text_column], source, f"{name}, file {stretch.key}, row {row_number}")
                yield Document(f"{stretch.key}#{row_number}", text)


def describe(source: Source) -> str:
    """The dataset as a user names it."""
    return " ".join(filter(None, (source.dataset, source.dataset_config, source.dataset_split)))


def _load(source: Source):  # type: ignore[no-untyped-def]
    import datasets

    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # our error says it
    return datasets.load_dataset(
        source.dataset, source.dataset_config or None, split=source.dataset_split, streaming=True
    )


@contextmanager
def _hub_errors(source: Source) -> Iterator[None]:
    import datasets

    try:
        yield
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            found=f"dataset {describe(source)} that cannot be loaded ({reason})",
            expected="a dataset of the Hugging Face hub or a local folder, and a network if it is not cached",
            fix=f"check sources.{source.name}.dataset, .dataset_config and .dataset_split, or fetch it and give a path",
        ) from error
