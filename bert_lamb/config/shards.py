"""`verify` and `inspect`: looking at prepared shards."""

from dataclasses import dataclass

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, check_if_positive


@dataclass
class VerifyConfig:
    """`bert-lamb verify`: check every hash, count and invariant of prepared shards."""

    shards_dir: str = MISSING


@dataclass
class InspectConfig:
    """`bert-lamb inspect`: show instances of prepared shards as text."""

    shards_dir: str = MISSING
    max_seq_length: int | None = None  # tokens; None: the shortest that the folder has
    split: str | None = None  # train or heldout; None: train
    shard: str | None = None  # a file of the folder, instead of max_seq_length and split; `first` then counts its rows
    first: int = 0  # number of the first instance shown
    count: int = 3  # instances shown, at most
    pieces: bool = False  # every piece with its id, instead of words


def check_inspect(config: InspectConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(config.first >= 0, "first", config.first, "0 or more")
    check_if_positive(complaints, "", config, "count", "max_seq_length")
    is_set_chosen = config.max_seq_length is not None or config.split is not None
    complaints.unless(
        config.shard is None or not is_set_chosen, "shard", config.shard, "no max_seq_length and no split beside it"
    )
    return complaints
