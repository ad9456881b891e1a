"""The Triton kernels of pass 2 of `fused`: from partial norms to the length of each parameter's step.

Where a rank holds its parameters whole, `trust_ratios` does all of it. Else `gather_chunks` makes the norms of this
rank, the port makes them global, and `trust_ratios` does the rest. One program works on one parameter. Sums have one
order, without atomics, so that they are the same in every run; everything is float64 but the step sizes.
"""

import triton
import triton.language as tl


@triton.jit
def accumulate(total, x, mask, IS_MASKED: tl.constexpr, NORM: tl.constexpr):
    """Elementwise: total + x^2, total + |x| or max(total, |x|)."""
    wide = x.to(tl.float64)
    if IS_MASKED:
        wide = tl.where(mask, wide, 0.0)
    if NORM == "l2":
        return total + wide * wide
    elif NORM == "l1":
        return total + tl.abs(wide)
    else:
        return tl.maximum(total, tl.abs(wide))


@triton.jit
def finish(total, NORM: tl.constexpr):
    """The sum or the maximum of all lanes."""
    if NORM == "linf":
        return tl.max(total, axis=0)
    else:
        return tl.sum(total, axis=0)


@triton.jit
def _gathered(partial, num_chunks, row, first, count, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """The partial norms of some chunks as one: their sum or maximum."""
    total = tl.zeros([BLOCK], tl.float64)
    for begin in range(0, count, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        x = tl.load(partial + row * num_chunks + first + index, mask=index < count, other=0.0)
        if NORM == "linf":
            total = tl.maximum(total, x)
        else:
            total += x
    return finish(total, NORM)


@triton.jit
def _range_of(chunk_ranges, num_slots, slot, is_skipped):
    """First chunk of a parameter and the number of its chunks; none in a step that is skipped, whose norms are 0."""
    count = tl.load(chunk_ranges + num_slots + slot)
    if is_skipped is not None:
        if tl.load(is_skipped) != 0:
            count = count * 0
    return tl.load(chunk_ranges + slot), count


@triton.jit
def gather_chunks(
    partial,  # [rows, num_chunks] float64
    num_chunks,
    chunk_ranges,  # [2, num_slots] int64: first chunk and number of chunks of each parameter
    num_slots,
    is_skipped,  # [] int32, or None
    out,  # [rows, num_slots] float64
    NORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Partial norms of chunks -> of parameters; 0 for a parameter without chunks."""
    slot = tl.program_id(0)
    row = tl.program_id(1)
    first, count = _range_of(chunk_ranges, num_slots, slot, is_skipped)
    tl.store(out + row * num_slots + slot, _gathered(partial, num_chunks, row, first, count, NORM, BLOCK))


@triton.jit
def _clipped(x, LOW: tl.constexpr, HIGH: tl.constexpr):
    """min(max(x, LOW), HIGH), where there are bounds; what is not a number stays so."""
    if LOW is not None:
        # As float64, which a number in an expression would not be.
        low = tl.full([], LOW, tl.float64)
        high = tl.full([], HIGH, tl.float64)
        x = tl.where(x < low, low, x)
        x = tl.where(x > high, high, x)
    return x


@triton.jit
def trust_ratios(
    partial,  # [2, num_chunks] float64, or, global already, [2, num_slots]
    num_chunks,
    chunk_ranges,  # as of `gather_chunks`, or None where the norms are global already
    num_slots,
    is_skipped,  # [] int32, or None
    lr,
    lr_at,  # [] the learning rate where it is a tensor, or None
    norms,  # [3, num_slots] float64 out: of w, of u, and the trust ratio
    step_sizes,  # [num_slots] float32 out: lr times the trust ratio
    NORM: tl.constexpr,
    LOWEST_PHI: tl.constexpr,  # bounds as of `TrustRatio`, or None
    HIGHEST_PHI: tl.constexpr,
    LOWEST_RATIO: tl.constexpr,
    HIGHEST_RATIO: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """phi(||w||) / ||u||, clipped; 1 where one of them is 0. The formula is that of `TrustRatio`."""
    slot = tl.program_id(0)
    if chunk_ranges is None:
        w_norm = tl.load(partial + slot)
        u_norm = tl.load(partial + num_slots + slot)
    else:
        first, count = _range_of(chunk_ranges, num_slots, slot, is_skipped)
        w_norm = _gathered(partial, num_chunks, 0, first, count, NORM, BLOCK)
        u_norm = _gathered(partial, num_chunks, 1, first, count, NORM, BLOCK)
    if NORM == "l2":
        w_norm = tl.sqrt(w_norm)
        u_norm = tl.sqrt(u_norm)
    phi = _clipped(w_norm, LOWEST_PHI, HIGHEST_PHI)
    is_defined = (phi > 0) & (u_norm > 0)
    ratio = _clipped(phi / tl.where(is_defined, u_norm, 1.0), LOWEST_RATIO, HIGHEST_RATIO)
    ratio = tl.where(is_defined, ratio, 1.0)
    if lr_at is not None:
        lr = tl.load(lr_at)
    tl.store(norms + slot, w_norm)
    tl.store(norms + num_slots + slot, u_norm)
    tl.store(norms + 2 * num_slots + slot, ratio)
    tl.store(step_sizes + slot, (ratio * lr).to(tl.float32))
