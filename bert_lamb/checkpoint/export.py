"""`bert-lamb export`: a checkpoint -> a folder that `transformers` loads, with tokenizer and model card."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import BertConfig, BertForPreTraining, BertTokenizer
from transformers.utils.logging import disable_progress_bar

from bert_lamb.checkpoint.export_card import export_card
from bert_lamb.checkpoint.export_check import check_export
from bert_lamb.checkpoint.folder.pretrained import VOCABULARY_ROWS
from bert_lamb.checkpoint.meta import META_FILE
from bert_lamb.checkpoint.onnx_file import require_onnx, write_onnx
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.errors import UserError
from bert_lamb.model.bert import bert_config
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.outputs.model_card import share_files
from bert_lamb.outputs.run_dir import CONFIG_FILE, OUTCOME_FILE, VOCABULARY_FILE, RunDir
from bert_lamb.outputs.staged import OutputKind, begin_again, check_purpose, is_complete, publish

ORIGIN_FILE = "bert_lamb_export.json"  # which checkpoint of which run
KIND = OutputKind("an export", ORIGIN_FILE, key="run_outcome")
FINE_TUNINGS = {"inputs": "squad", "files": "glue", "images": "vision"}  # marks of their runs -> commands
PREFIX = "bert."  # BertPretrainingModel holds transformers' model under this name


def export(*, run_dir: Path, checkpoint: str, output_dir: Path, if_exists: str, with_onnx: bool = False) -> None:
    """Write weights (fp32), configuration, tokenizer and a model card, then load the folder and compare its logits.

    The rows that pad the vocabulary for training are cut off, so that model and tokenizer agree.
    checkpoint: `latest` or a folder name under run_dir/checkpoints. with_onnx: model.onnx too. Raises UserError when
    there is none, when run_dir or the checkpoint is damaged, or when output_dir holds something else (see
    outputs/if_exists.py); all of that before an older export is replaced.
    """
    if with_onnx:
        require_onnx()
    run = read_run(run_dir, checkpoint)
    origin: dict[str, Any] = {"run_outcome": run.outcome, "checkpoint": run.source.directory.name}
    if with_onnx:
        origin["onnx"] = True
    model = to_transformers(run.source, run.config)
    if is_complete(output_dir, KIND, if_exists=if_exists):
        check_purpose(_read(output_dir / ORIGIN_FILE, json.loads), origin, output_dir, KIND)
        print(f"{output_dir} already holds {origin['checkpoint']}")
        return
    partial = begin_again(output_dir, KIND)
    disable_progress_bar()  # of the writing, which takes a second
    model.save_pretrained(partial)
    shutil.copyfile(run_dir / VOCABULARY_FILE, partial / "vocab.txt")
    tokenizer = BertTokenizer(
        vocab=str(partial / "vocab.txt"),
        do_lower_case=run.source.meta["vocabulary"]["is_lowercase"],
        model_max_length=run.config.max_position_embeddings,
    )
    tokenizer.save_pretrained(partial)
    (partial / "README.md").write_text(export_card(run.source, run.config, run_dir), encoding="utf-8")
    if with_onnx:
        write_onnx(partial, model)
    share_files(partial)
    check_export(partial, trained_weights(run.source), run.config)
    (partial / ORIGIN_FILE).write_text(json.dumps(origin, indent=1) + "\n")
    publish(output_dir)
    print(f"exported {origin['checkpoint']} to {output_dir}")


@dataclass(frozen=True)
class Run:
    """What an export takes from a run's folder."""

    source: Checkpoint
    config: BertConfig  # without the rows that pad the vocabulary
    outcome: dict[str, Any]


