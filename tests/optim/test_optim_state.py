"""What an optimizer keeps, refuses and skips: checkpoints, copies, groups, missing and infinite gradients, loss scales.

Truths: the numpy oracle; another run without the event (no save and load, no bad gradient, no scale), bit for bit
where nothing may differ; norms worked out by hand.
Breaks that turn this file red (each was tried): moments and masters that a load leaves in bf16, or shares with the
saved state; a step counted, a moment or a copy written in a skipped step; one tensor's gradients left out of the test
for infinity; a scale applied twice or not, or after the clipping; a found_inf that is ignored; records of the step
before; state that survives a binding.
"""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

from bert_lamb.optim import Lamb, Lars, Segments
from tests.optim.cases import (
    DECAY,
    DTYPES,
    HAS_TRITON,
    IMPLEMENTATIONS,
    LR,
    TOLERANCES,
    device_of,
    distance,
    gradients,
    make_tensors,
    oracle_of,
    parameters,
    run,
    train,
    truth,
)

EVERYWHERE = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
BOTH = pytest.mark.parametrize("optimizer_class", [Lamb, Lars])
SHAPES = [(7, 5), (11,), ()]


def snapshot(optimizer):
    """Copies of all parameters and of all their state."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return [t.detach().clone() for p in params for t in (p, *dict(sorted(optimizer.state[p].items())).values())]


def are_equal(first, second):
    return len(first) == len(second) and all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(first, second, strict=True))


# -- save and load -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("middle", [("fused", "foreach"), ("foreach", "fused")])
def test_a_saved_state_is_continued_by_any_implementation(middle, dtype, optimizer_class):
    """After each step through torch.save into new parameters and an optimizer with other numbers."""
    tensors = make_tensors(dtype, shapes=SHAPES)
    params, optimizer = run(optimizer_class, tensors, 1, implementation="reference")
    for step, implementation in enumerate((*middle, "reference"), start=1):
        file = io.BytesIO()
        torch.save((params, optimizer.state_dict()), file)
        file.seek(0)
        params, state = torch.load(file, map_location=device_of(implementation))
        optimizer = optimizer_class(params, lr=123.0, implementation=implementation)
        optimizer.load_state_dict(state)
        train(optimizer, params, [step])
    expected, _ = truth(optimizer_class, tensors, 4)
    assert distance([optimizer.state[p].get("master", p) for p in params], expected) < TOLERANCES["fused"]
    assert [int(optimizer.state[p]["step"]) for p in params] == [4] * len(params)


@EVERYWHERE
@BOTH
def test_loading_keeps_float32_in_memory_of_its_own(implementation, optimizer_class):
    """torch's load_state_dict casts the state to the parameters' bf16; the saved state must survive the next step."""
    params, optimizer = run(optimizer_class, make_tensors(torch.bfloat16), 2, implementation=implementation)
    before = snapshot(optimizer)
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    fresh = optimizer_class(twins, lr=LR, implementation=implementation)
    fresh.load_state_dict(optimizer.state_dict())
    assert are_equal(snapshot(fresh), before)
    for p in twins:
        assert {t.dtype for t in fresh.state[p].values()} == {torch.float32}
    names = {name for state in optimizer.state.values() for name in state} - {"step"}
    train(fresh, twins, [2])
    for p, twin in zip(params, twins, strict=True):
        assert all(not torch.equal(optimizer.state[p][name], fresh.state[twin][name]) for name in names)
    assert are_equal([t for t in snapshot(optimizer) if t.dtype is torch.bfloat16], before[:: len(names) + 2])


@EVERYWHERE
@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_take_the_same_next_step(implementation, copy_of):
    """With all their switches; and they are copies: the original stays where it is."""
    options = {"max_grad_norm": 2.0, "param_norm_bounds": (1.5, 4.0), "nesterov": "both"}
    params, optimizer = run(Lamb, make_tensors(DTYPES[implementation]), 2, implementation=implementation, **options)
    twin_params, twin = copy_of((params, optimizer))
    before = snapshot(optimizer)
    train(twin, twin_params, [2])
    assert are_equal(snapshot(optimizer), before)
    train(optimizer, params, [2])
    assert are_equal(snapshot(twin), snapshot(optimizer))
    assert twin.implementation == implementation
    plain, _ = truth(Lamb, make_tensors(DTYPES[implementation]), 3)
    assert distance(twin_params, plain) > 1e-3


# -- closures, hooks, groups, gradients ----------------------------------------------------------------------------


@EVERYWHERE
def test_a_closure_is_called_with_gradients_on(implementation):
    used, unused = (torch.nn.Parameter(torch.ones(2, device=device_of(implementation))) for _ in range(2))
    optimizer = Lamb([used, unused], lr=0.1, implementation=implementation)

    def closure():
        optimizer.zero_grad()
        loss = (used**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert not torch.equal(used.detach().cpu(), torch.ones(2))
    assert torch.equal(unused.detach().cpu(), torch.ones(2))
    assert unused not in optimizer.state


def test_hooks_run_once_around_each_step():
    params = parameters(make_tensors())
    optimizer = Lamb(params, lr=LR)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(("before", params[0][0, 0].item())))
    optimizer.register_step_post_hook(lambda *_: seen.append(("after", params[0][0, 0].item())))
    train(optimizer, params, range(2))
    assert [name for name, _ in seen] == ["before", "after"] * 2
    assert seen[0][1] != seen[1][1] == seen[2][1] != seen[3][1]


@EVERYWHERE
def test_a_group_added_later_begins_at_its_own_first_step(implementation):
    """Named by its place; its bias correction does not know of the steps before it."""
    tensors = make_tensors(DTYPES[implementation], shapes=SHAPES)
    params = parameters(tensors, device_of(implementation))
    optimizer = Lamb(params[:2], lr=LR, weight_decay=DECAY, implementation=implementation)
    train(optimizer, params[:2], range(2))
    optimizer.add_param_group({"params": params[2:], "lr": 0.25})
    for p in params[:2]:
        p.grad = None
    for step in (1, 2):
        params[2].grad = gradients(step, params)[2]
        optimizer.step()
    oracle, array = oracle_of(Lamb), {0: tensors[2].double().numpy().copy()}
    for step in (1, 2):
        grads = {0: gradients(step, tensors)[2].double().numpy()}
        oracle.step(array, grads, lr=0.25, weight_decay=lambda _: DECAY, is_adapted=lambda _: True)
    assert distance(params[2:], array.values()) < TOLERANCES[implementation]
    assert distance(params[:2], truth(Lamb, tensors[:2], 2)[0]) < TOLERANCES[implementation]
    assert [record.names for record in optimizer.last_norms] == [("2",)]
    with pytest.raises(ValueError, match="eps=-1"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "eps": -1})


@EVERYWHERE
def test_a_group_in_the_place_of_another(implementation):
    """A head replaced by one of another size, whose tensor may get the id that the old one had."""
    device = device_of(implementation)
    optimizer = Lamb(parameters([torch.ones(3)], device), lr=LR, implementation=implementation)

    def add_and_train(size):
        head = torch.nn.Parameter(torch.ones(size, device=device))
        optimizer.add_param_group({"params": [head]})
        head.grad = torch.ones_like(head)
        optimizer.step()
        return head

    ids = []
    for size in range(1, 15):  # ascending: with a table of the old size, elements are missed and none is overrun
        head = add_and_train(size)
        np.testing.assert_allclose(head.detach().cpu(), np.full(size, 1 - LR), rtol=1e-5)
        ids.append(id(head))
        optimizer.param_groups.pop()
        del optimizer.state[head], head
    assert len(set(ids)) < len(ids), "no id came back: this test shows nothing"


@EVERYWHERE
def test_a_tensor_without_gradient_keeps_its_own_count(implementation):
    """Untouched by a step it has no gradient in; its next one is as if that had not been."""
    tensors = make_tensors(DTYPES[implementation], shapes=[(7, 5), (11,)])
    params = parameters(tensors, device_of(implementation))
    optimizer = Lamb(params, lr=LR, weight_decay=DECAY, implementation=implementation)
    present = {0: (0, 1), 1: (0,), 2: (1,), 3: (0, 1)}
    for step, indices in present.items():
        before = [p.detach().clone() for p in params]
        for index, p in enumerate(params):
            p.grad = gradients(step, params)[index] if index in indices else None
        optimizer.step()
        for index, p in enumerate(params):
            assert torch.equal(p, before[index]) == (index not in indices)
        assert optimizer.last_norms[0].names == tuple(map(str, indices))
    for index, p in enumerate(params):
        oracle, array = oracle_of(Lamb), {0: tensors[index].double().numpy().copy()}
        for step in [step for step, indices in present.items() if index in indices]:
            grads = {0: gradients(step, tensors)[index].double().numpy()}
            oracle.step(array, grads, lr=LR, weight_decay=lambda _: DECAY, is_adapted=lambda _: True)
        assert distance([p], array.values()) < TOLERANCES[implementation]


@EVERYWHERE
def test_late_steps(implementation):
    """At step 1001 the correction of v is 0.63, of m nothing is left; a count in float32 or a power must not be off."""
    tensors = make_tensors(DTYPES[implementation], shapes=SHAPES)
    for nesterov in ("none", "both"):
        params, optimizer = run(Lamb, tensors, 1, implementation=implementation, nesterov=nesterov)
        for p in params:
            optimizer.state[p]["step"].fill_(1000)
        train(optimizer, params, [1])
        oracle, arrays = oracle_of(Lamb, nesterov=nesterov), dict(enumerate(t.double().numpy().copy() for t in tensors))
        for step, count in enumerate((0, 1000)):
            oracle.t = count
            grads = {index: g.double().numpy() for index, g in enumerate(gradients(step, tensors))}
            oracle.step(arrays, grads, lr=LR, weight_decay=lambda _: DECAY, is_adapted=lambda _: True)
        assert distance(params, arrays.values()) < TOLERANCES[implementation]


@EVERYWHERE
@BOTH
@pytest.mark.parametrize("adapt", [True, False])
def test_lr_may_be_a_tensor_and_change(implementation, optimizer_class, adapt):
    """A schedule writes into it, and the next step sees that."""
    tensors = make_tensors(torch.float32, shapes=[(40,)])
    device, rates = device_of(implementation), [0.25, 0.0625]
    params, twins = parameters(tensors, device), parameters(tensors, device)
    lr = torch.tensor(rates[0], device=device)
    optimizer = optimizer_class(params, lr=lr, adapt=adapt, implementation=implementation)
    plain = optimizer_class(twins, lr=rates[0], adapt=adapt, implementation=implementation)
    for step, rate in enumerate(rates):
        lr.fill_(rate)
        plain.param_groups[0]["lr"] = rate
        train(optimizer, params, [step])
        train(plain, twins, [step])
        assert torch.equal(params[0], twins[0])
    stale, _ = truth(optimizer_class, tensors, 2, lr=rates[0], weight_decay=0.01, adapt=adapt)
    assert distance(params, stale) > 1e-3


@EVERYWHERE
def test_sparse_gradients_are_refused(implementation):
    weight = torch.nn.Parameter(torch.ones(4, 2, device=device_of(implementation)))
    weight.grad = torch.ones_like(weight).to_sparse()
    with pytest.raises(RuntimeError, match="Lamb does not take sparse gradients"):
        Lamb([weight], lr=LR, implementation=implementation).step()
    assert torch.equal(weight.detach().cpu(), torch.ones(4, 2))


# -- what a step did -----------------------------------------------------------------------------------------------


@EVERYWHERE
def test_last_norms_are_those_of_this_step(implementation):
    """By hand: w = (3, 4) and (6, 8), u = sign(g) without eps and decay; then, without gradients, no records at all."""
    dtype, device = DTYPES[implementation], device_of(implementation)
    named = [(name, torch.nn.Parameter(torch.tensor(v, dtype=dtype, device=device))) for name, v in NAMED.items()]
    groups = [{"params": named[:2]}, {"params": named[2:3], "adapt": False}, {"params": named[3:]}]
    optimizer = Lamb(groups, lr=0.5, eps=1e-12, weight_decay=0.0, implementation=implementation)
    assert optimizer.last_norms == []
    for _, p in named:
        p.grad = torch.full_like(p, 2.0)
    optimizer.step()
    assert [record.names for record in optimizer.last_norms] == [("a", "b"), ("d",)]
    first, second = optimizer.last_norms
    for found, expected in (
        (first.param_norm, [5.0, 10.0]),
        (first.update_norm, [2**0.5, 2**0.5]),
        (first.trust_ratio, [5 / 2**0.5, 10 / 2**0.5]),
        (second.param_norm, [3.0]),
        (second.update_norm, [1.0]),
        (second.trust_ratio, [3.0]),
    ):
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.cpu(), expected, rtol=TOLERANCES[implementation])
    for _, p in named:
        p.grad = None
    optimizer.step()
    assert optimizer.last_norms == []


NAMED = {"a": [3.0, 4.0], "b": [6.0, 8.0], "c": [1.0], "d": [3.0]}


# -- gradients that are not finite ---------------------------------------------------------------------------------


@EVERYWHERE
@BOTH
def test_a_step_with_a_gradient_that_is_not_finite_did_not_happen(implementation, optimizer_class):
    """In whichever tensor: adapted, not adapted, of low precision. All bits stay, and the next step is the same."""
    tensors = [*make_tensors(torch.float32, shapes=[(7, 5), (11,)]), *make_tensors(torch.bfloat16, shapes=[(4,)])]

    def begin():
        params = parameters(tensors, device_of(implementation))
        groups = [{"params": params[:1]}, {"params": params[1:2], "adapt": False}, {"params": params[2:]}]
        return params, optimizer_class(groups, lr=LR, weight_decay=DECAY, implementation=implementation)

    params, optimizer = begin()
    for p in params:
        optimizer.state_of(p)
    for step, bad in enumerate((torch.inf, -torch.inf, torch.nan)):
        before = snapshot(optimizer)
        for p, g in zip(params, gradients(step, params), strict=True):
            p.grad = g
        params[step].grad.view(-1)[-1] = bad
        optimizer.step()
        assert are_equal(snapshot(optimizer), before)
        assert optimizer.num_skipped_steps == step + 1
        assert all(bool((record.trust_ratio == 1).all()) for record in optimizer.last_norms)
        train(optimizer, params, [step])
    twins, twin = begin()
    train(twin, twins, range(3))
    assert are_equal(snapshot(optimizer), snapshot(twin))
    assert [int(optimizer.state[p]["step"]) for p in params] == [3, 3, 3]
    assert twin.num_skipped_steps == 0


@EVERYWHERE
def test_a_first_step_with_a_gradient_that_is_not_finite(implementation):
    """Before there is any state: what it makes is what a finite first step would have found."""
    params = parameters(make_tensors(torch.float32, shapes=[(5,)]), device_of(implementation))
    optimizer = Lamb(params, lr=LR, implementation=implementation)
    before = [p.detach().clone() for p in params]
    params[0].grad = torch.full_like(params[0], torch.nan)
    optimizer.step()
    assert are_equal(params, before)
    assert not any(bool(value.any()) for value in optimizer.state[params[0]].values())


@EVERYWHERE
@BOTH
@pytest.mark.parametrize("options", [{}, {"adapt": False}, {"max_grad_norm": 1.0}])
def test_without_skipping_what_is_not_finite_goes_through(implementation, optimizer_class, options):
    (parameter,) = parameters(make_tensors(torch.float32, shapes=[(4,)]), device_of(implementation))
    options = {"lr": LR, "skip_nonfinite": False, "implementation": implementation, **options}
    optimizer = optimizer_class([parameter], **options)
    parameter.grad = torch.tensor([1.0, torch.nan, 1.0, 1.0], device=parameter.device)
    optimizer.step()
    assert bool(parameter[1].isnan())
    assert int(optimizer.state[parameter]["step"]) == 1
    assert optimizer.num_skipped_steps == 0


# -- loss scales ---------------------------------------------------------------------------------------------------


def scaled_training(optimizer, params, steps, scaler, *, unscales=False, bad=()):
    """Losses whose gradients are those of `gradients`; in the steps of `bad` infinite ones, then as they should be."""
    for step in steps:
        for is_bad in (True, False) if step in bad else (False,):
            optimizer.zero_grad()
            grads = gradients(step, params)
            loss = sum((p * (g * torch.inf if is_bad else g)).sum() for p, g in zip(params, grads, strict=True))
            scaler.scale(loss).backward()
            if unscales:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()


@EVERYWHERE
@pytest.mark.parametrize("unscales", [True, False])
@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [(Lamb, {"max_grad_norm": 2.0}), (Lamb, {"skip_nonfinite": False, "adapt": False}), (Lars, {})],
)
def test_a_scaled_loss_is_unscaled_once(implementation, optimizer_class, unscales, options):
    """torch.amp.GradScaler with powers of two, which no rounding sees: the same bits as without it.

    A step with infinite gradients is skipped and halves the scale. The clipping takes the norm that is not scaled.
    """
    tensors = make_tensors(torch.float32, shapes=SHAPES)
    plain_params, plain = run(optimizer_class, tensors, 3, implementation=implementation, **options)
    params = parameters(tensors, device_of(implementation))
    optimizer = optimizer_class(params, lr=LR, weight_decay=DECAY, implementation=implementation, **options)
    scaler = torch.amp.GradScaler(device_of(implementation), init_scale=1024.0, growth_interval=1000)
    scaled_training(optimizer, params, range(3), scaler, unscales=unscales, bad=[1])
    assert scaler.get_scale() == 512.0
    assert optimizer.num_skipped_steps == 1
    assert are_equal(snapshot(optimizer), snapshot(plain))
    assert not hasattr(optimizer, "grad_scale")
    del plain_params


@EVERYWHERE
@pytest.mark.parametrize("max_grad_norm", [None, 2.0])
def test_a_found_inf_from_elsewhere_is_believed(implementation, max_grad_norm):
    """The scaler looks at more than this optimizer does: at other ranks, say."""
    params, optimizer = run(
        Lamb, make_tensors(torch.float32), 1, implementation=implementation, max_grad_norm=max_grad_norm
    )
    before = snapshot(optimizer)
    optimizer.found_inf = torch.ones(1, device=params[0].device)
    train(optimizer, params, [1])
    assert are_equal(snapshot(optimizer), before)
    optimizer.found_inf.zero_()
    train(optimizer, params, [1])
    assert optimizer.num_skipped_steps == 1
    assert [int(optimizer.state[p]["step"]) for p in params] == [2] * len(params)


def test_two_scales_give_the_same_steps_with_clipping_in_float64():
    """Scales that are no powers of two, to a relative 1e-6 since the multiplier is a float32 number."""
    results = []
    for scale in (1.0, 1000.0):
        params = parameters(make_tensors())
        optimizer = Lamb(params, lr=LR, weight_decay=DECAY, max_grad_norm=2.0)
        scaled_training(optimizer, params, range(3), torch.amp.GradScaler("cpu", init_scale=scale))
        results.append(params)
    expected, _ = truth(Lamb, make_tensors(), 3, max_grad_norm=2.0)
    assert distance(results[0], expected) < 1e-6
    assert distance(results[1], expected) < 1e-6


# -- tensors it does not know --------------------------------------------------------------------------------------


def ones(*sizes):
    """Parameters of ones, with gradients of ones."""
    params = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
    for p in params:
        p.grad = torch.ones_like(p)
    return params


@BOTH
def test_swapped_parameters_are_refused(optimizer_class):
    """What ZeRO does to an unaware optimizer: the parameters it was built with are gone."""
    optimizer = optimizer_class(ones(3, 2), lr=0.1)
    (flat,) = ones(5)
    optimizer.param_groups[0]["params"] = [flat]
    with pytest.raises(RuntimeError, match=r"shape \(5,\) that it was not built with.*call bind\(\)"):
        optimizer.step()
    assert torch.equal(flat.detach(), torch.ones(5))


@BOTH
def test_awaiting_binding_ignores_zero_gradients_only(optimizer_class):
    (parameter,) = ones(3)
    optimizer = optimizer_class([parameter], lr=0.1, awaits_binding=True)
    parameter.grad = torch.zeros(3)
    optimizer.step()
    assert not optimizer.state
    parameter.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match=f"{optimizer_class.__name__} awaits binding"):
        optimizer.step()
    assert torch.equal(parameter.detach(), torch.ones(3))
    optimizer.bind([(parameter, Segments.of_whole("w", parameter))])
    optimizer.step()
    assert not torch.equal(parameter.detach(), torch.ones(3))


@EVERYWHERE
def test_binding_makes_state_and_forgets_what_was(implementation):
    """Twice with other cuts: the second time the steps are those of a new optimizer, with the second cut's norms."""
    tensors = make_tensors(torch.float32, shapes=[(30,)])
    device = device_of(implementation)
    (flat,), (fresh,) = parameters(tensors, device), parameters(tensors, device)
    optimizer = Lamb([flat], lr=LR, implementation=implementation)
    cuts = [Segments(("a", "b"), (0, 1), (10, 20)), Segments(("c", "d"), (1, 0), (25, 5))]
    optimizer.bind([(flat, cuts[0])])
    assert {"exp_avg", "exp_avg_sq", "step"} == set(optimizer.state[flat])
    train(optimizer, [flat], range(2))
    with torch.no_grad():
        flat.copy_(fresh)
    assert optimizer.last_norms
    optimizer.bind([(flat, cuts[1])])
    assert optimizer.last_norms == []
    other = Lamb([fresh], lr=LR, implementation=implementation)
    other.bind([(fresh, cuts[1])])
    train(optimizer, [flat], [2])
    train(other, [fresh], [2])
    assert are_equal(snapshot(optimizer), snapshot(other))
    (record,) = optimizer.last_norms
    assert record.names == ("c", "d")
    halves = tensors[0].double().split([25, 5])
    np.testing.assert_allclose(record.param_norm.cpu(), [halves[1].norm(), halves[0].norm()], rtol=1e-6)


