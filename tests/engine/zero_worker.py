"""Run under torchrun: train the small model in every case asked for and leave a checkpoint of each.

usage: zero_worker.py OUT CASES.json; a case is {"name", "zero_stage", "precision", "optimizer", "is_aware", ...}, with
"engine": "fsdp" and no zero_stage where PyTorch shards.
"""

import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path

import torch

from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.checkpoint.writing import save_checkpoint
from bert_lamb.engine.deepspeed_engine import DeepSpeedEngine
from bert_lamb.engine.deepspeed_json import deepspeed_json
from bert_lamb.engine.fsdp_engine import FsdpEngine, shard
from bert_lamb.engine.launch import join_process_group, this_process
from bert_lamb.engine.zero_layout import views
from bert_lamb.optim import Lamb, Lars, Segments, parameter_groups
from tests.engine import small_images
from tests.engine.fsdp_cases import count_collectives, keep_sharded_gradients
from tests.engine.small_training import (
    ACCUMULATION,
    BETAS,
    EPS,
    GLOBAL_BATCH,
    LR,
    MAX_GRAD_NORM,
    NUM_STEPS,
    WEIGHT_DECAY,
    join,
    make_model,
    num_predictions,
    sequences,
)


def train(case, process, out):
    state_before = 0
    if case.get("measures_memory"):
        gc.collect()
        gc.freeze()  # what is there already is not looked at again and again
        state_before = bytes_alive()
    model = small_images.make_model() if case.get("images") else make_model()
    source = Checkpoint(out / case["resume"]) if "resume" in case else None
    if source:
        source.load_weights(model)
    is_fsdp = case.get("engine") == "fsdp"
    if is_fsdp:
        shard(model, process=process, precision=case.get("precision", "fp32"))
    groups = parameter_groups(model if case.get("images") else model.named_parameters(), weight_decay=WEIGHT_DECAY)
    name = case.get("optimizer", "lamb")
    layerwise = {"lr": 0.0, "implementation": case.get("implementation", "foreach"), "awaits_binding": not is_fsdp}
    layerwise["skip_nonfinite"] = False  # as build_optimizer has it
    if name == "lamb":
        optimizer = Lamb(groups, betas=BETAS, eps=EPS, **layerwise, **case.get("options", {}))
    elif name == "lars":
        optimizer = Lars(groups, beta=BETAS[0], **layerwise)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS)
    accumulation = case.get("accumulation", ACCUMULATION)
    micro_batch_size = GLOBAL_BATCH // accumulation // process.world_size
    max_grad_norm = case.get("max_grad_norm", MAX_GRAD_NORM)
    if is_fsdp:
        engine = FsdpEngine(
            model,
            optimizer,
            process=process,
            gradient_accumulation_steps=accumulation,
            max_grad_norm=max_grad_norm,
        )
    else:
        json = deepspeed_json(
            num_parameters=sum(p.numel() for p in model.parameters()),
            micro_batch_size=micro_batch_size,
            gradient_accumulation_steps=accumulation,
            world_size=process.world_size,
            precision=case.get("precision", "fp32"),
            zero_stage=case["zero_stage"],
            offload_optimizer=case.get("offload_optimizer", False),
            max_grad_norm=max_grad_norm,
            initial_loss_scale=source.position.loss_scale if source else case.get("loss_scale"),
            overrides=case.get("overrides", {}),
        )
        engine = DeepSpeedEngine(model, optimizer, process=process, json=json)
    keep = keep_sharded_gradients if is_fsdp else keep_gradients
    gradients = keep(optimizer, engine) if case.get("keeps_gradients") else None
    if not case.get("is_aware", True):  # what a LAMB that knows nothing of ZeRO does: one ratio per flat partition
        optimizer.bind((p.flat, Segments.of_whole(str(i), p.flat)) for i, p in enumerate(engine.partitions))
    first = 1
    if source:
        source.load_into(engine)
        engine.set_optimizer_step(source.position.optimizer_step)
        engine.loss_scale_counters = source.position.loss_scale_counters
        first = source.position.step + 1
    history = []
    for step in range(first, case.get("last_step", NUM_STEPS) + 1):
        if step == case.get("bad_step"):
            result = one_step(engine, step, micro_batch_size, factor=float("inf") if process.rank == 0 else 1.0)
            assert not result.is_applied, (case, result)
        if case.get("counts_collectives"):
            result, collectives = count_collectives(lambda step=step: one_step(engine, step, micro_batch_size))
        else:
            loss = small_images.share_of_loss if case.get("images") else of_sequences
            result, collectives = one_step(engine, step, micro_batch_size, loss=loss), {}
        assert result.is_applied, (case, result)
        ratios = {
            n: r for record in engine.norms() for n, r in zip(record.names, record.trust_ratio.tolist(), strict=True)
        }
        history.append({"grad_norm": result.grad_norm, "trust_ratios": ratios, "collectives": collectives})
    state_bytes = None
    if case.get("measures_memory"):  # in the middle of a step, when gradients are there too
        micro_steps(engine, NUM_STEPS + 1, micro_batch_size)
        state_bytes = bytes_alive() - state_before
    if gradients is not None:
        torch.save(gradients, out / f"{case['name']}-rank{process.rank}.pt")
    save_checkpoint(
        engine,
        out / case["name"],
        position=Position(
            "phase",
            case.get("last_step", NUM_STEPS),
            engine.optimizer_step,
            engine.loss_scale,
            engine.loss_scale_counters,
        ),
        about={
            "history": history,
            "state_bytes": state_bytes,
            "total_step": 0,
            "wrapper": type(getattr(engine, "_zero", engine.model)).__name__,
        },
    )


