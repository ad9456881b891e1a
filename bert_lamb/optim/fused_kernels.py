"""The Triton kernels of passes 1 and 3 of `fused`. Importing this file imports triton; only `fused` does, when used.

One program works on one chunk: at most CHUNK consecutive elements of one parameter in one tensor. What it needs stands
in two tables of int64, so that one launch covers any number of tensors:

    chunks     [5, num_chunks]   tensor, first element, low, high, slot    elements low..high of the chunk are its own
    addresses  [6, num_tensors]  of w, g, m, v, the low-precision copy, and the step

A chunk starts on a multiple of 16 elements; where a parameter of a flat partition does not, the elements before `low`
belong to its neighbour and are masked. Arithmetic is fp32; squares and sums are fp64, two levels deep and without
atomics, so that norms are the same in every run. Letters are those of `reference`.
"""

import triton
import triton.language as tl

from bert_lamb.optim.fused_norm_kernels import accumulate, finish

# Rows of the tables.
TENSOR, FIRST, LOW, HIGH, SLOT = (tl.constexpr(row) for row in range(5))
W, G, M, V, COPY_OUT, STEP = (tl.constexpr(row) for row in range(6))


@triton.jit
def _place(chunks, num_chunks):
    """Tensor, first element, low, high and slot of this program's chunk."""
    chunk = chunks + tl.program_id(0)
    return (
        tl.load(chunk + TENSOR * num_chunks),
        tl.load(chunk + FIRST * num_chunks),
        tl.load(chunk + LOW * num_chunks),
        tl.load(chunk + HIGH * num_chunks),
        tl.load(chunk + SLOT * num_chunks),
    )


@triton.jit
def _at(addresses, num_tensors, row: tl.constexpr, tensor, first, DTYPE: tl.constexpr, IS_ALIGNED: tl.constexpr):
    """Pointer to the first element of the chunk in one of its tensors."""
    pointer = tl.load(addresses + row * num_tensors + tensor).to(tl.pointer_type(DTYPE)) + first
    if IS_ALIGNED:
        pointer = tl.multiple_of(pointer, 16)  # bytes
    return pointer


@triton.jit
def _load(pointer, offsets, mask, IS_MASKED: tl.constexpr):
    if IS_MASKED:
        return tl.load(pointer + offsets, mask=mask, other=0.0).to(tl.float32)
    else:
        return tl.load(pointer + offsets).to(tl.float32)


@triton.jit
def _store(pointer, offsets, value, mask, IS_MASKED: tl.constexpr):
    if IS_MASKED:
        tl.store(pointer + offsets, value.to(pointer.dtype.element_ty), mask=mask)
    else:
        tl.store(pointer + offsets, value.to(pointer.dtype.element_ty))


@triton.jit
def _lamb_direction(w, g, m, v, a1, b1, a2, b2, eps, weight_decay, IS_NESTEROV: tl.constexpr):
    """u = m^ / (sqrt(v^) + eps) + weight_decay w, with m^ = a1 m + b1 g and v^ = a2 v + b2 g^2."""
    m_hat = a1 * m
    v_hat = a2 * v
    if IS_NESTEROV:
        m_hat += b1 * g
        v_hat += b2 * g * g
    return tl.div_rn(m_hat, tl.sqrt_rn(v_hat) + eps) + weight_decay * w


