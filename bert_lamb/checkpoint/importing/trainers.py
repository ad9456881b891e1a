"""Checkpoints that other trainers of BERT write with torch.save -> weights under transformers' names.

NVIDIA: {"model": state dict, "optimizer": ..., ...} of DeepLearningExamples/PyTorch/LanguageModeling/BERT, where a
linear layer with its activation is called dense_act. DeepSpeed: {"module": state dict, ...} of bing_bert, with the
same names, or with those of its transformer kernel (DeepSpeedTransformerLayer), which holds query, key and value as
one matrix. Both put the name of a wrapper, "module.", before all others in some versions.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bert_lamb.checkpoint.folder.stored import Stored, list_tensors, read_torch_file
from bert_lamb.errors import UserError

STATE_KEYS = ("model", "module", "state_dict", "model_state_dict")  # the first that holds tensors, else the whole
WRAPPER = "module."
PRE_LN = re.compile(r"\.(PreAttentionLayerNorm|PostAttentionLayerNorm|FinalLayerNorm)\.")
KERNEL = {  # of a layer of DeepSpeed's transformer kernel, whose LayerNorm follows each residual
    "attn_ow": "attention.output.dense.weight",
    "attn_ob": "attention.output.dense.bias",
    "attn_nw": "attention.output.LayerNorm.weight",
    "attn_nb": "attention.output.LayerNorm.bias",
    "inter_w": "intermediate.dense.weight",
    "inter_b": "intermediate.dense.bias",
    "output_w": "output.dense.weight",
    "output_b": "output.dense.bias",
    "norm_w": "output.LayerNorm.weight",
    "norm_b": "output.LayerNorm.bias",
}
KERNEL_JOINED = {"attn_qkvw": "weight", "attn_qkvb": "bias"}  # query, key and value below each other
JOINED_PARTS = ("query", "key", "value")


def list_trainer_file(file: Path) -> list[Stored]:
    """Every weight of a trainer's checkpoint, by transformers' names; UserError for what is none, or is not BERT."""
    state = _state_of(read_torch_file(file), file)
    found = list_tensors({str(key).removeprefix(WRAPPER): value for key, value in state.items()}, file)
    pre_ln = next((one.key for one in found if PRE_LN.search(one.key)), None)
    if pre_ln is not None:
        raise UserError(
            found=f"{pre_ln} in {file}, of a BERT that normalizes before attention and feed-forward (pre-LN)",
            expected="BERT as published, with LayerNorm after each residual; no weights are right for both",
            fix="use a checkpoint of DeepSpeed's nvidia/modeling.py rather than modelingpreln.py",
        )
    empty = next((one.key for one in found if 0 in one.shape), None)
    if empty is not None:
        raise refusal_of_stage_3(f"{empty} without a single number in {file}")
    return [ours for one in found for ours in _by_transformers_name(one)]


def refusal_of_stage_3(found: str) -> UserError:
    """Weights that ZeRO has cut into the files of many ranks."""
    return UserError(
        found=f"{found}, as stage 3 of ZeRO leaves it",
        expected="whole weights",
        fix="join them with the zero_to_fp32.py that DeepSpeed put into the checkpoint's folder, and set source to the "
        "pytorch_model.bin that it writes",
    )


def _state_of(content: Any, file: Path) -> dict[Any, Any]:
    """The state dict in what a trainer saved."""
    if isinstance(content, dict):
        for state in (*(content.get(key) for key in STATE_KEYS), content):
            if isinstance(state, dict) and any(isinstance(value, Tensor) for value in state.values()):
                return state
    keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
    raise UserError(
        found=f"{file} with {keys or 'nothing'} and no weights",
        expected=f"a state dict, by itself or under one of {', '.join(STATE_KEYS)}",
        fix="set source to the file with the model's weights",
    )


def _by_transformers_name(one: Stored) -> Iterator[Stored]:
    layer, _, last = one.key.rpartition(".")
    if last in KERNEL:
        yield replace(one, key=f"{layer}.{KERNEL[last]}")
    elif last in KERNEL_JOINED:
        num_rows = one.shape[0] // len(JOINED_PARTS)
        for i, part in enumerate(JOINED_PARTS):
            yield replace(
                one,
                key=f"{layer}.attention.self.{part}.{KERNEL_JOINED[last]}",
                shape=(num_rows, *one.shape[1:]),
                read=_rows(one, i * num_rows, (i + 1) * num_rows),
            )
    else:
        yield replace(one, key=one.key.replace(".dense_act.", ".dense."))


def _rows(one: Stored, begin: int, end: int) -> Callable[[], Tensor]:
    return lambda: one.read()[begin:end]
