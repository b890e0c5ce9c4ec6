"""`layer_norm` and `rms_norm` over the last axis.

A row is one block's. It comes from memory once: the second look at it finds it in the cache.
`rms_norm` is `layer_norm` that takes the mean for zero.
"""

from __future__ import annotations

from typing import Any

import cupy

from tfx.backends.cupy.kernels.columns import COLUMN_THREADS, COLUMNS, column_tile
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

_NORMS = Program(
    OVER_BLOCK,
    COLUMNS,
    r"""
// Of `count` numbers, their mean and the sum of squares of what is off it (Welford 1962).
struct Moments { Wide count, mean, squares; };

__device__ Moments with_number(Moments of, Wide x) {
    Wide count = of.count + 1, off = x - of.mean, mean = of.mean + off / count;
    return {count, mean, of.squares + off * (x - mean)};
}

// Of both sets together (Chan et al. 1979).
struct Together {
    __device__ Moments operator()(Moments a, Moments b) const {
        if (b.count == 0) return a;
        if (a.count == 0) return b;
        Wide count = a.count + b.count, off = b.mean - a.mean, share = b.count / count;
        return {count, a.mean + off * share, a.squares + b.squares + off * off * a.count * share};
    }
};

// y = (x - mean) * scale * gain + bias, where scale = (mean((x - mean)**2) + eps)**-0.5
extern "C" __global__ void __launch_bounds__(MOST_THREADS) normalize(
    const T* x, const T* gain, const T* bias, T* y, Wide* means, Wide* scales,
    Index rows, Index n, Wide eps, bool has_mean
) {
    EACH_ROW(row, rows) {
        const T* from = x + row * n;
        Moments mine = {0, 0, 0};
        EACH_COLUMN(i, n) {
            Wide at = from[i];
            mine = has_mean ? with_number(mine, at) : Moments{1, 0, mine.squares + at * at};
        }
        Moments all = over_block(mine, Together());
        Wide scale = 1 / sqrt(all.squares / n + eps);
        EACH_COLUMN(i, n) {
            Wide normal = ((Wide)from[i] - all.mean) * scale;
            y[row * n + i] = normal * (gain ? (Wide)gain[i] : 1) + (bias ? (Wide)bias[i] : 0);
        }
        if (threadIdx.x == 0) {
            means[row] = all.mean;
            scales[row] = scale;
        }
    }
}

struct Pair { Wide g, along; };

struct AddPairs {
    __device__ Pair operator()(Pair a, Pair b) const { return {a.g + b.g, a.along + b.along}; }
};

// With h = g * gain: g_x = (h - mean(h) - normal * mean(h * normal)) * scale, without the first
// mean where none was taken off x. What a block's rows give to the gradients of gain and bias, each
// a sum over all rows, it leaves in its row of `shares` (blocks, `width`): of the gain the first n,
// of the bias the next. A column is always the same thread's, so none of this has to wait.
extern "C" __global__ void __launch_bounds__(MOST_THREADS) normalize_vjp(
    const T* g, const T* x, const T* gain, const Wide* means, const Wide* scales, T* g_x,
    Wide* shares, Index rows, Index n, Index width, bool has_mean, bool fits_shared
) {
    extern __shared__ __align__(16) char room[];
    Wide* share = shares + blockIdx.x * width;
    Wide* sums = fits_shared ? (Wide*)room : share;
    for (Index start = 0; start < width; start += n)
        EACH_COLUMN(i, n) sums[start + i] = 0;
    EACH_ROW(row, rows) {
        const T* g_row = g + row * n;
        const T* from = x + row * n;
        Wide mean = means[row], scale = scales[row];
        Pair mine = {0, 0};
        EACH_COLUMN(i, n) {
            Wide g_y = g_row[i], normal = ((Wide)from[i] - mean) * scale;
            Wide h = gain ? g_y * (Wide)gain[i] : g_y;
            mine.g += h;
            mine.along += h * normal;
            if (width) sums[i] += g_y * normal;
            if (width > n) sums[n + i] += g_y;
        }
        Pair all = over_block(mine, AddPairs());
        Wide off = has_mean ? all.g / n : 0, along = all.along / n;
        EACH_COLUMN(i, n) {
            Wide g_y = g_row[i], normal = ((Wide)from[i] - mean) * scale;
            Wide h = gain ? g_y * (Wide)gain[i] : g_y;
            g_x[row * n + i] = (h - off - normal * along) * scale;
        }
    }
    if (fits_shared)
        for (Index start = 0; start < width; start += n)
            EACH_COLUMN(i, n) share[start + i] = sums[start + i];
}

// The sum of all rows of x (rows, columns).
extern "C" __global__ void __launch_bounds__(COLUMN_THREADS) column_sums(
    const Wide* x, T* sums, Index rows, Index columns, Index tile
) {
    auto number = [&](Index row, Index column) { return x[row * columns + column]; };
    sum_columns(rows, columns, tile, number, sums);
}
""",
)

