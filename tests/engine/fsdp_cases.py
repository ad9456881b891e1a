"""For the worker of the exactness tests: gradients where PyTorch shards, and a count of collectives."""

from collections import Counter

from torch.profiler import ProfilerActivity, profile

from bert_lamb.optim.dtensor import local


def keep_sharded_gradients(optimizer, engine):
    """A list that optimizer.step fills with (name, first element, gradient) of every shard it is given."""
    kept, step = [], optimizer.step
    first = {fragment.name: fragment.start for fragment in engine.owned_fragments()}

    def step_and_keep(*args, **kwargs):
        for group in optimizer.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                gradient = local(parameter.grad).detach().clone().view(-1)
                if gradient.numel():
                    kept.append((name, first[name], gradient))
        return step(*args, **kwargs)

    optimizer.step = step_and_keep
    return kept


def count_collectives(do):
    """(what `do` returns, {operation: calls}), from PyTorch's profiler, whoever calls the operations."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        result = do()
    names = (event.name.removeprefix("c10d::") for event in seen.events())
    return result, dict(Counter(name for name in names if name in COLLECTIVES))


# As torch names the operations below its Python functions (all_gather_into_tensor, reduce_scatter_tensor, ...).
COLLECTIVES = {
    "_allgather_base_",
    "_reduce_scatter_base_",
    "allgather_",
    "allreduce_",
    "allreduce_coalesced_",
    "alltoall_",
    "broadcast_",
    "reduce_",
    "reduce_scatter_",
}
