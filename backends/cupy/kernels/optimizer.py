"""The optimizer: `adamw_step`, one launch for all parameters, and `euclidean_norm`, two."""

from __future__ import annotations

from typing import Any

import cupy

from tfx.backends.cupy.kernels.cuda import (
    CALLS,
    OVER_BLOCK,
    THREADS,
    Program,
    blocks_for,
    contiguous,
    wide_dtype,
)
from tfx.core.backend import Array, Backend, Fused

# ---- adamw_step ------------------------------------------------------------------------------

_ADAMW_STEP = Program(r"""
extern "C" __global__ void adamw_step(
    const T* p, const T* g, const T* m, const T* v, const T* rates, const T* decay,
    const bool* healthy, const T* factor, T* new_p, T* new_m, T* new_v, Index count,
    Index decay_step, Wide beta1, Wide rest1, Wide beta2, Wide rest2, Wide eps
) {
    Wide lr = rates[0], m_correction = rates[1], v_correction = rates[2];
    bool moves = !healthy || *healthy;
    EACH_NUMBER(i, count) {
        if (!moves) {
            new_p[i] = p[i];
            new_m[i] = m[i];
            new_v[i] = v[i];
            continue;
        }
        Wide at = p[i], by = g[i];
        if (factor) by *= (Wide)*factor;
        Wide mean = (Wide)m[i] * beta1 + by * rest1;
        Wide square = (Wide)v[i] * beta2 + by * by * rest2;
        Wide step = mean * m_correction / (sqrt(square * v_correction) + eps);
        if (decay) step += at * (Wide)decay[i * decay_step];
        new_p[i] = at - step * lr;
        new_m[i] = mean;
        new_v[i] = square;
    }
}
""")


def _adamw_step(
    B: Backend,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rates: Array,
    decay: Array | None,
    healthy: Array | None,
    factor: Array | None,
    *,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[tuple[Array, Array, Array], None]:
    read = map(contiguous, (p, g, m, v, rates, decay, healthy, factor))
    new = tuple(cupy.empty(p.shape, p.dtype) for _ in range(3))
    decay_step = 1 if decay is not None and decay.ndim else 0
    numbers = (float(x) for x in (beta1, 1 - beta1, beta2, 1 - beta2, eps))
    given = *read, *new, p.size, decay_step, *numbers
    _ADAMW_STEP.launch("adamw_step", blocks_for(p.size), THREADS, *given, T=p.dtype)
    return (new[0], new[1], new[2]), None


# ---- euclidean_norm --------------------------------------------------------------------------

_MOST_SUMS = 1024

_EUCLIDEAN_NORM = Program(
    OVER_BLOCK,
    r"""
extern "C" __global__ void sums_of_squares(const T* x, Wide* sums, Index count) {
    Wide sum = 0;
    EACH_NUMBER(i, count) sum += (Wide)x[i] * (Wide)x[i];
    sum = over_block(sum, Add());
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void root_of_sum(const Wide* sums, T* norm, Index count) {
    Wide sum = 0;
    EACH_COLUMN(i, count) sum += sums[i];
    sum = over_block(sum, Add());
    if (threadIdx.x == 0) *norm = sqrt(sum);
}

extern "C" __global__ void euclidean_norm_vjp(
    const T* g, const T* norm, const T* x, T* g_x, Index count
) {
    Wide g_by_norm = (Wide)*g / (Wide)*norm;
    EACH_NUMBER(i, count) g_x[i] = (Wide)x[i] * g_by_norm;
}
""",
)


def _euclidean_norm(B: Backend, x: Array) -> tuple[Array, None]:
    x = contiguous(x)
    blocks = blocks_for(x.size, 4 * THREADS, _MOST_SUMS)
    sums = cupy.empty(blocks, wide_dtype(x.dtype))
    norm = cupy.empty((), x.dtype)
    _EUCLIDEAN_NORM.launch("sums_of_squares", blocks, THREADS, x, sums, x.size, T=x.dtype)
    _EUCLIDEAN_NORM.launch("root_of_sum", 1, THREADS, sums, norm, blocks, T=x.dtype)
    return norm, None


def _euclidean_norm_vjp(B: Backend, g: Array, out: Array, saved: Any, x: Array) -> tuple[Array]:
    g_x = cupy.empty(x.shape, x.dtype)
    given = g, out, contiguous(x), g_x, x.size
    _EUCLIDEAN_NORM.launch("euclidean_norm_vjp", blocks_for(x.size), THREADS, *given, T=x.dtype)
    return (g_x,)


KERNELS = (
    Fused("adamw_step", _adamw_step, supports=CALLS.adamw_step),
    Fused("euclidean_norm", _euclidean_norm, _euclidean_norm_vjp, CALLS.euclidean_norm),
)