def read_run(run_dir: Path, checkpoint: str) -> Run:
    """Read and check everything that an export needs; UserError for a folder that is no run's, or a damaged one."""
    if not (run_dir / OUTCOME_FILE).is_file():
        is_checkpoint = (run_dir / META_FILE).is_file()
        raise UserError(
            found=f"no {OUTCOME_FILE} in {run_dir}" if run_dir.is_dir() else f"no folder {run_dir}",
            expected="the folder of a run, as `bert-lamb pretrain` leaves it",
            fix=f"set run_dir={run_dir.parent.parent} checkpoint={run_dir.name}" if is_checkpoint else "set run_dir",
        )
    outcome = _read(run_dir / OUTCOME_FILE, json.loads)
    fine_tuning = next((command for mark, command in FINE_TUNINGS.items() if mark in outcome), None)
    if fine_tuning is not None:
        raise UserError(
            found=f"a run of `bert-lamb {fine_tuning}` in {run_dir}",
            expected="a run of pretraining",
            fix=f"use {run_dir / 'model'} as it is: transformers loads it",
        )
    source = Checkpoint(RunDir(run_dir).checkpoint(checkpoint))
    source.check_bytes()
    sizes: Any = _read(run_dir / CONFIG_FILE, yaml.safe_load).get("model")
    vocabulary: Any = source.meta.get("vocabulary")
    meta_file = source.directory / META_FILE
    fields = {"size": int, "pad_id": int, "is_lowercase": bool, "sha256": str}
    is_sound = isinstance(vocabulary, dict) and all(type(vocabulary.get(key)) is kind for key, kind in fields.items())
    if not is_sound or type(source.meta.get("total_step")) is not int:
        raise UserError(
            found=f"{meta_file} without a sound vocabulary and total_step",
            expected=f"{', '.join(fields)} of the vocabulary and the number of steps",
            fix="use an earlier checkpoint",
        )
    file = run_dir / VOCABULARY_FILE
    if not file.is_file() or file_sha256(file) != vocabulary["sha256"]:
        raise UserError(
            found=f"another {file} than the run started with" if file.is_file() else f"no {file}",
            expected=f"the {vocabulary['size']:,} entries with sha256 {vocabulary['sha256'][:12]}...",
            fix="copy the vocab.txt of the shards there",
        )
    if not _is_model(sizes):
        raise UserError(
            found=f"model={sizes} in {run_dir / CONFIG_FILE}",
            expected="the sizes of the model that was trained",
            fix=f"restore the {CONFIG_FILE} that the run wrote",
        )
    plain_sizes = {**sizes, "vocab_size_multiple": 1}
    config = bert_config(vocab_size=vocabulary["size"], pad_token_id=vocabulary["pad_id"], **plain_sizes)
    return Run(source, config, outcome)


def _is_model(sizes: Any) -> bool:
    """Whether these are the arguments of `bert_config` that a run's configuration gives, each in its range."""
    counts = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "max_position_embeddings")
    shares = ("dropout", "init_std")
    return (
        isinstance(sizes, dict)
        and sizes.keys() == signature(bert_config).parameters.keys() - {"vocab_size", "pad_token_id"}
        and all(type(sizes[key]) is int and sizes[key] > 0 for key in counts)
        and all(type(sizes[key]) in (int, float) and 0 <= sizes[key] < 1 for key in shares)
        and sizes["hidden_size"] % sizes["num_heads"] == 0
    )


def _read(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """The mapping in a json or yaml file of the run."""
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(
            found=f"{file} that cannot be read ({' '.join(str(error).split())})",
            expected="what `bert-lamb pretrain` wrote there",
            fix="restore it",
        ) from error
    if not isinstance(content, dict):
        raise UserError(found=f"{file} with {type(content).__name__}", expected="a mapping", fix="restore it")
    return content


def trained_weights(source: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Name, as transformers has it, and value of every weight of the checkpoint."""
    return ((name.removeprefix(PREFIX), weight) for name, weight in source.weights())


def to_transformers(source: Checkpoint, config: BertConfig) -> BertForPreTraining:
    """The checkpoint's weights in transformers' model, vocabulary padding cut off."""
    weights = dict(trained_weights(source))
    for name, weight in weights.items():
        if name.endswith(VOCABULARY_ROWS):
            weights[name] = weight[: config.vocab_size].clone()
    model = BertForPreTraining._from_config(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys)
    for name in sorted(weights.keys() | (shapes.keys() - tied)):
        ours = tuple(weights[name].shape) if name in weights else None
        theirs = tuple(shapes[name]) if name in shapes else None
        if ours != theirs:
            raise UserError(
                found=f"{name} of size {ours or 'none'} in {source.directory}",
                expected=f"{theirs or 'none'}, by the model of the run's {CONFIG_FILE}",
                fix=f"restore the {CONFIG_FILE} that the run wrote, or use the version of bert_lamb that wrote both",
            )
        if not weights[name].isfinite().all():
            raise UserError(
                found=f"{name} with values that are not finite in {source.directory}",
                expected="numbers",
                fix="export an earlier checkpoint",
            )
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    exported: BertForPreTraining = model.to(torch.float32).eval()
    return exported