def keep_gradients(optimizer, engine):
    """A list that optimizer.step fills with (name, first element, gradient) of every piece it is given."""
    kept, step, partitions = [], optimizer.step, {id(partition.flat): partition for partition in engine.partitions}

    def step_and_keep(*args, **kwargs):
        for group in optimizer.param_groups:
            for flat in group["params"]:
                if flat.grad is not None:
                    cut = views(partitions[id(flat)], flat.grad.detach().clone())
                    kept.extend((piece.name, piece.start, g) for piece, g in cut if piece.name is not None)
        return step(*args, **kwargs)

    optimizer.step = step_and_keep
    return kept


def allow_fp16_on_the_cpu():
    """DeepSpeed refuses fp16 there for its speed; the order of its casts and sums is the same as on a GPU."""
    from deepspeed.accelerator import get_accelerator

    kind = type(get_accelerator())
    kind.is_fp16_supported = lambda self: True
    kind.supported_dtypes = lambda self: [torch.float32, torch.bfloat16, torch.float16]


def bytes_alive():
    """Of all tensors of this process; the smallest of three counts, since what an engine keeps is in each of them.

    A thread of gloo holds the tensors of a collective until it runs again after it, which a busy machine puts off.
    """
    counts = []
    for _ in range(3):
        time.sleep(0.05)
        counts.append(sum(alive_storages().values()))
    return min(counts)


def alive_storages():
    """Bytes of every storage that a tensor of this process has, by its identity."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
    grads = [t.grad for t in local if t.is_leaf and t.grad is not None]
    grads = [g.to_local() if hasattr(g, "to_local") else g for g in grads]
    return {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in (*local, *grads)}


def of_sequences(model, step, begin, num_sequences):
    """The share of a step's loss that sequences begin and following have."""
    batch = sequences(step)
    sums = model(*join(batch[begin : begin + num_sequences]))
    return sums.mlm_loss / num_predictions(batch) + sums.nsp_loss / GLOBAL_BATCH


def one_step(engine, step, micro_batch_size, factor=1.0, loss=of_sequences):
    """One optimizer step on this rank's share of the step's batch, its losses multiplied by a factor."""
    micro_steps(engine, step, micro_batch_size, factor, loss)
    return engine.step(LR)


def micro_steps(engine, step, micro_batch_size, factor=1.0, loss=of_sequences):
    for micro_step in range(GLOBAL_BATCH // engine.world_size // micro_batch_size):
        begin = (micro_step * engine.world_size + engine.rank) * micro_batch_size
        engine.backward(loss(engine.model, step, begin, micro_batch_size) * factor)


def main():
    out, cases = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    process = this_process(device="cpu", num_threads=1)
    join_process_group(process)
    allow_fp16_on_the_cpu()
    for case in cases:
        try:
            train(case, process, out)
        except Exception:
            # A rank that leaves alone would leave the others waiting in a collective.
            traceback.print_exc()
            sys.stdout.flush()
            os._exit(1)


if __name__ == "__main__":
    main()
