"""Sums over the rows of a matrix, a column each, by blocks of which each takes some columns."""

from __future__ import annotations

from tfx.backends.cupy.kernels.cuda import WARP

COLUMN_THREADS = 512
"""In a block of kernels that sum columns."""

COLUMNS = rf"""
#define COLUMN_THREADS {COLUMN_THREADS}

// A block sums `tile` columns, a power of two up to a warp. Thread t has column t % tile and every
// (COLUMN_THREADS / tile)-th number of it. First the lanes of a warp that share a column come
// together, then the warps, in an order that depends on nothing but the tile: the same bits every
// time.
__device__ inline void share_column(Wide sum, int tile, Wide* partial) {{
    sum = sum_of_lanes(sum, WARP / 2, tile);
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (lane < tile) partial[warp * tile + lane] = sum;
}}

__device__ inline Wide column_total(int place, int tile, const Wide* partial) {{
    Wide sum = 0;
    for (int warp = 0; warp < COLUMN_THREADS / WARP; warp++) sum += partial[warp * tile + place];
    return sum;
}}

// For each column the sum of number(row, column) over all rows, in `sums` unless that is null.
template <class Number>
__device__ void sum_columns(Index rows, Index columns, int tile, Number number, T* sums) {{
    __shared__ Wide partial[COLUMN_THREADS];
    int slices = COLUMN_THREADS / tile, slice = threadIdx.x / tile, place = threadIdx.x % tile;
    Index step = gridDim.x * (Index)tile;
    for (Index first = blockIdx.x * (Index)tile; first < columns; first += step) {{
        Index column = first + place;
        Wide sum = 0;
        if (column < columns)
            for (Index row = slice; row < rows; row += slices) sum += number(row, column);
        if (!sums) continue;
        share_column(sum, tile, partial);
        __syncthreads();
        if (threadIdx.x < tile && column < columns)
            sums[column] = column_total(place, tile, partial);
        __syncthreads();
    }}
}}
"""


def column_tile(columns: int, itemsize: int) -> int:
    """How many columns a block sums: a warp's width where there are many; else as many as 32 bytes
    hold, the least that memory gives at a time, so that there are blocks for every processor."""
    return WARP if columns >= 1 << 14 else max(4, 32 // itemsize)
