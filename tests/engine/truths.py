"""The small training in one process, without ranks: what every way of distributing it must reproduce."""

import torch
from transformers import ResNetForImageClassification

from bert_lamb.optim import parameter_groups
from tests.engine import small_images
from tests.engine import small_training as small
from tests.oracles.lamb import LambOracle


def is_exempt(name):
    """Of BERT's and ResNet's parameters; by name, where the code under test looks at dimensions and modules."""
    return name.endswith("bias") or "LayerNorm" in name or "normalization" in name


def gradients_of_step(model, step):
    model.zero_grad()
    if isinstance(model, ResNetForImageClassification):
        small_images.share_of_loss(model, step, 0, small.GLOBAL_BATCH).backward()
    else:
        batch = small.sequences(step)
        sums = model(*small.join(batch))
        (sums.mlm_loss / small.num_predictions(batch) + sums.nsp_loss / small.GLOBAL_BATCH).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), small.MAX_GRAD_NORM)
    return float(norm)


def lamb_by_oracle(model=None):
    """(parameters by name after eight steps of the numpy oracle, gradient norms of the steps); of the small BERT."""
    model = model or small.make_model()
    oracle = LambOracle(betas=small.BETAS, eps=small.EPS)
    norms = []
    for step in range(1, small.NUM_STEPS + 1):
        norms.append(gradients_of_step(model, step))
        params = {name: p.detach().numpy() for name, p in model.named_parameters()}
        grads = {name: p.grad.numpy() for name, p in model.named_parameters()}
        oracle.step(
            params,
            grads,
            lr=small.LR,
            weight_decay=lambda name: 0.0 if is_exempt(name) else small.WEIGHT_DECAY,
            is_adapted=lambda name: not is_exempt(name),
        )
    assert min(norms) > small.MAX_GRAD_NORM, "clipping must be at work"
    return params, norms


def in_one_process(make_optimizer):
    """Parameters by name after eight steps of an optimizer over (regular, exempt) parameter groups, without ranks."""
    model = small.make_model()
    optimizer = make_optimizer(parameter_groups(model.named_parameters(), weight_decay=small.WEIGHT_DECAY))
    for step in range(1, small.NUM_STEPS + 1):
        gradients_of_step(model, step)
        optimizer.step()
    return {name: p.detach().numpy() for name, p in model.named_parameters()}