@EVERYWHERE
def test_a_bound_partition_is_saved_and_loaded(implementation):
    """Loading leaves the binding as it is: the same next step as without, bit for bit."""
    tensors = make_tensors(torch.float32, shapes=[(30,)])
    optimizers = []
    for _ in range(2):
        params = parameters(tensors, device_of(implementation))
        optimizers.append(Lamb(params, lr=LR, implementation=implementation))
        optimizers[-1].bind([(params[0], Segments(("a", "b"), (0, -1, 1), (10, 3, 17)))])
    for optimizer, steps in zip(optimizers, ([0], []), strict=True):
        train(optimizer, optimizer.param_groups[0]["params"], steps)
    first, second = (optimizer.param_groups[0]["params"] for optimizer in optimizers)
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    with torch.no_grad():
        second[0].copy_(first[0])
    for optimizer, params in zip(optimizers, (first, second), strict=True):
        train(optimizer, params, [1])
    assert are_equal(*map(snapshot, optimizers))
    assert optimizers[1].last_norms[0].names == ("a", "b")
    assert torch.equal(first[0][10:13].detach().cpu(), tensors[0][10:13])


def test_a_copy_of_a_bound_optimizer_is_not_bound():
    """Bindings do not carry to other tensors; a partition must not pass for one whole parameter there."""
    (flat,) = ones(5)
    optimizer = Lamb([flat], lr=0.1)
    optimizer.bind([(flat, Segments(("a", "b"), (0, 1), (2, 3)))])
    twin_flat, twin = copy.deepcopy((flat, optimizer))
    twin_flat.grad = torch.ones(5)
    with pytest.raises(RuntimeError, match="bind"):
        twin.step()
    assert torch.equal(twin_flat.detach(), torch.ones(5))
    optimizer.step()
    assert not torch.equal(flat.detach(), torch.ones(5))


