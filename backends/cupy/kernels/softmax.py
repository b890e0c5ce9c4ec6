"""`softmax` over the last axis, and `cross_entropy`, which is a part of it: neither goes over a row
more often than it has to, and the second never has probabilities in memory."""

from __future__ import annotations

import cupy

from tfx.backends.cupy.kernels.cuda import (
    CALLS,
    OVER_BLOCK,
    Program,
    blocks_for,
    contiguous,
    threads_of_row,
    wide_dtype,
)
from tfx.core.backend import Array, Backend, Fused
from tfx.core.dtypes import DType
from tfx.core.ops import lowest

_EXPS = r"""
// The largest of some numbers, or `lowest`, and the sum of exp(x - top) over them: in one pass, by
// mending the sum when a larger number comes (Milakov and Gimelshein 2018, arXiv:1805.02867).
struct Exps { Wide top, sum; };

__device__ Exps with_number(Exps of, Wide x) {
    if (x <= of.top) return {of.top, of.sum + exp(x - of.top)};
    return {x, of.sum * exp(of.top - x) + exp(x - x)};  // 1; but NaN for NaN and infinity
}

struct Together {
    __device__ Exps operator()(Exps a, Exps b) const {
        if (a.top < b.top) return {b.top, b.sum + a.sum * exp(a.top - b.top)};
        return {a.top, a.sum + b.sum * exp(b.top - a.top)};
    }
};

__device__ Exps exps_of(const T* row, Index n, Wide lowest) {
    Exps mine = {lowest, 0};
    EACH_COLUMN(i, n) mine = with_number(mine, row[i]);
    return over_block(mine, Together());
}
"""

_SOFTMAX = Program(
    OVER_BLOCK,
    _EXPS,
    r"""
extern "C" __global__ void __launch_bounds__(MOST_THREADS) softmax(
    const T* x, T* y, Index rows, Index n, Wide lowest
) {
    EACH_ROW(row, rows) {
        const T* from = x + row * n;
        Exps exps = exps_of(from, n, lowest);
        Wide sum = exps.sum < (Wide)0.5 ? (Wide)0.5 : exps.sum;  // of a row of nothing but -inf
        EACH_COLUMN(i, n) y[row * n + i] = exp((Wide)from[i] - exps.top) / sum;
    }
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS) softmax_vjp(
    const T* g, const T* y, T* g_x, Index rows, Index n
) {
    EACH_ROW(row, rows) {
        Wide mine = 0;
        EACH_COLUMN(i, n) mine += (Wide)g[row * n + i] * (Wide)y[row * n + i];
        Wide all = over_block(mine, Add());
        EACH_COLUMN(i, n) g_x[row * n + i] = ((Wide)g[row * n + i] - all) * (Wide)y[row * n + i];
    }
}
""",
)

_CROSS_ENTROPY = Program(
    OVER_BLOCK,
    _EXPS,
    r"""
extern "C" __global__ void __launch_bounds__(MOST_THREADS) cross_entropy(
    const T* logits, const Id* targets, T* losses, Wide* tops, Wide* sums,
    Index rows, Index n, Wide lowest
) {
    EACH_ROW(row, rows) {
        const T* from = logits + row * n;
        Exps exps = exps_of(from, n, lowest);
        if (threadIdx.x == 0) {
            Index target = targets[row];
            bool exists = 0 <= target && target < n;  // nothing beyond the row is read
            losses[row] = log(exps.sum) - (exists ? (Wide)from[target] - exps.top : 0);
            tops[row] = exps.top;
            sums[row] = exps.sum;
        }
    }
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS) cross_entropy_vjp(
    const T* g, const T* logits, const Id* targets, const Wide* tops, const Wide* sums, T* g_logits,
    Index rows, Index n, Index g_step
) {
    EACH_ROW(row, rows) {
        Wide g_loss = g[row * g_step], top = tops[row], sum = sums[row];
        Index target = targets[row];
        EACH_COLUMN(i, n) {
            Wide p = exp((Wide)logits[row * n + i] - top) / sum;
            g_logits[row * n + i] = g_loss * (p - (i == target ? 1 : 0));
        }
    }
}
""",
)


def _softmax(B: Backend, x: Array) -> tuple[Array, None]:
    x = contiguous(x)
    y = cupy.empty(x.shape, x.dtype)
    n = x.shape[-1]
    rows = x.size // n
    sizes = rows, n, lowest(DType(x.dtype.name))
    grid = blocks_for(rows, 1), threads_of_row(n)
    _SOFTMAX.launch("softmax", *grid, x, y, *sizes, T=x.dtype)
    return y, None


def _softmax_vjp(B: Backend, g: Array, out: Array, saved: None, x: Array) -> tuple[Array]:
    g_x = cupy.empty(x.shape, x.dtype)
    n = x.shape[-1]
    rows = x.size // n
    grid = blocks_for(rows, 1), threads_of_row(n)
    arrays = contiguous(g), contiguous(out), g_x
    _SOFTMAX.launch("softmax_vjp", *grid, *arrays, rows, n, T=x.dtype)
    return (g_x,)


def _cross_entropy(B: Backend, logits: Array, targets: Array) -> tuple[Array, tuple[Array, Array]]:
    logits, targets = contiguous(logits), contiguous(targets)
    n = logits.shape[-1]
    rows = targets.size
    losses = cupy.empty(targets.shape, logits.dtype)
    tops, sums = cupy.empty((2, rows), wide_dtype(logits.dtype))
    arrays = logits, targets, losses, tops, sums
    sizes = rows, n, lowest(DType(logits.dtype.name))
    types = {"T": logits.dtype, "Id": targets.dtype}
    grid = blocks_for(rows, 1), threads_of_row(n)
    _CROSS_ENTROPY.launch("cross_entropy", *grid, *arrays, *sizes, **types)
    return losses, (tops, sums)


def _cross_entropy_vjp(
    B: Backend, g: Array, out: Array, saved: tuple[Array, Array], logits: Array, targets: Array
) -> tuple[Array, None]:
    logits, targets = contiguous(logits), contiguous(targets)
    n = logits.shape[-1]
    rows = targets.size
    is_one_number = not any(g.strides)  # as after a mean
    g = g if is_one_number else contiguous(g)
    g_logits = cupy.empty(logits.shape, logits.dtype)
    arrays = g, logits, targets, *saved, g_logits
    sizes = rows, n, 0 if is_one_number else 1
    types = {"T": logits.dtype, "Id": targets.dtype}
    grid = blocks_for(rows, 1), threads_of_row(n)
    _CROSS_ENTROPY.launch("cross_entropy_vjp", *grid, *arrays, *sizes, **types)
    return g_logits, None


KERNELS = (
    Fused("softmax", _softmax, _softmax_vjp, CALLS.softmax),
    Fused("cross_entropy", _cross_entropy, _cross_entropy_vjp, CALLS.cross_entropy),
)