_MOST_SHARES = 512
"""Blocks of a derivative, and so rows of what they leave to be added up."""

_MOST_SHARED = 32 << 10
"""Bytes of a block's sums that stay in shared memory, of the 48 KB that every device has."""


def _norm(
    x: Array, gain: Array | None, bias: Array | None, eps: float, *, has_mean: bool
) -> tuple[Array, Any]:
    x = contiguous(x)
    n = x.shape[-1]
    rows = x.size // n
    y = cupy.empty(x.shape, x.dtype)
    means, scales = cupy.empty((2, rows), wide_dtype(x.dtype))
    arrays = x, contiguous(gain), contiguous(bias), y, means, scales
    sizes = rows, n, float(eps), has_mean
    grid = blocks_for(rows, 1), threads_of_row(n)
    _NORMS.launch("normalize", *grid, *arrays, *sizes, T=x.dtype)
    return y, (means, scales)


def _norm_vjp(
    g: Array, saved: Any, x: Array, gain: Array | None, *, has_mean: bool
) -> tuple[Array, Any]:
    """The gradient by x; and those by gain and bias, as far as there are such, in one array."""
    g, x = contiguous(g), contiguous(x)
    n = x.shape[-1]
    rows = x.size // n
    parts = 0 if gain is None else 1 + has_mean
    g_x = cupy.empty(x.shape, x.dtype)
    blocks = blocks_for(rows, 1, _MOST_SHARES)
    shares = cupy.empty((blocks, parts * n), wide_dtype(x.dtype))
    shared = parts * n * shares.itemsize
    fits = shared <= _MOST_SHARED
    given = g, x, contiguous(gain), *saved, g_x, shares, rows, n, parts * n, has_mean, fits
    room = shared if fits else 0
    _NORMS.launch("normalize_vjp", blocks, threads_of_row(n), *given, shared=room, T=x.dtype)
    g_parts = cupy.empty((parts, n), x.dtype)
    if parts:
        columns = parts * n
        tile = column_tile(columns, shares.itemsize)
        given = shares, g_parts, blocks, columns, tile
        grid = blocks_for(columns, tile), COLUMN_THREADS
        _NORMS.launch("column_sums", *grid, *given, T=x.dtype)
    return g_x, g_parts


def _layer_norm(B: Backend, x: Array, gain: Array, bias: Array, *, eps: float) -> tuple[Array, Any]:
    return _norm(x, gain, bias, eps, has_mean=True)


def _layer_norm_vjp(
    B: Backend, g: Array, out: Array, saved: Any, x: Array, gain: Array, bias: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    g_x, (g_gain, g_bias) = _norm_vjp(g, saved, x, gain, has_mean=True)
    return g_x, g_gain, g_bias


def _rms_norm(B: Backend, x: Array, gain: Array | None, *, eps: float) -> tuple[Array, Any]:
    return _norm(x, gain, None, eps, has_mean=False)


def _rms_norm_vjp(
    B: Backend, g: Array, out: Array, saved: Any, x: Array, gain: Array | None, *, eps: float
) -> tuple[Array, Array | None]:
    g_x, g_parts = _norm_vjp(g, saved, x, gain, has_mean=False)
    return g_x, None if gain is None else g_parts[0]


KERNELS = (
    Fused("layer_norm", _layer_norm, _layer_norm_vjp, CALLS.layer_norm),
    Fused("rms_norm", _rms_norm, _rms_norm_vjp, CALLS.rms_norm),
)
