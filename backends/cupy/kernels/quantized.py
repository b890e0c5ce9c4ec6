"""Products with weights of fewer bits, and rows of such tables.

Few rows are multiplied straight with the stored numbers, in one launch; for many, one launch makes
floats of the weight. Tables are read in one launch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import cupy
import numpy as np

from tfx.backends.cupy.kernels.cuda import (
    CALLS,
    THREADS,
    Program,
    blocks_for,
    contiguous,
)
from tfx.backends.cupy.kernels.epilogue import epilogue
from tfx.backends.cupy.kernels.linear import as_rows, fits, weight_of
from tfx.backends.cupy.kernels.product import FEW, Weight, product
from tfx.core.backend import Array, Backend, Fused
from tfx.core.dtypes import DType
from tfx.core.kernel_calls import INDICES

# ---- numbers from what is stored -----------------------------------------------------------------

_TABLE = Program(r"""
// Rows of a table as floats, those at `ids` or, without, all of them. A row has `length` numbers,
// `size` for each scale; of 4 bits, the first half of a group in the lower halves of its bytes.
extern "C" __global__ void stored_rows(
    const S* table, const C* scales, const Id* ids, T* y, Index rows, Index length, Index size
) {
    for (Index row = blockIdx.y; row < rows; row += gridDim.y) {
        Index from = ids ? ids[row] : row;
        EACH_NUMBER(i, length) {
#if BITS == 4
            Index place = i % size, half = size / 2;
            S two = table[(from * length + i - place) / 2 + place % half];
            Wide number = (place < half ? two & 15 : two >> 4) - 8;
#else
            Wide number = table[from * length + i];
#endif
            if (scales) number *= (Wide)scales[from * (length / size) + i / size];
            y[row * length + i] = number;
        }
    }
}
""")


def _rows(table: Array, scales: Array | None, ids: Array | None, dtype: Any) -> Array:
    """Rows of what is stored, (..., n) at ids (...), or all (V, n)."""
    bits = 0 if scales is None else 8 if table.dtype == "int8" else 4
    length = table.shape[1] * (2 if bits == 4 else 1)
    y = cupy.empty((*(table.shape[:1] if ids is None else ids.shape), length), dtype)
    if not y.size:
        return y
    count = y.size // length
    size = length if scales is None else length // scales.shape[1]
    _TABLE.launch(
        "stored_rows",
        (blocks_for(length), blocks_for(count, 1)),
        THREADS,
        *(table, scales, contiguous(ids), y, count, length, size),
        T=y.dtype,
        S=table.dtype,
        C=y.dtype if scales is None else scales.dtype,
        Id=np.dtype(np.int64) if ids is None else ids.dtype,
        BITS=bits,
    )
    return y


# ---- products ------------------------------------------------------------------------------------


def _times(
    x: Array, weight: Weight, b: Array | None, residual: Array | None, activation: str | None
) -> tuple[Array, None]:
    rows, b, more = as_rows(x), contiguous(b), as_rows(residual)
    if len(rows) <= FEW:
        y, _ = product(rows, weight, b, more, activation)
    else:
        w = _rows(weight.numbers, weight.scales, None, x.dtype)
        y, _ = epilogue(rows @ (w.T if weight.outputs_first else w), b, more, activation)
    return y.reshape(*x.shape[:-1], y.shape[-1]), None


def _linear_quantized(
    B: Backend, x: Array, q: Array, scales: Array, b: Any, residual: Any, *, activation: str | None
) -> tuple[Array, None]:
    weight = Weight(contiguous(q), True, contiguous(scales))
    return _times(x, weight, b, residual, activation)


def _linear_half(
    B: Backend,
    x: Array,
    w: Array,
    b: Any,
    residual: Any,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[Array, None]:
    return _times(x, weight_of(w, outputs_first), b, residual, activation)


# ---- rows ----------------------------------------------------------------------------------------


def _embedding_quantized(
    B: Backend, q: Array, scales: Array, ids: Array, *, dtype: DType
) -> tuple[Array, None]:
    return _rows(contiguous(q), contiguous(scales), ids, str(dtype)), None


def _embedding_half(B: Backend, table: Array, ids: Array, *, dtype: DType) -> tuple[Array, None]:
    return _rows(contiguous(table), None, ids, str(dtype)), None


# ---- which calls they take -----------------------------------------------------------------------

_HALVES = frozenset(map(cupy.dtype, ("float16", "uint16")))


def _is_quantized(kept: str, q: Array, scales: Array) -> bool:
    """Whether q, of the dtype `kept`, and its scales stand for a matrix."""
    return bool(
        q.ndim == scales.ndim == 2
        and q.dtype == kept
        and q.size
        and scales.size
        and scales.dtype in CALLS.dtypes
        and len(scales) == len(q)
        and q.shape[1] % scales.shape[1] == 0
    )


def _takes_linear(
    kept: str,
    B: Backend,
    x: Array,
    q: Array,
    scales: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
) -> bool:
    if not _is_quantized(kept, q, scales):
        return False
    inputs = q.shape[1] * (1 if kept == "int8" else 2)
    return _scaled_in(x.dtype, scales) and fits(x, inputs, len(q), b, residual, activation)


def _takes_linear_half(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> bool:
    if w.ndim != 2 or w.dtype not in _HALVES:
        return False
    outputs, inputs = w.shape if outputs_first else w.shape[::-1]
    return fits(x, inputs, outputs, b, residual, activation)


def _takes_embedding(
    kept: str, B: Backend, q: Array, scales: Array, ids: Array, *, dtype: DType
) -> bool:
    return (
        _is_quantized(kept, q, scales)
        and ids.dtype in INDICES
        and str(dtype) in map(str, CALLS.dtypes)
        and _scaled_in(str(dtype), scales)
    )


def _takes_embedding_half(B: Backend, table: Array, ids: Array, *, dtype: DType) -> bool:
    return bool(
        table.ndim == 2
        and table.size
        and table.dtype in _HALVES
        and ids.dtype in INDICES
        and str(dtype) in map(str, CALLS.dtypes)
    )


def _scaled_in(dtype: Any, scales: Array) -> bool:
    """Whether computing in a dtype, in float32 at least, loses nothing of the scales."""
    return bool(max(cupy.dtype(dtype).itemsize, 4) >= scales.itemsize)


KERNELS = (
    Fused("linear_q8", _linear_quantized, supports=partial(_takes_linear, "int8")),
    Fused("linear_q4", _linear_quantized, supports=partial(_takes_linear, "uint8")),
    Fused("linear_half", _linear_half, supports=_takes_linear_half),
    Fused("embedding_q8", _embedding_quantized, supports=partial(_takes_embedding, "int8")),
    Fused("embedding_q4", _embedding_quantized, supports=partial(_takes_embedding, "uint8")),
    Fused("embedding_half", _embedding_half, supports=_takes_embedding_half),
)
