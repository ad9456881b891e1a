"""model.onnx beside an export's weights, for runtimes that do without PyTorch; the extra `bert-lamb[onnx]`."""

import importlib.util
from pathlib import Path

import torch
from torch.export import Dim
from transformers import BertForPreTraining

from bert_lamb.checkpoint.export_check import TOLERANCE, random_batch
from bert_lamb.errors import UserError

NAME = "model.onnx"
OUTPUTS = ["prediction_logits", "seq_relationship_logits"]
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Raises UserError where a library of the extra is missing."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            found=f"onnx=true without {', '.join(missing)}",
            expected="the extra onnx",
            fix="pip install 'bert-lamb[onnx]'",
        )


def write_onnx(folder: Path, model: BertForPreTraining) -> None:
    """Write folder/model.onnx, whose batch and length are free, and compare its logits with the model's.

    Inputs: input_ids, attention_mask, token_type_ids, [batch, length] int64 each. Raises UserError where it computes
    something else in onnxruntime.
    """
    from onnxruntime import InferenceSession

    batch = {name: random_batch(model.config)[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    free = {0: Dim("batch"), 1: Dim("length")}
    torch.onnx.export(
        model,
        (),
        folder / NAME,
        kwargs=batch,
        input_names=list(batch),
        output_names=OUTPUTS,
        dynamic_shapes=dict.fromkeys(batch, free),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    # Other sizes than those of the conversion, and padding.
    other = {name: torch.cat([ids, ids[:1]])[:, :-1] for name, ids in batch.items()}
    other["attention_mask"][0, -3:] = 0
    found = InferenceSession(folder / NAME).run(OUTPUTS, {name: ids.numpy() for name, ids in other.items()})
    with torch.no_grad():
        wanted = [model(**other)[name] for name in OUTPUTS]
    for name, ours, theirs in zip(OUTPUTS, wanted, found, strict=True):
        difference, limit = float((ours - torch.from_numpy(theirs)).abs().max()), TOLERANCE * float(ours.abs().max())
        if not difference <= limit:
            raise UserError(
                found=f"{name} of {NAME} that differ from the model's by {difference:.2g}",
                expected=f"at most {limit:.2g}, for random tokens",
                fix="export without onnx=true and report this, with the versions of onnx, onnxscript and onnxruntime",
            )
