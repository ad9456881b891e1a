"""Names and shapes of the model's parameters, in the groups of an optimizer; no memory yet."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from kit import CHECKOUT

from bert_lamb.optim import parameter_groups
from lamb_step.fixed_point import WEIGHT_DECAY


@dataclass(frozen=True)
class Group:
    """A param group's parameters: names and shapes, in order. first: number of its first parameter in the model."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    weight_decay: float
    adapt: bool
    first: int

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(shape.numel() for shape in self.shapes)

    @property
    def numel(self) -> int:
        return sum(self.sizes)


def groups_of(model: str) -> list[Group]:
    """The groups of a model of conf/model, or of a JSON file with a list of shapes.

    Tensors of one dimension in such a file are taken for biases, which are neither decayed nor adapted.
    """
    if model.endswith(".json"):
        shapes = json.loads(Path(model).read_text())
        named = [(f"{i}.{'bias' if len(shape) == 1 else 'weight'}", _on_meta(shape)) for i, shape in enumerate(shapes)]
    else:
        named = _parameters_of_bert(model)
    groups: list[Group] = []
    for group in parameter_groups(named, weight_decay=WEIGHT_DECAY):
        names, parameters = zip(*group["params"], strict=True)
        first = sum(len(other.names) for other in groups)
        shapes = tuple(parameter.shape for parameter in parameters)
        groups.append(Group(names, shapes, group["weight_decay"], group["adapt"], first))
    return groups


def _on_meta(shape: Sequence[int]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.empty(*shape, device="meta"))


def _parameters_of_bert(model: str) -> list[tuple[str, torch.nn.Parameter]]:
    import yaml

    from bert_lamb.model.bert import BertPretrainingModel, bert_config

    path = CHECKOUT / "conf" / "model" / f"{model}.yaml"
    if not path.is_file():
        sys.exit(f"found --model {model}; expected a name of conf/model, or a .json file with a list of shapes")
    sizes = yaml.safe_load(path.read_text())
    # The vocabulary of the paper, padded to 30,528; the other arguments do not affect the shapes.
    config = bert_config(
        **sizes,
        vocab_size=30_522,
        vocab_size_multiple=8,
        dropout=0.1,
        max_position_embeddings=512,
        init_std=0.02,
        pad_token_id=0,
    )
    with torch.device("meta"):
        return list(BertPretrainingModel(config, seed=0).named_parameters())
