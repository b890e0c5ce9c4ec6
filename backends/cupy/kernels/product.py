"""Products of few rows with a matrix, each in one launch, epilogue and all.

Such a product reads every weight once and does next to nothing with it, so what counts is to read
them side by side and with enough threads. Where a row of the matrix belongs to an output, a warp
sums one; where a column does, a block sums some columns. How a sum is taken depends on the matrix
alone: a row gets the same bits whatever stands beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy

from tfx.backends.cupy.kernels.activations import ACTIVATED, ACTIVATIONS
from tfx.backends.cupy.kernels.columns import COLUMN_THREADS, COLUMNS, column_tile
from tfx.backends.cupy.kernels.cuda import THREADS, WARP, Program, blocks_for
from tfx.backends.cupy.kernels.epilogue import FINISHED

FEW = 16
"""Up to so many rows, reading the weights by ourselves is less work than a general product."""


class Weight(NamedTuple):
    """A matrix as it lies in memory.

    Attributes:
        numbers: contiguous (outputs, inputs), or (inputs, outputs); of 4 bits, (outputs, bytes).
        outputs_first: which of the two.
        scales: (outputs, groups), of whole numbers of 8 or 4 bits.
    """

    numbers: cupy.ndarray
    outputs_first: bool
    scales: cupy.ndarray | None = None


_BY_ROWS = Program(
    ACTIVATED,
    FINISHED,
    r"""
// PACK numbers that are read at once.
template <typename E> struct alignas(sizeof(E) * PACK > 16 ? 16 : sizeof(E) * PACK) Pack {
    E part[PACK];
};

__device__ inline Pack<T> inputs_at(const T* x, Index i) {
    return *reinterpret_cast<const Pack<T>*>(x + i);
}

// A warp for each output. `length` is how many stored numbers a row of w has, `size` how many of
// them one scale is for. Bytes of two numbers have the second half a group's inputs further on.
extern "C" __global__ void product_by_rows(
        const T* __restrict__ x, const S* __restrict__ w, const C* scales, const T* b,
        const T* residual, T* before, T* y, Index rows, Index outputs, Index length,
        Index size, Index activation) {
    int lane = threadIdx.x % WARP;
    Index inputs = BITS == 4 ? 2 * length : length;
    Index first_row = blockIdx.y * (Index)ROWS;
    Index warps = (Index)gridDim.x * blockDim.x / WARP;
    int groups = length / size;
    for (Index o = (blockIdx.x * (Index)blockDim.x + threadIdx.x) / WARP; o < outputs;
         o += warps) {
        Wide sum[ROWS] = {};
        for (int i = lane * PACK; i < length; i += WARP * PACK) {
            Pack<S> kept = *reinterpret_cast<const Pack<S>*>(w + o * length + i);
            Wide weight[PACK];
            int place = i;
#if BITS == 0
            for (int p = 0; p < PACK; p++) weight[p] = kept.part[p];
#else
            int group = i / (int)size;
            Wide scale = scales[o * groups + group];
#endif
#if BITS == 8
            for (int p = 0; p < PACK; p++) weight[p] = (Wide)kept.part[p] * scale;
#elif BITS == 4
            Wide upper[PACK];
            place += group * (int)size;
            for (int p = 0; p < PACK; p++) {
                weight[p] = (Wide)((kept.part[p] & 15) - 8) * scale;
                upper[p] = (Wide)((kept.part[p] >> 4) - 8) * scale;
            }
#endif
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                if (first_row + r >= rows) break;
                const T* row = x + (first_row + r) * inputs;
                Pack<T> given = inputs_at(row, place);
                for (int p = 0; p < PACK; p++) sum[r] += (Wide)given.part[p] * weight[p];
#if BITS == 4
                given = inputs_at(row, place + size);
                for (int p = 0; p < PACK; p++) sum[r] += (Wide)given.part[p] * upper[p];
#endif
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            sum[r] = sum_of_lanes(sum[r]);
            if (lane == r && first_row + r < rows)
                finish(sum[r], first_row + r, o, outputs, b, residual, before, y, activation);
        }
    }
}
""",
)

_BY_COLUMNS = Program(
    ACTIVATED,
    FINISHED,
    COLUMNS,
    r"""
