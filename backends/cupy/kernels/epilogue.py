"""What follows a product: y = residual + activation(product + bias), and the way back.

As CUDA for kernels that end in it, and as a launch of its own behind a product by cuBLAS.
"""

from __future__ import annotations

from typing import Any

import cupy

from tfx.backends.cupy.kernels.activations import ACTIVATED, ACTIVATIONS
from tfx.backends.cupy.kernels.columns import COLUMN_THREADS, COLUMNS, column_tile
from tfx.backends.cupy.kernels.cuda import THREADS, Program, blocks_for

FINISHED = r"""
// What has become of one number of a product. `before`, which may be null, takes what the
// activation was given: the gradient asks for it.
__device__ inline void finish(Wide sum, Index row, Index column, Index columns, const T* b,
                              const T* residual, T* before, T* y, int activation) {
    Index i = row * columns + column;
    if (b) sum += (Wide)b[column];
    if (before) before[i] = sum;
    sum = activated(sum, activation);
    if (residual) sum += (Wide)residual[i];
    y[i] = sum;
}
"""

_EPILOGUE = Program(
    ACTIVATED,
    FINISHED,
    COLUMNS,
    r"""
extern "C" __global__ void epilogue(
    const T* product, const T* b, const T* residual, T* before, T* y,
    Index rows, Index columns, Index activation
) {
    for (Index row = blockIdx.y; row < rows; row += gridDim.y)
        EACH_NUMBER(column, columns)
            finish(product[row * columns + column], row, column, columns, b, residual, before, y,
                   activation);
}

// g_before = g * activation'(before), and its sum over rows; either may be null.
extern "C" __global__ void __launch_bounds__(COLUMN_THREADS) epilogue_vjp(
    const T* g, const T* before, T* g_before, T* g_b,
    Index rows, Index columns, Index activation, Index tile
) {
    auto pulled = [&](Index row, Index column) {
        Index i = row * columns + column;
        Wide number = g[i];
        if (before) number *= slope(before[i], activation);
        if (g_before) g_before[i] = number;
        return number;
    };
    sum_columns(rows, columns, tile, pulled, g_b);
}
""",
)


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
    given = product, b, residual, before, y, rows, columns, ACTIVATIONS[activation]
    grid = blocks_for(columns), blocks_for(rows, 1)
    _EPILOGUE.launch("epilogue", grid, THREADS, *given, T=product.dtype)
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
    given = g, before, g_before, g_b, rows, columns, ACTIVATIONS[activation], tile
    grid = blocks_for(columns, tile), COLUMN_THREADS
    _EPILOGUE.launch("epilogue_vjp", *grid, *given, T=g.dtype)
    return g if g_before is None else g_before, g_b
