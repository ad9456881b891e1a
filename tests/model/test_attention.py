"""Attention and dropout by themselves: against formulas, by counting, and on the meta device where there is no GPU."""

import math

import pytest
import torch

from bert_lamb.model import attention as module
from bert_lamb.model.attention import attention_by_sequence, dropped_attention, flash_attention
from bert_lamb.model.bert import BertPretrainingModel
from bert_lamb.model.dropout import Dropout, keep_mask
from tests.model.rows import lay_out, make_config, make_rows

BOUNDS = [0, 5, 6, 13]


def states(dtype=torch.float64, device="cpu", num_tokens=13):
    random = torch.Generator().manual_seed(2)
    return [torch.randn(num_tokens, 3, 8, generator=random, dtype=dtype).to(device).requires_grad_() for _ in range(3)]


def test_dropped_attention_is_the_formula(monkeypatch):
    """Forward and backward in float64 against autograd through softmax(s q k^T) * mask @ v, with the very same mask."""
    masks = []
    monkeypatch.setattr(module, "keep_mask", lambda like, p: masks.append(keep_mask(like, p)) or masks[-1])
    query, key, value = states()
    found = dropped_attention(query, key, value, torch.tensor(BOUNDS), 0.4, 0.3)
    of_pieces = masks[0].split([3 * 25, 3 * 1, 3 * 49])
    expected = torch.empty_like(found)
    for start, end, mask in zip(BOUNDS[:-1], BOUNDS[1:], of_pieces, strict=True):
        for head in range(3):
            q, k, v = (one[start:end, head] for one in (query, key, value))
            kept = mask.view(3, end - start, end - start)[head]
            expected[start:end, head] = (torch.softmax(0.4 * q @ k.T, -1) * kept) @ v
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(found)
    gradients = torch.autograd.grad((found * weight).sum(), (query, key, value))
    for a, b in zip(gradients, torch.autograd.grad((expected * weight).sum(), (query, key, value)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_dropped_attention_without_drops_is_the_loop(monkeypatch):
    monkeypatch.setattr(module, "keep_mask", lambda like, p: torch.ones_like(like))
    query, key, value = states()
    found = dropped_attention(query, key, value, torch.tensor(BOUNDS), 0.4, 0.3)
    expected = attention_by_sequence(query, key, value, torch.tensor(BOUNDS), scaling=0.4, dropout=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_half_precision_is_computed_in_fp32(monkeypatch):
    """bf16 states give what fp32 gives of them, rounded once: half a unit of its 8 bits."""
    monkeypatch.setattr(module, "keep_mask", lambda like, p: torch.ones_like(like))
    low = [one.detach().bfloat16() for one in states()]
    found = dropped_attention(*low, torch.tensor(BOUNDS), 0.4, 0.3)
    assert found.dtype is torch.bfloat16
    exact = attention_by_sequence(*(one.double() for one in low), torch.tensor(BOUNDS), scaling=0.4, dropout=0.0)
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_of_drops_is_p(p):
    """Of 400,000 draws, within four standard deviations; what is kept is scaled so that the mean stays 1."""
    torch.manual_seed(5)
    mask = keep_mask(torch.empty(400, 1000, dtype=torch.float64), p)
    kept = mask > 0
    assert abs(float((~kept).double().mean()) - p) < 4 * math.sqrt(p * (1 - p) / mask.numel())
    assert mask[kept].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4)


def test_draws_are_independent():
    """Between neighbours of all four places in a word, between rows and between calls: correlation below 4 sigma."""
    torch.manual_seed(6)
    first, second = (keep_mask(torch.empty(1000, 1000), 0.1) for _ in range(2))
    pairs = [(first[:, lag:], first[:, :-lag]) for lag in (1, 2, 3, 4)] + [(first[1:], first[:-1]), (first, second)]
    for a, b in pairs:
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(correlation) < 4 / math.sqrt(a.numel())


def test_draws_follow_torchs_seed():
    def draw(seed):
        torch.manual_seed(seed)
        return torch.cat([keep_mask(torch.empty(99), 0.5), keep_mask(torch.empty(7), 0.5)])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(draw(1)[:7], draw(1)[99:])


def test_dropout_is_torchs_but_for_the_draws():
    dropout = Dropout(0.25)
    x = torch.randn(50, 40, requires_grad=True)
    y = dropout(x)
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / 0.75, rtol=1e-4, atol=0)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, kept / 0.75, rtol=1e-4, atol=0)
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gpu_branch_runs_on_meta(dtype):
    """Shapes, dtypes and a backward pass of the flash kernel with dropout, as far as any machine can see it."""
    query, key, value = states(dtype, "meta")
    bounds = torch.tensor(BOUNDS, dtype=torch.int32, device="meta")
    attended = flash_attention(query, key, value, bounds, 7, scaling=0.4, dropout=0.1)
    assert (attended.shape, attended.dtype) == (query.shape, dtype)
    gradients = torch.autograd.grad(attended.sum(), (query, key, value))
    assert all(one.shape == query.shape and one.dtype is dtype for one in gradients)


def test_a_whole_micro_step_runs_on_meta():
    """Forward and backward in bf16: on `meta` no number can be read, so on a GPU the host waits for none."""
    model = BertPretrainingModel(make_config(dropout=0.1), seed=1).bfloat16().to("meta").train()
    batch = [value.to("meta") if isinstance(value, torch.Tensor) else value for value in lay_out(make_rows([24, 7, 1]))]
    sums = model(*batch)
    (sums.mlm_loss + sums.nsp_loss).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without <= {"bert.cls.predictions.bias"}  # the decoder's, until the way to `meta` parts them


@pytest.mark.gpu
def test_the_flash_kernel_is_the_loop():
    """bf16 on a GPU: forward and backward against one call a sequence in fp32, to the rounding of 8 bits."""
    low = [one.detach().cuda().bfloat16().requires_grad_() for one in states(torch.float32, num_tokens=13)]
    wide = [one.detach().float().requires_grad_() for one in low]
    bounds = torch.tensor(BOUNDS, dtype=torch.int32, device="cuda")
    found = flash_attention(*low, bounds, 7, scaling=0.4, dropout=0.0)
    expected = attention_by_sequence(*wide, bounds, scaling=0.4, dropout=0.0)
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
    for a, b in zip(
        torch.autograd.grad(found.float().sum(), low), torch.autograd.grad(expected.sum(), wide), strict=True
    ):
        torch.testing.assert_close(a.float(), b, rtol=3e-2, atol=3e-2)


@pytest.mark.gpu
def test_the_flash_kernel_drops_its_share():
    """Values of one give, for each token, the share of probability that is kept, divided by 0.9: 1 on average."""
    num_tokens = 64 * 128
    query, key = (0.01 * torch.randn(num_tokens, 4, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    value = torch.ones_like(query)
    bounds = torch.arange(0, num_tokens + 1, 128, dtype=torch.int32, device="cuda")
    kept = flash_attention(query, key, value, bounds, 128, scaling=0.125, dropout=0.1).float()
    assert kept.mean().item() == pytest.approx(1.0, abs=5e-3)
    # Of 128 nearly equal probabilities each is kept with 0.9: the sum's standard deviation is sqrt(0.1 / 0.9 / 128).
    assert kept[..., 0].std().item() == pytest.approx(math.sqrt(0.1 / 0.9 / 128), rel=0.1)
