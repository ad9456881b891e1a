"""Run under torchrun: train the small model under PyTorch's own ways to distribute, and leave its end.

FSDP2 makes parameters DTensors; with 4 ranks they are sharded over two and replicated over two. DDP leaves them whole.
usage: fsdp_worker.py OUT; writes OUT/<case>.pt: {name: whole parameter} and the trust ratios of the last step.
"""

import os
import sys
import traceback
from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from bert_lamb.engine.launch import join_process_group, this_process
from bert_lamb.optim import Lamb, Lars, parameter_groups
from bert_lamb.optim.dtensor import local
from tests.engine import small_training as small

CASES = {
    "ddp": (Lamb, {"betas": small.BETAS, "eps": small.EPS}),
    "lamb": (Lamb, {"betas": small.BETAS, "eps": small.EPS, "implementation": "foreach"}),
    "lamb-reference": (Lamb, {"betas": small.BETAS, "eps": small.EPS, "implementation": "reference"}),
    "lamb-linf": (Lamb, {"betas": small.BETAS, "eps": small.EPS, "norm": "linf"}),
    "lars": (Lars, {"beta": small.BETAS[0]}),
}
BAD_STEP = 3  # here gradients of the even ranks are not finite, before the step is repeated


def train(name, process, out):
    if process.world_size == 4:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    else:
        mesh = init_device_mesh("cpu", (process.world_size,))
    model = module = small.make_model()
    if name == "ddp":
        model = DistributedDataParallel(module)
    else:
        for layer in module.bert.bert.encoder.layer:
            fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
    kind, options = CASES[name]
    groups = parameter_groups(module.named_parameters(), weight_decay=small.WEIGHT_DECAY)
    optimizer = kind(groups, lr=small.LR, max_grad_norm=small.MAX_GRAD_NORM, **options)
    micro_batch_size = small.GLOBAL_BATCH // process.world_size
    for step in range(1, small.NUM_STEPS + 1):
        for attempt in ("bad", "good") if step == BAD_STEP else ("good",):
            batch = small.sequences(step)
            begin = process.rank * micro_batch_size
            sums = model(*small.join(batch[begin : begin + micro_batch_size]))
            loss = sums.mlm_loss / small.num_predictions(batch) + sums.nsp_loss / small.GLOBAL_BATCH
            (loss * process.world_size).backward()  # FSDP2 averages over ranks; these are shares of one mean
            if attempt == "bad" and (process.rank % 2 == 0 or name == "ddp"):
                local(next(iter(module.parameters())).grad).view(-1)[0] = float("inf")
            optimizer.step()
            optimizer.zero_grad()
    assert optimizer.num_skipped_steps == 1
    result = {key: getattr(p, "full_tensor", lambda p=p: p)().detach() for key, p in module.named_parameters()}
    ratios = {n: r for record in optimizer.last_norms for n, r in zip(record.names, record.trust_ratio, strict=True)}
    if process.is_main:
        torch.save({"params": result, "ratios": ratios}, out / f"{name}.pt")


def main():
    process = this_process(device="cpu", num_threads=1)
    join_process_group(process)
    for name in CASES:
        try:
            train(name, process, Path(sys.argv[1]))
        except Exception:
            traceback.print_exc()
            sys.stdout.flush()
            os._exit(1)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
