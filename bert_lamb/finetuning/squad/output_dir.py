"""The output folder of `bert-lamb squad`: who may write there, and what a finished one says."""

import json
import platform
import shutil
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from bert_lamb import __version__
from bert_lamb.config.checks import IfExists
from bert_lamb.config.squad import InitialWeights, SquadConfig
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.files import read_json
from bert_lamb.finetuning.squad.model import input_files
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.hashing import file_sha256

CONFIG_NAME = "squad_config.json"
TRAIN_LOG_NAME = "train_log.jsonl"
MODEL_NAME = "model"
NBEST_NAME = "nbest_predictions.json"
PREDICTIONS_NAME = "predictions.json"
SCORES_NAME = "scores.json"
OUTPUT_NAMES = {CONFIG_NAME, TRAIN_LOG_NAME, MODEL_NAME, NBEST_NAME, PREDICTIONS_NAME, SCORES_NAME}
TEMPORARY_SUFFIX = ".partial"  # of a file that `write_atomically` did not finish


def admit_output_dir(output_dir: Path, config: SquadConfig, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Refuse an `output_dir` that `config.if_exists` does not allow to use; return the scores if it is finished."""
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(found=f"a file at {output_dir}", expected="a folder or nothing", fix="set output_dir")
    if not output_dir.is_dir() or not any(output_dir.iterdir()):
        return None
    if config.if_exists is IfExists.refuse:
        raise UserError(
            found=f"{output_dir} with files in it",
            expected="an empty or new folder",
            fix="set output_dir, or if_exists=resume (keep a finished run) or restart (delete it)",
        )
    check_if_ours(output_dir)
    for name in (config.model_dir, config.train_file, config.eval_file):
        if name is not None and Path(name).resolve().is_relative_to(output_dir.resolve()):
            raise UserError(
                found=f"{name} inside output_dir={output_dir}",
                expected="models and questions elsewhere, since what was in output_dir is deleted",
                fix="set output_dir",
            )
    if config.if_exists is IfExists.resume:
        check_if_same_config(output_dir, config)
        if (output_dir / SCORES_NAME).is_file():
            return read_finished(output_dir, inputs)
    return None


def start_output_dir(output_dir: Path, config: SquadConfig) -> None:
    """Empty an admitted `output_dir` and mark it as ours; the old mark goes last, so that a kill leaves it ours."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for entry in sorted(output_dir.iterdir(), key=lambda entry: entry.name == CONFIG_NAME):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        write_json(output_dir / CONFIG_NAME, plain_config(config))
    except OSError as error:
        raise UserError(
            found=f"{output_dir} that cannot be written ({error.strerror})",
            expected="a folder of yours, with space",
            fix="set output_dir",
        ) from error


def check_if_ours(output_dir: Path) -> None:
    """Refuse to delete from a folder that `bert-lamb squad` did not make."""
    names = {entry.name.removesuffix(TEMPORARY_SUFFIX) for entry in output_dir.iterdir()}
    if not (output_dir / CONFIG_NAME).is_file() or not names <= OUTPUT_NAMES:
        stranger = min(names - OUTPUT_NAMES, default=f"no {CONFIG_NAME}")
        raise UserError(
            found=f"{output_dir} that is no output of `bert-lamb squad` ({stranger})",
            expected="such an output, or an empty or new folder",
            fix="set output_dir",
        )


def check_if_same_config(output_dir: Path, config: SquadConfig) -> None:
    """Refuse to continue a run that was started with another configuration."""
    then, now = _read_own(output_dir / CONFIG_NAME), plain_config(config)
    changed = sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    if changed:
        was, is_ = (", ".join(f"{key}={one.get(key)}" for key in changed) for one in (then, now))
        raise UserError(found=f"{output_dir} made with {was}", expected=is_, fix="set output_dir, or if_exists=restart")


def read_finished(output_dir: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """The scores of a finished run, which must have read the same bytes."""
    finished = _read_own(output_dir / SCORES_NAME)
    then = finished.get("inputs")
    changed = sorted(name for name in inputs if not isinstance(then, dict) or then.get(name) != inputs[name])
    if changed:
        raise UserError(
            found=f"{output_dir} made from another {changed[0]}",
            expected="the same file as then",
            fix="set output_dir, or if_exists=restart",
        )
    return finished


def _read_own(file: Path) -> dict[str, Any]:
    fix = "set output_dir, or if_exists=restart"
    content = read_json(file, expected="what `bert-lamb squad` wrote there", fix=fix)
    if not isinstance(content, dict):
        raise UserError(found=f"{file} with {type(content).__name__}", expected="a json object", fix=fix)
    return content


def describe_inputs(config: SquadConfig) -> dict[str, dict[str, str]]:
    """Name -> path and sha256 of every file that the scores depend on."""
    is_pretrained = config.initial_weights is InitialWeights.pretrained
    of_model = input_files(Path(config.model_dir), is_pretrained=is_pretrained)
    files = {"eval_file": Path(config.eval_file)} | {f"model/{name}": file for name, file in of_model.items()}
    if config.train_file is not None:
        files["train_file"] = Path(config.train_file)
    return {name: {"path": str(file), "sha256": file_sha256(file)} for name, file in files.items()}


def plain_config(config: SquadConfig) -> dict[str, Any]:
    """The configuration as json; without if_exists, which says nothing about the result."""
    values = {name: value.value if isinstance(value, Enum) else value for name, value in asdict(config).items()}
    del values["if_exists"]
    return values


def versions() -> dict[str, str]:
    return {
        "bert_lamb": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
    }


def write_json(file: Path, content: Any) -> None:
    write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
