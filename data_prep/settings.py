"""The settings of a preparation, as plain values: all that its bytes depend on except the text, and the spread."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.sources import Source


@dataclass(frozen=True)
class Cleaning:
    """Which documents, and what of them, are kept; bert_lamb.config.corpus says what each field means."""

    min_characters: int = 50
    min_words: int = 0
    drop_stubs: bool = False
    drop_boilerplate: bool = False
    unicode_normalization: str = "none"
    duplicates: str = "keep"
    near_duplicate_threshold: float = 0.8


@dataclass(frozen=True)
class Settings:
    """The fields of bert_lamb.config.corpus.PrepareConfig that the bytes depend on."""

    sources: tuple[Source, ...]
    vocabulary_file: Path | None
    vocabulary_train_size: int
    is_lowercase: bool
    max_seq_lengths: tuple[int, ...]
    sentence_task: str
    short_seq_prob: float
    random_next_prob: float
    heldout_proportion: float
    cleaning: Cleaning
    group_tokens: int
    instances_per_shard: int
    seed: int

    def to_config(self) -> dict[str, Any]:
        """Plain values for the manifest, the same for the same settings."""
        config = asdict(self)
        config["sources"] = {
            source.name: {name: value for name, value in asdict(source).items() if name != "name"}
            for source in self.sources
        }
        vocabulary_file, train_size = config.pop("vocabulary_file"), config.pop("vocabulary_train_size")
        config["vocabulary"] = {"file": str(vocabulary_file)} if vocabulary_file else {"train_size": train_size}
        config["max_seq_lengths"] = sorted(set(self.max_seq_lengths))
        return config


@dataclass(frozen=True)
class Spread:
    """How the work is cut and spread; it changes no byte of the output."""

    partition_bytes: int
    num_workers: int | None  # processes; None: one for each core
    share: str | None = None  # "INDEX/COUNT" of the partitions, to be merged later; None: all of them, and merge