def test_a_partition_is_clipped_and_skipped_by_its_engine():
    """Where norms are added up over ranks, a call sees one group: no clipping, and no step that only one rank skips."""
    (flat,) = ones(5)
    shared = Segments(("a",), (0,), (5,), lambda partial, operation: partial)
    with pytest.raises(ValueError, match=r"max_grad_norm=1\.0 with partitions.*let the engine clip"):
        Lamb([flat], lr=0.1, max_grad_norm=1.0).bind([(flat, shared)])
    optimizer = Lamb([flat], lr=0.1)
    optimizer.bind([(flat, shared)])
    flat.grad[0] = torch.nan
    optimizer.step()
    assert optimizer.num_skipped_steps == 0
    assert bool(flat[0].isnan())
    alone = Lamb(ones(5), lr=0.1, max_grad_norm=1.0)
    (flat,) = alone.param_groups[0]["params"]
    alone.bind([(flat, Segments(("a",), (0,), (5,)))])
    alone.step()
    np.testing.assert_allclose(flat.detach(), np.full(5, 0.9), rtol=1e-5)


def test_cuts_that_do_not_fit_are_refused():
    (flat,) = ones(5)
    with pytest.raises(ValueError, match="segments of 4 elements for a tensor of 5"):
        Lamb([flat], lr=0.1).bind([(flat, Segments(("a",), (0,), (4,)))])
    for slots, sizes, message in (
        ((0, 1), (1,), "2 slots for 1 sizes"),
        ((0, 2), (1, 1), r"slots \[2\] are outside -1\.\.1"),
        ((-2, 0), (1, 1), r"slots \[-2\] are outside -1\.\.1"),
        ((0, -1, 0), (1, 1, 1), "name a parameter twice"),
    ):
        with pytest.raises(ValueError, match=message):
            Segments(("a", "b"), slots, sizes)


@EVERYWHERE
def test_all_gradients_missing_is_a_step_that_does_nothing(implementation):
    params = parameters(make_tensors(torch.float32), device_of(implementation))
    optimizer = Lamb(params, lr=LR, max_grad_norm=1.0, implementation=implementation)
    optimizer.step()
    assert not optimizer.state
    assert optimizer.num_skipped_steps == 0
