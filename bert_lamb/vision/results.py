"""What a finished run leaves in its run directory, beside what every run has (outputs/run_dir.py).

model/         the network for transformers, with the names of its classes; of a ResNet
vision.json    the score on the test images; written last, so it stands for a complete run
"""

import json
import shutil
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import PARTIAL_SUFFIX, write_atomically
from bert_lamb.outputs.read_back import read_object
from bert_lamb.outputs.run_dir import RunKind

MODEL_NAME, RESULT_NAME = "model", "vision.json"
KIND = RunKind("a run of vision", mark="images", results=frozenset({MODEL_NAME, RESULT_NAME}))


def save_model(run_dir: Path, network: nn.Module, classes: list[str]) -> None:
    """Write model/, which appears whole; nothing for a network that transformers does not have."""
    if not isinstance(network, PreTrainedModel):
        return
    network.config.id2label = dict(enumerate(classes))
    network.config.label2id = {name: label for label, name in enumerate(classes)}
    partial, folder = run_dir / (MODEL_NAME + PARTIAL_SUFFIX), run_dir / MODEL_NAME
    shutil.rmtree(partial, ignore_errors=True)
    network.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """vision.json of a finished run; None where there is none. Raises UserError for one that is damaged."""
    file = run_dir / RESULT_NAME
    if not file.is_file():
        return None
    expected, fix = "what `bert-lamb vision` wrote there", "set run_dir, or if_exists=restart"
    content = read_object(file, expected=expected, fix=fix)
    if not {"accuracy", "loss", "summary"} <= content.keys():
        raise UserError(found=f"{file} without a score", expected=expected, fix=fix)
    return content


def write_result(run_dir: Path, content: dict[str, Any]) -> None:
    write_atomically(run_dir / RESULT_NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
