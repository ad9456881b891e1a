"""What only a GPU can show of the kernels: sizes of BERT, the same bits in every run, captured graphs, no waiting.

Truths: the reference in float64 on the same GPU; eager steps, for captured ones, bit for bit. The tests of
test_optim_fused.py run natively too where there is a GPU.
Breaks that turn this file red (none was tried: the hour on a GPU went to measuring): atomics in the norms, a promise of
alignment that does not hold, a table of addresses that a later step frees or overwrites, a number read back.
"""

import gc
import weakref

import pytest
import torch

from bert_lamb.optim import Lamb, Lars
from tests.optim.cases import DECAY, LR, TOLERANCES, distance, parameters, train

pytestmark = pytest.mark.gpu

H, V = 1024, 30_522
LAYER = [(H, H), (H,)] * 4 + [(H,), (H,), (4 * H, H), (4 * H,), (H, 4 * H), (H,), (H,), (H,)]
BERT = [(V, H), (512, H), (2, H), (H,), (H,), *LAYER, *LAYER, (V,), (2, H), (2,)]
BOTH = pytest.mark.parametrize("optimizer_class", [Lamb, Lars])


def weights(dtype=torch.float32, shapes=BERT):
    random = torch.Generator("cuda").manual_seed(0)
    return [torch.randn(shape, generator=random, device="cuda").to(dtype) for shape in shapes]


def set_gradients(step, params):
    """In place, where they have memory for it."""
    random = torch.Generator("cuda").manual_seed(100 + step)
    for p in params:
        gradient = torch.randn(p.shape, generator=random, device="cuda").to(p.dtype)
        if p.grad is None:
            p.grad = gradient
        else:
            p.grad.copy_(gradient)


def groups(params):
    """As parameter_groups makes them: vectors are neither decayed nor adapted."""
    return [
        {"params": [p for p in params if p.dim() > 1]},
        {"params": [p for p in params if p.dim() < 2], "adapt": False, "weight_decay": 0.0},
    ]


def values(optimizer):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return [t.detach().clone() for p in params for t in (p, *dict(sorted(optimizer.state[p].items())).values())]


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_bert_equals_the_reference_in_float64(optimizer_class, dtype):
    """Two layers of BERT-Large and its embeddings over 3 steps, clipped; each gradient is used as it was rounded."""
    options = {"lr": LR, "weight_decay": DECAY, "max_grad_norm": 1.0}
    params, twins = parameters(weights(dtype), "cuda"), parameters([w.double() for w in weights(dtype)], "cuda")
    optimizer = optimizer_class(groups(params), implementation="fused", **options)
    twin = optimizer_class(groups(twins), implementation="reference", **options)
    for step in range(3):
        for p in params:
            p.grad = None  # the next ones may lie elsewhere
        set_gradients(step, params)
        for p, q in zip(params, twins, strict=True):
            q.grad = p.grad.double()
        optimizer.step()
        twin.step()
    masters = [optimizer.state[p].get("master", p) for p in params]
    assert distance(masters, twins) < TOLERANCES["fused"]
    for p, master in zip(params, masters, strict=True):
        assert torch.equal(p, master.to(dtype))
    for found, expected in zip(optimizer.last_norms, twin.last_norms, strict=True):
        torch.testing.assert_close(found.param_norm, expected.param_norm, rtol=1e-6, atol=0)
        torch.testing.assert_close(found.trust_ratio, expected.trust_ratio, rtol=1e-5, atol=0)


def test_norms_of_millions_of_elements():
    """As on the CPU in test_optim_lamb.py: sums in float64, whatever the cut."""
    (w,) = weights(shapes=[(4_200_000,)])
    (parameter,) = parameters([w], "cuda")
    set_gradients(0, [parameter])
    optimizer = Lamb([parameter], lr=LR, implementation="fused")
    optimizer.step()
    torch.testing.assert_close(optimizer.last_norms[0].param_norm[0], w.double().norm(), rtol=1e-9, atol=0)


@BOTH
def test_foreach_equals_the_reference_in_float64(optimizer_class):
    """On a GPU it takes other ways than on a CPU, with lists of tensors in each kernel."""
    shapes = [(70, 50), (110,), ()]
    for nesterov in ("none", "both") if optimizer_class is Lamb else (None,):
        options = {"lr": LR, "weight_decay": DECAY} | ({"nesterov": nesterov} if nesterov else {})
        held = []
        for implementation in ("foreach", "reference"):
            held.append(parameters(weights(torch.float64, shapes), "cuda"))
            optimizer = optimizer_class(groups(held[-1]), implementation=implementation, **options)
            for step in range(3):
                set_gradients(step, held[-1])
                optimizer.step()
        assert distance(*held) < 1e-12


@BOTH
def test_every_run_gives_the_same_bits(optimizer_class):
    """Norms are added up in one order, however the programs of a launch are scheduled."""
    results = []
    for _ in range(3):
        params = parameters(weights(torch.bfloat16), "cuda")
        optimizer = optimizer_class(groups(params), lr=LR, max_grad_norm=1.0, implementation="fused")
        for step in range(2):
            set_gradients(step, params)
            optimizer.step()
        results.append(values(optimizer))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))