extern "C" __global__ void __launch_bounds__(COLUMN_THREADS) product_by_columns(
        const T* __restrict__ x, const S* __restrict__ w, const T* b, const T* residual,
        T* before, T* y, Index rows, Index outputs, Index inputs,
        Index activation, Index tile) {
    __shared__ Wide partial[ROWS][COLUMN_THREADS];
    int slices = COLUMN_THREADS / tile, slice = threadIdx.x / tile, place = threadIdx.x % tile;
    Index first_row = blockIdx.y * (Index)ROWS;
    for (Index first = blockIdx.x * tile; first < outputs; first += gridDim.x * tile) {
        Index o = first + place;
        Wide sum[ROWS] = {};
        if (o < outputs) {
#pragma unroll 4
            for (Index i = slice; i < inputs; i += slices) {
                Wide weight = w[i * outputs + o];
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    if (first_row + r < rows)
                        sum[r] += (Wide)x[(first_row + r) * inputs + i] * weight;
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) share_column(sum[r], tile, partial[r]);
        __syncthreads();
        // As many threads as there are columns and rows to finish: a block has more.
        int r = threadIdx.x / tile;
        if (r < ROWS && first_row + r < rows && o < outputs)
            finish(column_total(place, tile, partial[r]), first_row + r, o, outputs, b, residual,
                   before, y, activation);
        __syncthreads();
    }
}
""",
)

_AT_ONCE = 4  # numbers that a thread reads together, where they lie so that it can
_CHUNKS = 1, 4, 8  # as many rows may a block have sums for


def product(
    x: cupy.ndarray, weight: Weight, b: Any, residual: Any, activation: str | None
) -> tuple[cupy.ndarray, cupy.ndarray | None]:
    """residual + activation(x w + b) of up to FEW rows x (rows, inputs), contiguous as all arrays
    here, and what the activation was given."""
    rows, outputs = len(x), weight.numbers.shape[0 if weight.outputs_first else 1]
    y = cupy.empty((rows, outputs), x.dtype)
    before = None if activation is None else cupy.empty_like(y)
    ends = b, residual, before, y, rows, outputs
    (_by_rows if weight.outputs_first else _by_columns)(x, weight, ends, ACTIVATIONS[activation])
    return y, before


def _by_rows(x: cupy.ndarray, weight: Weight, ends: tuple[Any, ...], activation: int) -> None:
    w, scales = weight.numbers, weight.scales
    rows, outputs = ends[-2:]
    bits, length, size = _form(weight)
    chunk = _chunk(rows)
    _BY_ROWS.launch(
        "product_by_rows",
        (blocks_for(outputs, THREADS // WARP), blocks_for(rows, chunk)),
        THREADS,
        *(x, w, scales, *ends, length, size, activation),
        T=x.dtype,
        S=w.dtype,
        C=x.dtype if scales is None else scales.dtype,
        ROWS=chunk,
        BITS=bits,
        PACK=_AT_ONCE if _can_be_packed(x, w, length, size) else 1,
    )


def _by_columns(x: cupy.ndarray, weight: Weight, ends: tuple[Any, ...], activation: int) -> None:
    w = weight.numbers
    rows, outputs = ends[-2:]
    tile, chunk = column_tile(outputs, w.itemsize), _chunk(rows)
    grid = (blocks_for(outputs, tile), blocks_for(rows, chunk)), COLUMN_THREADS
    given = x, w, *ends, len(w), activation, tile
    names = {"T": x.dtype, "S": w.dtype, "ROWS": chunk}
    _BY_COLUMNS.launch("product_by_columns", *grid, *given, **names)


def _chunk(rows: int) -> int:
    """How many rows a block has sums for."""
    return next(n for n in _CHUNKS if n >= min(rows, _CHUNKS[-1]))


def _form(weight: Weight) -> tuple[int, int, int]:
    """Of a weight with outputs first: how many bits its whole numbers have (0: it has floats), how
    many stored numbers a row has, and for how many of them there is one scale."""
    length = weight.numbers.shape[1]
    if weight.scales is None:
        return 0, length, length
    bits = 8 if weight.numbers.dtype == "int8" else 4
    return bits, length, length // weight.scales.shape[1]


def _can_be_packed(x: cupy.ndarray, w: cupy.ndarray, length: int, size: int) -> bool:
    """Whether neighbours can be read together: all begin at multiples of what a thread reads."""
    even = length % _AT_ONCE == 0 == size % _AT_ONCE
    return even and all(a.data.ptr % min(16, _AT_ONCE * a.itemsize) == 0 for a in (x, w))