@triton.jit
def count_steps(
    addresses,
    num_tensors,
    coefficients,  # [4, num_tensors] float32 out: a1, b1, a2, b2 of `_lamb_direction`
    is_skipped,  # [] int32, or None
    log_beta1,
    log_beta2,
    beta1,
    rest1,  # 1 - beta1
    beta2,
    rest2,
    HAS_BIAS_CORRECTION: tl.constexpr,
    NESTEROV: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count a step for every tensor, and compute what depends on it, in float64."""
    if is_skipped is not None:
        if tl.load(is_skipped) != 0:
            return
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < num_tensors
    steps = tl.load(addresses + STEP * num_tensors + index, mask=mask, other=0).to(tl.pointer_type(tl.float32))
    t = tl.load(steps, mask=mask, other=0.0) + 1.0
    tl.store(steps, t, mask=mask)
    a1 = tl.full([BLOCK], 1.0, tl.float64)
    b1 = tl.zeros([BLOCK], tl.float64)
    a2 = tl.full([BLOCK], 1.0, tl.float64)
    b2 = tl.zeros([BLOCK], tl.float64)
    wide = t.to(tl.float64)
    if HAS_BIAS_CORRECTION:
        a1 = 1.0 / (1.0 - tl.exp(wide * log_beta1))
        a2 = 1.0 / (1.0 - tl.exp(wide * log_beta2))
        if NESTEROV != "none":
            b1 = rest1 * a1
            a1 = beta1 / (1.0 - tl.exp((wide + 1.0) * log_beta1))
            if NESTEROV == "both":
                b2 = rest2 * a2
                a2 = beta2 / (1.0 - tl.exp((wide + 1.0) * log_beta2))
            else:
                a2 = beta2 * a2
    tl.store(coefficients + index, a1.to(tl.float32), mask=mask)
    tl.store(coefficients + num_tensors + index, b1.to(tl.float32), mask=mask)
    tl.store(coefficients + 2 * num_tensors + index, a2.to(tl.float32), mask=mask)
    tl.store(coefficients + 3 * num_tensors + index, b2.to(tl.float32), mask=mask)


@triton.jit
def _coefficients(coefficients, num_tensors, tensor):
    return (
        tl.load(coefficients + tensor),
        tl.load(coefficients + num_tensors + tensor),
        tl.load(coefficients + 2 * num_tensors + tensor),
        tl.load(coefficients + 3 * num_tensors + tensor),
    )


@triton.jit
def _lamb_advance_chunk(
    w_at,
    g_at,
    m_at,
    v_at,
    copy_at,
    low,
    high,
    gradient_scale,
    step_size,
    a1,
    b1,
    a2,
    b2,
    beta1,
    rest1,
    beta2,
    rest2,
    eps,
    weight_decay,
    IS_ADAPTED: tl.constexpr,
    NORM: tl.constexpr,
    IS_NESTEROV: tl.constexpr,
    HAS_COPY: tl.constexpr,
    IS_MASKED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    w_norm = tl.zeros([BLOCK], tl.float64)
    u_norm = tl.zeros([BLOCK], tl.float64)
    end = CHUNK
    if IS_MASKED:
        end = high
    for begin in range(0, end, BLOCK):
        offsets = begin + tl.arange(0, BLOCK)
        mask = (offsets >= low) & (offsets < high)
        g = _load(g_at, offsets, mask, IS_MASKED) * gradient_scale
        m = beta1 * _load(m_at, offsets, mask, IS_MASKED) + rest1 * g
        v = beta2 * _load(v_at, offsets, mask, IS_MASKED) + rest2 * g * g
        w = _load(w_at, offsets, mask, IS_MASKED)
        _store(m_at, offsets, m, mask, IS_MASKED)
        _store(v_at, offsets, v, mask, IS_MASKED)
        u = _lamb_direction(w, g, m, v, a1, b1, a2, b2, eps, weight_decay, IS_NESTEROV)
        if IS_ADAPTED:
            w_norm = accumulate(w_norm, w, mask, IS_MASKED, NORM)
            u_norm = accumulate(u_norm, u, mask, IS_MASKED, NORM)
        else:
            w = w - step_size * u
            _store(w_at, offsets, w, mask, IS_MASKED)
            if HAS_COPY:
                _store(copy_at, offsets, w, mask, IS_MASKED)
    return w_norm, u_norm


@triton.jit
def lamb_advance(
    chunks,
    num_chunks,
    addresses,
    num_tensors,
    coefficients,
    multiplier,  # [] float32 on the gradients, or None
    is_skipped,  # [] int32, or None
    lr,
    lr_at,  # [] the learning rate where it is a tensor, or None
    partial,  # [2, num_chunks] float64 out where IS_ADAPTED
    beta1,
    rest1,
    beta2,
    rest2,
    eps,
    weight_decay,
    GRAD: tl.constexpr,
    COPY: tl.constexpr,
    IS_ADAPTED: tl.constexpr,
    NORM: tl.constexpr,
    IS_NESTEROV: tl.constexpr,
    HAS_COPY: tl.constexpr,
    IS_ALIGNED: tl.constexpr,
    IS_GRAD_ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Moments in place; partial norms of w and u, or, where the group is not adapted, the whole update."""
    if is_skipped is not None:
        if tl.load(is_skipped) != 0:
            return
    tensor, first, low, high, _slot = _place(chunks, num_chunks)
    w_at = _at(addresses, num_tensors, W, tensor, first, tl.float32, IS_ALIGNED)
    g_at = _at(addresses, num_tensors, G, tensor, first, GRAD, IS_GRAD_ALIGNED)
    m_at = _at(addresses, num_tensors, M, tensor, first, tl.float32, IS_ALIGNED)
    v_at = _at(addresses, num_tensors, V, tensor, first, tl.float32, IS_ALIGNED)
    copy_at = _at(addresses, num_tensors, COPY_OUT, tensor, first, COPY, IS_ALIGNED)
    a1, b1, a2, b2 = _coefficients(coefficients, num_tensors, tensor)
    gradient_scale = 1.0
    if multiplier is not None:
        gradient_scale = tl.load(multiplier)
    if lr_at is not None:
        lr = tl.load(lr_at).to(tl.float32)
    if (low == 0) & (high == CHUNK):
        w_norm, u_norm = _lamb_advance_chunk(
            w_at, g_at, m_at, v_at, copy_at, low, high, gradient_scale, lr, a1, b1, a2, b2,
            beta1, rest1, beta2, rest2, eps, weight_decay,
            IS_ADAPTED, NORM, IS_NESTEROV, HAS_COPY, False, CHUNK, BLOCK,
        )  # fmt: skip
    else:
        w_norm, u_norm = _lamb_advance_chunk(
            w_at, g_at, m_at, v_at, copy_at, low, high, gradient_scale, lr, a1, b1, a2, b2,
            beta1, rest1, beta2, rest2, eps, weight_decay,
            IS_ADAPTED, NORM, IS_NESTEROV, HAS_COPY, True, CHUNK, BLOCK,
        )  # fmt: skip
    if IS_ADAPTED:
        chunk = tl.program_id(0)
        tl.store(partial + chunk, finish(w_norm, NORM))
        tl.store(partial + num_chunks + chunk, finish(u_norm, NORM))


@triton.jit
def _lamb_apply_chunk(
    w_at,
    g_at,
    m_at,
    v_at,
    copy_at,
    low,
    high,
    gradient_scale,
    step_size,
    a1,
    b1,
    a2,
    b2,
    eps,
    weight_decay,
    IS_NESTEROV: tl.constexpr,
    HAS_COPY: tl.constexpr,
    IS_MASKED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    end = CHUNK
    if IS_MASKED:
        end = high
    for begin in range(0, end, BLOCK):
        offsets = begin + tl.arange(0, BLOCK)
        mask = (offsets >= low) & (offsets < high)
        m = _load(m_at, offsets, mask, IS_MASKED)
        v = _load(v_at, offsets, mask, IS_MASKED)
        w = _load(w_at, offsets, mask, IS_MASKED)
        g = w  # not used
        if IS_NESTEROV:
            g = _load(g_at, offsets, mask, IS_MASKED) * gradient_scale
        u = _lamb_direction(w, g, m, v, a1, b1, a2, b2, eps, weight_decay, IS_NESTEROV)
        w = w - step_size * u
        _store(w_at, offsets, w, mask, IS_MASKED)
        if HAS_COPY:
            _store(copy_at, offsets, w, mask, IS_MASKED)


@triton.jit
def lamb_apply(
    chunks,
    num_chunks,
    addresses,
    num_tensors,
    coefficients,
    multiplier,
    is_skipped,
    step_sizes,  # [num_slots] float32: lr times the trust ratio
    eps,
    weight_decay,
    GRAD: tl.constexpr,
    COPY: tl.constexpr,
    IS_NESTEROV: tl.constexpr,
    HAS_COPY: tl.constexpr,
    IS_ALIGNED: tl.constexpr,
    IS_GRAD_ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """w -= step_size u, with u computed again from the moments."""
    if is_skipped is not None:
        if tl.load(is_skipped) != 0:
            return
    tensor, first, low, high, slot = _place(chunks, num_chunks)
    w_at = _at(addresses, num_tensors, W, tensor, first, tl.float32, IS_ALIGNED)
    g_at = _at(addresses, num_tensors, G, tensor, first, GRAD, IS_GRAD_ALIGNED)
    m_at = _at(addresses, num_tensors, M, tensor, first, tl.float32, IS_ALIGNED)
    v_at = _at(addresses, num_tensors, V, tensor, first, tl.float32, IS_ALIGNED)
    copy_at = _at(addresses, num_tensors, COPY_OUT, tensor, first, COPY, IS_ALIGNED)
    a1, b1, a2, b2 = _coefficients(coefficients, num_tensors, tensor)
    gradient_scale = 1.0
    if multiplier is not None:
        gradient_scale = tl.load(multiplier)
    step_size = tl.load(step_sizes + slot)
    if (low == 0) & (high == CHUNK):
        _lamb_apply_chunk(
            w_at, g_at, m_at, v_at, copy_at, low, high, gradient_scale, step_size, a1, b1, a2, b2, eps, weight_decay,
            IS_NESTEROV, HAS_COPY, False, CHUNK, BLOCK,
        )  # fmt: skip
    else:
        _lamb_apply_chunk(
            w_at, g_at, m_at, v_at, copy_at, low, high, gradient_scale, step_size, a1, b1, a2, b2, eps, weight_decay,
            IS_NESTEROV, HAS_COPY, True, CHUNK, BLOCK,
        )  # fmt: skip


@triton.jit
def _lars_chunk(
    w_at,
    g_at,
    m_at,
    copy_at,
    low,
    high,
    gradient_scale,
    step_size,
    beta,
    rest,
    weight_decay,
    ADVANCES: tl.constexpr,
    APPLIES: tl.constexpr,
    NORM: tl.constexpr,
    HAS_COPY: tl.constexpr,
    IS_MASKED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    w_norm = tl.zeros([BLOCK], tl.float64)
    u_norm = tl.zeros([BLOCK], tl.float64)
    end = CHUNK
    if IS_MASKED:
        end = high
    for begin in range(0, end, BLOCK):
        offsets = begin + tl.arange(0, BLOCK)
        mask = (offsets >= low) & (offsets < high)
        w = _load(w_at, offsets, mask, IS_MASKED)
        m = _load(m_at, offsets, mask, IS_MASKED)
        if ADVANCES:
            g = _load(g_at, offsets, mask, IS_MASKED) * gradient_scale
            m = beta * m + rest * (g + weight_decay * w)
            _store(m_at, offsets, m, mask, IS_MASKED)
            w_norm = accumulate(w_norm, w, mask, IS_MASKED, NORM)
            u_norm = accumulate(u_norm, m, mask, IS_MASKED, NORM)
        if APPLIES:
            w = w - step_size * m
            _store(w_at, offsets, w, mask, IS_MASKED)
            if HAS_COPY:
                _store(copy_at, offsets, w, mask, IS_MASKED)
    return w_norm, u_norm


@triton.jit
def lars_pass(
    chunks,
    num_chunks,
    addresses,
    num_tensors,
    multiplier,
    is_skipped,
    lr,
    lr_at,  # [] the learning rate where it is a tensor, or None
    step_sizes,  # [num_slots] float32: lr times the trust ratio; None where the group is not adapted
    partial,  # [2, num_chunks] float64 out where not APPLIES
    beta,
    rest,
    weight_decay,
    ADVANCES: tl.constexpr,
    APPLIES: tl.constexpr,
    GRAD: tl.constexpr,
    COPY: tl.constexpr,
    NORM: tl.constexpr,
    HAS_COPY: tl.constexpr,
    IS_ALIGNED: tl.constexpr,
    IS_GRAD_ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pass 1 of LARS (ADVANCES: the momentum and the norms), pass 3 (APPLIES: w -= step_size m), or both at once."""
    if is_skipped is not None:
        if tl.load(is_skipped) != 0:
            return
    tensor, first, low, high, slot = _place(chunks, num_chunks)
    w_at = _at(addresses, num_tensors, W, tensor, first, tl.float32, IS_ALIGNED)
    g_at = _at(addresses, num_tensors, G, tensor, first, GRAD, IS_GRAD_ALIGNED)
    m_at = _at(addresses, num_tensors, M, tensor, first, tl.float32, IS_ALIGNED)
    copy_at = _at(addresses, num_tensors, COPY_OUT, tensor, first, COPY, IS_ALIGNED)
    gradient_scale = 1.0
    if multiplier is not None:
        gradient_scale = tl.load(multiplier)
    step_size = lr
    if lr_at is not None:
        step_size = tl.load(lr_at).to(tl.float32)
    if step_sizes is not None:
        step_size = tl.load(step_sizes + slot)
    if (low == 0) & (high == CHUNK):
        w_norm, u_norm = _lars_chunk(
            w_at, g_at, m_at, copy_at, low, high, gradient_scale, step_size, beta, rest, weight_decay,
            ADVANCES, APPLIES, NORM, HAS_COPY, False, CHUNK, BLOCK,
        )  # fmt: skip
    else:
        w_norm, u_norm = _lars_chunk(
            w_at, g_at, m_at, copy_at, low, high, gradient_scale, step_size, beta, rest, weight_decay,
            ADVANCES, APPLIES, NORM, HAS_COPY, True, CHUNK, BLOCK,
        )  # fmt: skip
    if not APPLIES:
        chunk = tl.program_id(0)
        tl.store(partial + chunk, finish(w_norm, NORM))
        tl.store(partial + num_chunks + chunk, finish(u_norm, NORM))


@triton.jit
def _squares_of_chunk(g_at, low, high, IS_MASKED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float64)
    end = CHUNK
    if IS_MASKED:
        end = high
    for begin in range(0, end, BLOCK):
        offsets = begin + tl.arange(0, BLOCK)
        mask = (offsets >= low) & (offsets < high)
        total = accumulate(total, _load(g_at, offsets, mask, IS_MASKED), mask, IS_MASKED, "l2")
    return total


@triton.jit
def gradient_squares(
    chunks,
    num_chunks,
    addresses,
    num_tensors,
    partial,  # [num_chunks] float64 out
    GRAD: tl.constexpr,
    IS_ALIGNED: tl.constexpr,  # not used: the launches share their arguments
    IS_GRAD_ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of squares of the gradients as they are."""
    tensor, first, low, high, _slot = _place(chunks, num_chunks)
    g_at = _at(addresses, num_tensors, G, tensor, first, GRAD, IS_GRAD_ALIGNED)
    if (low == 0) & (high == CHUNK):
        total = _squares_of_chunk(g_at, low, high, False, CHUNK, BLOCK)
    else:
        total = _squares_of_chunk(g_at, low, high, True, CHUNK, BLOCK)
    tl.store(partial + tl.program_id(0), tl.sum(total, axis=0))