def captured(optimizer, params, *, moves=False):
    """A graph of one step, after an eager step 0 on another stream, as torch asks for.

    moves: the gradients that the graph reads lie elsewhere than those of step 0.
    """
    set_gradients(0, params)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        optimizer.step()
    torch.cuda.current_stream().wait_stream(stream)
    if moves:
        for p in params:
            p.grad = p.grad.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    return graph


@BOTH
@pytest.mark.parametrize(("dtype", "moves"), [(torch.float32, False), (torch.bfloat16, True)])
def test_a_captured_step_equals_an_eager_one(optimizer_class, dtype, moves):
    """Replayed with other gradients, another lr, and twice with a gradient that is not a number: the same bits."""
    shapes = [(300, 200), (70_001,), (17,), ()]
    results = []
    for is_captured in (True, False):
        params = parameters(weights(dtype, shapes), "cuda")
        lr = torch.tensor(LR, device="cuda")
        optimizer = optimizer_class(groups(params), lr=lr, max_grad_norm=1.0, implementation="fused")
        if is_captured:
            step_once = captured(optimizer, params, moves=moves).replay
        else:
            set_gradients(0, params)
            optimizer.step()
            step_once = optimizer.step
        for step in range(1, 6):
            set_gradients(step, params)
            lr.fill_(LR / step)
            if step in (2, 4):
                params[1].grad[-1] = torch.nan
            step_once()
        results.append((values(optimizer), optimizer.num_skipped_steps))
        ratios = [record.trust_ratio for record in optimizer.last_norms]
        results[-1][0].extend(ratio.clone() for ratio in ratios)
    (replayed, num_skipped), (eager, num_skipped_eagerly) = results
    assert num_skipped_eagerly == 2
    assert num_skipped == 2
    assert all(torch.equal(a, b) for a, b in zip(replayed, eager, strict=True))


def test_a_graph_keeps_the_table_it_reads():
    """Also when an eager step with gradients elsewhere comes between: a replay must not read freed memory."""
    params = parameters(weights(shapes=[(300, 200)]), "cuda")
    optimizer = Lamb(params, lr=LR, implementation="fused")
    graph = captured(optimizer, params)
    (memory,) = optimizer.fused_memory.values()
    table = weakref.ref(memory.addresses._table)
    first = params[0].grad
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    gc.collect()
    assert table() is not None
    params[0].grad = first
    graph.replay()
    torch.cuda.synchronize()
    assert int(optimizer.state[params[0]]["step"]) == 3


@BOTH
def test_a_step_does_not_wait_for_the_device(optimizer_class):
    """Not even with gradients at other addresses each time, which need a new table."""
    params = parameters(weights(shapes=[(300, 200), (17,)]), "cuda")
    lr = torch.tensor(LR, device="cuda")
    optimizer = optimizer_class(groups(params), lr=lr, max_grad_norm=1.0, implementation="fused")
    train(optimizer, params, [0])
    kept = []
    for step in range(1, 4):
        kept.extend(p.grad for p in params)
        for p in params:
            p.grad = torch.ones_like(p)
        torch.cuda.set_sync_debug_mode("error")
        try:
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert int(optimizer.state[params[0]]["step"]) == step + 1


def test_tables_in_flight_are_not_overwritten():
    """Fifty steps sent at once, each with its gradients elsewhere, while the device is still busy with other work."""
    params = parameters(weights(shapes=[(50,)] * 20), "cuda")
    twins = parameters(weights(shapes=[(50,)] * 20), "cuda")
    optimizer = Lamb(params, lr=LR, implementation="fused")
    twin = Lamb(twins, lr=LR, implementation="fused")
    grads = [[torch.full_like(p, 1.0 + step + index) for index, p in enumerate(params)] for step in range(50)]
    large = torch.randn(4096, 4096, device="cuda")
    for opt, held, is_busy in ((optimizer, params, True), (twin, twins, False)):
        for step in range(50):
            for p, g in zip(held, grads[step], strict=True):
                p.grad = g
            if is_busy:
                large = (large @ large).clamp(-1, 1)
            opt.step()
            if not is_busy:
                torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(params, twins, strict=True))


@BOTH
@pytest.mark.multi_gpu
def test_parameters_on_another_gpu_than_the_current_one(optimizer_class):
    """As in a process that never called torch.cuda.set_device; the same steps on the current GPU are the truth."""
    torch.cuda.set_device(0)
    values = weights(shapes=[(70, 30), (30,)])
    params = [parameters([w.to(device) for w in values], device) for device in ("cuda:0", "cuda:1")]
    optimizers = [optimizer_class(p, lr=LR, max_grad_norm=1.0, implementation="fused") for p in params]
    for step in range(3):
        for tensors, optimizer in zip(params, optimizers, strict=True):
            for index, p in enumerate(tensors):
                random = torch.Generator().manual_seed(10 * step + index)
                p.grad = torch.randn(p.shape, generator=random).to(p.device)
            optimizer.step()
    assert torch.cuda.current_device() == 0
    for p, q in zip(*params, strict=True):
        assert torch.equal(p, q.to("cuda:0"))


def test_auto_is_fused_on_a_gpu():
    """For what the kernels can do; for the rest foreach, without a word."""
    for dtype, is_fused in ((torch.float32, True), (torch.bfloat16, True), (torch.float64, False)):
        params = parameters(weights(dtype, [(30,)]), "cuda")
        optimizer = Lamb(params, lr=LR)
        set_gradients(0, params)
        optimizer.step()
        assert bool(optimizer.fused_memory) == is_fused
