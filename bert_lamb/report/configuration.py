"""Beside the first stop: config.yaml and the command of a run -> what to call it, and how runs differ."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from bert_lamb.errors import UserError
from bert_lamb.outputs.plain import differing_keys, flatten
from bert_lamb.outputs.read_back import NOT_AS_WRITTEN, read_text

Config = dict[str, Any]

SIZES = {  # layers, width -> the name that Devlin et al. 2019 and Turc et al. 2019 (arXiv 1908.08962) gave them
    (24, 1024): "BERT-Large",
    (12, 768): "BERT-Base",
    (8, 512): "BERT-Medium",
    (4, 512): "BERT-Small",
    (4, 256): "BERT-Mini",
    (2, 128): "BERT-Tiny",
}
OPTIMIZERS = {"lamb": "LAMB", "lars": "LARS", "adamw": "AdamW", "adam": "Adam", "adagrad": "Adagrad"}
NETWORKS = {"resnet": "ResNet", "lenet": "LeNet"}
PRESETS = ("recipe", "fine_tuning")  # words of a command that name a file of values
# What says where and how a run is kept, and nothing of what it is.
OF_NO_MATTER = ("run_dir", "if_exists", "tracker", "logging", "checkpoint")
ABSENT = "absent"
MAX_KEYS_OF_A_LABEL, MAX_LABEL = 3, 48  # keys, characters


def read_config(file: Path, *, expected: str, fix: str) -> tuple[str, Config]:
    """The text of a config.yaml and its tree; UserError for a file that holds none."""
    text = read_text(file, expected=expected, fix=fix)
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, *NOT_AS_WRITTEN) as error:
        reason = " ".join(str(error).split())
        raise UserError(found=f"{file} that cannot be read ({reason})", expected=expected, fix=fix) from error
    if not isinstance(tree, dict):
        raise UserError(found=f"{file} with {type(tree).__name__}", expected=f"{expected}: a mapping", fix=fix)
    return text, tree


def title_of(config: Config, command: str, batches: Iterable[int]) -> str:
    """ "demo: BERT-Tiny, LAMB, batch 32 and 8"; without what is not known, "" where that is all.

    command: as versions.json has it. batches: the global batch of each phase, in sequences.
    """
    preset = next((word.split("=", 1)[1] for word in command.split() if word.split("=", 1)[0] in PRESETS), "")
    parts = [name for name in (model_name(config), optimizer_name(config)) if name]
    sizes = list(dict.fromkeys(f"{batch:,}" for batch in batches))
    if parts and sizes:
        parts.append(f"batch {' and '.join(sizes)}")
    return f"{preset}: {', '.join(parts)}" if preset and parts else ", ".join(parts)


def model_name(config: Config) -> str:
    model, images = mapping(config, "model"), mapping(config, "image_model")
    sizes = (model.get("num_layers"), model.get("hidden_size"))
    if None not in sizes:
        return SIZES.get(sizes, f"BERT of {sizes[0]} layers and width {sizes[1]}")  # type: ignore[arg-type]
    if "name" in images:
        return NETWORKS.get(str(images["name"]), str(images["name"]))
    return f"fine-tuning of {Path(config['model_dir']).name}" if isinstance(config.get("model_dir"), str) else ""


def optimizer_name(config: Config) -> str:
    name = mapping(config, "optimizer").get("name")
    return OPTIMIZERS.get(str(name), str(name)) if name else ""


def planned_steps(config: Config) -> dict[str, int | None]:
    """Steps of each phase that a pretraining is to have, None where the file does not say; empty for other runs."""
    phases = {str(name): phase for name, phase in mapping(config, "phases").items() if isinstance(phase, dict)}
    steps = {name: phase.get("total_steps") for name, phase in phases.items()}
    return {name: number if type(number) is int else None for name, number in steps.items()}


def mapping(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping below a key; an empty one where there is none."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def differences(configs: Mapping[str, Config]) -> dict[str, list[str]]:
    """Dotted keys in which runs differ -> each run's value as text, ABSENT where it has none. configs: by folder."""
    trees = [{key: value for key, value in config.items() if key not in OF_NO_MATTER} for config in configs.values()]
    keys = sorted({key for tree in trees[1:] for key in differing_keys(trees[0], tree)})
    flat = [flatten(tree) for tree in trees]
    return {key: [as_word(one[key]) if key in one else ABSENT for one in flat] for key in keys}


def as_word(value: Any) -> str:
    """A value as the command line has it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"[{','.join(map(as_word, value))}]" if isinstance(value, list) else str(value)


def labels_of(folders: list[str], different: Mapping[str, list[str]]) -> list[str]:
    """What a legend calls each run: in what it differs, or its folder where that is too much or nothing."""
    if 0 < len(different) <= MAX_KEYS_OF_A_LABEL:
        labels = [
            ", ".join(f"{short_key(key, different)}={values[i]}" for key, values in different.items())
            for i in range(len(folders))
        ]
        if len(set(labels)) == len(labels) and max(map(len, labels)) <= MAX_LABEL:
            return labels
    return folders


def short_key(key: str, keys: Iterable[str]) -> str:
    """The last part of a dotted key, "optimizer" of optimizer.name; all of it where another ends alike."""

    def last(dotted: str) -> str:
        return dotted.removesuffix(".name").rsplit(".", 1)[-1]

    return key if sum(last(one) == last(key) for one in keys) > 1 else last(key)
