"""What a trained model answers to every row, computed by all ranks together."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bert_lamb.engine.agreement import of_all_ranks, together
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.finetuning.tokens import TokenRow, lay_out
from bert_lamb.progress import Progress
from bert_lamb.train.run import leave_stopped
from bert_lamb.train.stop import StopFlag

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def predict_rows(
    model: nn.Module,
    rows: Sequence[TokenRow],
    *,
    micro_batch_size: int,
    precision: str,
    process: Process,
    stop: StopFlag | None = None,
    name: str,
    is_by_token: bool,
) -> list[NDArray[np.float32]]:
    """The model's output for each row, in the order of `rows`, on every rank.

    model: on any device, with fp32 weights. is_by_token: it gives an output for each token, [T, ...] of a row; else one
    for each row. precision: fp32, or bf16 or fp16 (autocast). name: of the progress bar. Every rank calls it and
    computes its share. Raises UserError when the model answers with numbers that are not finite, and exits where `stop`
    asks any rank, which costs the predictions alone.
    """
    stop = stop or StopFlag()
    with together(process):
        share = outputs_of_share(
            model,
            rows,
            micro_batch_size=micro_batch_size,
            precision=precision,
            process=process,
            stop=stop,
            name=name,
            is_by_token=is_by_token,
        )
    if any(of_all_ranks(process, stop.is_asked)):
        leave_stopped(process, f"in {name}")
    outputs = {i: one for of_rank in of_all_ranks(process, share) for i, one in of_rank.items()}
    return [outputs[i] for i in range(len(rows))]


def outputs_of_share(
    model: nn.Module,
    rows: Sequence[TokenRow],
    *,
    micro_batch_size: int,
    precision: str,
    process: Process,
    stop: StopFlag,
    name: str,
    is_by_token: bool,
) -> dict[int, NDArray[np.float32]]:
    """What this rank computes: ranks take turns in the row of micro-batches, shortest first, so that all are alike.

    Not all of it where `stop` asks.
    """
    device, dtype = process.device, AUTOCAST[precision]
    model.to(device).eval()
    max_length = max(len(row.input_ids) for row in rows)
    shortest_first = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))
    starts = range(0, len(rows), micro_batch_size)[process.rank :: process.world_size]
    total = sum(min(micro_batch_size, len(rows) - first) for first in starts)
    outputs: dict[int, NDArray[np.float32]] = {}
    shown = Progress(name, total=total, unit="rows", is_shown=process.is_main)
    with torch.inference_mode(), shown as progress:
        for first in starts:
            if stop.is_asked:
                break
            indices = shortest_first[first : first + micro_batch_size]
            batch = lay_out([rows[i] for i in indices], max_length)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                of_batch = model(*batch.to(device)).float().cpu().numpy()
            if not np.isfinite(of_batch).all():
                raise UserError(
                    found=f"logits that are not finite ({name})",
                    expected="numbers",
                    fix="set runtime.precision=fp32, a lower peak_lr, or another model_dir",
                )
            of_rows = np.split(of_batch, batch.cu_seqlens[1:-1].tolist()) if is_by_token else of_batch
            outputs |= dict(zip(indices, of_rows, strict=True))
            progress.update(len(indices))
    return outputs
