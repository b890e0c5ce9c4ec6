"""What follows a product: y = residual + activation(product + bias), and the way back.

As CUDA for kernels that end in it, and as a launch of its own behind a product by cuBLAS.
"""

from __future__ import annotations

from typing import Any

import cupy

from tfx.backends.cupy.kernels.compiling import MOST_BLOCKS, THREADS, blocks_for, compiled, pointer

ACTIVATIONS = {None: 0, "gelu_new": 1, "gelu": 2, "relu": 3, "silu": 4}
"""The number by which a kernel knows each."""

ACTIVATED = r"""
__device__ inline A gelu_new_inner(A z) {
    return A(0.7978845608028654) * (z + A(0.044715) * z * z * z);  // sqrt(2 / pi)
}

__device__ inline A activated(A z, int activation) {
    switch (activation) {
        case 1: return z * A(0.5) * (tanh(gelu_new_inner(z)) + A(1));
        case 2: return z * A(0.5) * (erf(z * A(0.7071067811865476)) + A(1));
        case 3: return z > A(0) ? z : A(0);
        case 4: return z / (A(1) + exp(-z));
        default: return z;
    }
}

// Its derivative.
__device__ inline A slope(A z, int activation) {
    switch (activation) {
        case 1: {
            A t = tanh(gelu_new_inner(z));
            A inner = A(0.7978845608028654) * (A(1) + A(3 * 0.044715) * z * z);
            return A(0.5) * (A(1) + t) + A(0.5) * z * (A(1) - t * t) * inner;
        }
        case 2: {
            A density = A(0.3989422804014327) * exp(A(-0.5) * z * z);  // 1 / sqrt(2 pi)
            return A(0.5) * (A(1) + erf(z * A(0.7071067811865476))) + z * density;
        }
        case 3: return z > A(0) ? A(1) : A(0);
        case 4: {
            A s = A(1) / (A(1) + exp(-z));
            return s * (A(1) + z * (A(1) - s));
        }
        default: return A(1);
    }
}
"""

FINISHED = (
    ACTIVATED
    + r"""
// What has become of one number of a product. `before`, which may be null, takes what the
// activation was given: the gradient asks for it.
__device__ inline void finish(A sum, long long row, long long column, long long columns,
                              const T* b, const T* residual, T* before, T* y, int activation) {
    long long i = row * columns + column;
    if (b) sum += wide(b[column]);
    if (before) store(before + i, sum);
    sum = activated(sum, activation);
    if (residual) sum += wide(residual[i]);
    store(y + i, sum);
}
"""
)

_FORWARD = (
    FINISHED
    + r"""
extern "C" __global__ void tfx_epilogue(const T* product, const T* b, const T* residual, T* before,
                                        T* y, long long rows, long long columns,
                                        long long activation) {
    for (long long row = blockIdx.y; row < rows; row += gridDim.y)
        for (long long column = blockIdx.x * (long long)blockDim.x + threadIdx.x; column < columns;
             column += (long long)gridDim.x * blockDim.x)
            finish(wide(product[row * columns + column]), row, column, columns, b, residual, before,
                   y, activation);
}
"""
)

COLUMN_THREADS = 512
"""In a block of kernels that sum columns."""

COLUMN_TOTALS = r"""
// A block sums `tile` columns, a power of two up to a warp. Thread t has column t % tile and every
// (blockDim.x / tile)-th number of it. First the lanes of a warp that share a column come together,
// then the warps, in an order that depends on nothing but the tile: the same bits every time.
__device__ inline void share_column(A sum, int tile, A* partial) {
    for (int apart = tile; apart < WARP; apart *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, apart);
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (lane < tile) partial[warp * tile + lane] = sum;
}

__device__ inline A column_total(int column, int tile, const A* partial) {
    A sum = 0;
    for (int warp = 0; warp < blockDim.x / WARP; warp++) sum += partial[warp * tile + column];
    return sum;
}
"""

_BACKWARD = (
    ACTIVATED
    + COLUMN_TOTALS
    + r"""
// g_before = g * activation'(before), and its sum over rows; either may be null.
extern "C" __global__ void tfx_epilogue_backward(const T* g, const T* before, T* g_before, T* g_b,
                                                 long long rows, long long columns,
                                                 long long activation, long long tile) {
    __shared__ A partial[THREADS];
    int slices = blockDim.x / tile, slice = threadIdx.x / tile, place = threadIdx.x % tile;
    for (long long first = blockIdx.x * tile; first < columns; first += gridDim.x * tile) {
        long long column = first + place;
        A sum = 0;
        if (column < columns)
            for (long long row = slice; row < rows; row += slices) {
                long long i = row * columns + column;
                A pulled = wide(g[i]);
                if (before) pulled *= slope(wide(before[i]), activation);
                if (g_before) store(g_before + i, pulled);
                sum += pulled;
            }
        if (!g_b) continue;
        share_column(sum, tile, partial);
        __syncthreads();
        if (threadIdx.x < tile && column < columns)
            store(g_b + column, column_total(place, tile, partial));
        __syncthreads();
    }
}
"""
)


def column_tile(columns: int, itemsize: int) -> int:
    """How many columns a block sums: a warp's width where there are many; else as many as 32 bytes
    hold, the least that memory gives at a time, so that there are blocks for every processor."""
    return 32 if columns >= 1 << 14 else max(4, 32 // itemsize)


def epilogue(
    product: cupy.ndarray, b: Any, residual: Any, activation: str | None
) -> tuple[cupy.ndarray, cupy.ndarray | None]:
    """residual + activation(product + b) of a product (rows, columns) that is given up for it, and
    what the activation was given."""
    if b is None and residual is None and activation is None:
        return product, None
    before, y = None, product
    if activation is not None:
        before, y = product, cupy.empty_like(product)
    rows, columns = product.shape
    kernel = compiled(_FORWARD, "tfx_epilogue", T=product.dtype.name)
    ends = pointer(b), pointer(residual), pointer(before), y
    grid = blocks_for(columns), min(rows, MOST_BLOCKS)
    kernel(grid, (THREADS,), (product, *ends, rows, columns, ACTIVATIONS[activation]))
    return y, before


def epilogue_backward(
    g: cupy.ndarray, before: cupy.ndarray | None, activation: str | None, *, bias: bool
) -> tuple[cupy.ndarray, cupy.ndarray | None]:
    """The gradients of product and bias by g (rows, columns), in one launch at most."""
    if before is None and not bias:
        return g, None
    rows, columns = g.shape
    g_before = None if before is None else cupy.empty_like(g)
    g_b = cupy.empty(columns, g.dtype) if bias else None
    tile = column_tile(columns, g.itemsize)
    kernel = compiled(_BACKWARD, "tfx_epilogue_backward", T=g.dtype.name, THREADS=COLUMN_THREADS)
    arrays = g, pointer(before), pointer(g_before), pointer(g_b)
    grid = (blocks_for(columns, tile),)
    kernel(grid, (COLUMN_THREADS,), (*arrays, rows, columns, ACTIVATIONS[activation], tile))
    return g if g_before is None else g_before, g_b
