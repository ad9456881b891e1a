"""`import`: somebody else's checkpoint becomes a model folder."""

from dataclasses import dataclass

from omegaconf import MISSING

from bert_lamb.config.checks import IfExists


@dataclass
class ImportConfig:
    """`bert-lamb import`: a checkpoint of another program -> a folder that transformers loads."""

    source: str = MISSING  # a folder, a file of torch.save, or the prefix of a TensorFlow checkpoint
    output_dir: str = MISSING
    config: str | None = None  # json file with the sizes; null: config.json or bert_config.json beside the weights
    vocab: str | None = None  # vocab.txt; null: the tokenizer's files beside the weights
    is_lowercase: bool | None = None  # of a vocab.txt with nothing beside it; null: lower-case
    if_exists: IfExists = IfExists.refuse
