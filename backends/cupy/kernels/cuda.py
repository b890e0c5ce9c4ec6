"""CUDA C++ of our own: how it is compiled and launched, and what its sources share.

A source is written for any dtype. It is compiled when one of its kernels is first launched for one,
behind these definitions:

    T, Id     the element types that the launch names, of numbers and of indices
    Wide      what numbers of type T are added up in: float for float16, unsigned for whole numbers
    Index     64 bits, for places in arrays

Sizes are arguments, so there are as many variants as dtypes. All loops stride over the grid, and a
launch may take any number of blocks. Sums are taken in an order that sizes alone decide.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tfx.core.backend import Array

_TYPES = {
    "float16": ("float16", "float", np.float32),
    "float32": ("float", "float", np.float32),
    "float64": ("double", "double", np.float64),
    "int8": ("signed char", "unsigned int", np.uint32),
    "uint8": ("unsigned char", "unsigned int", np.uint32),
    "int32": ("int", "unsigned int", np.uint32),
    "int64": ("long long", "unsigned long long", np.uint64),
}
"""T and Wide in CUDA, and Wide in NumPy. Sums of whole numbers wrap."""

_LOOPS = r"""
typedef long long Index;

#define EACH_NUMBER(i, count) \
    for (Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x; i < (count); \
         i += gridDim.x * (Index)blockDim.x)
#define EACH_ROW(row, rows) for (Index row = blockIdx.x; row < (rows); row += gridDim.x)
#define EACH_COLUMN(i, columns) for (Index i = threadIdx.x; i < (columns); i += blockDim.x)
"""

MOST_THREADS = 512
"""Threads of a block that takes part in `over_block`, at most; a power of two, as all of them."""

OVER_BLOCK = rf"""
// What `join` makes of the values of all threads of the block, for each of them.
template <class Value, class Join>
__device__ Value over_block(Value mine, Join join) {{
    __shared__ Value values[{MOST_THREADS}];
    values[threadIdx.x] = mine;
    for (int half = blockDim.x / 2; half; half /= 2) {{
        __syncthreads();
        if (threadIdx.x < half)
            values[threadIdx.x] = join(values[threadIdx.x], values[threadIdx.x + half]);
    }}
    __syncthreads();
    Value all = values[0];
    __syncthreads();  // nobody writes the next values before everybody has read these
    return all;
}}

struct Add {{
    __device__ Wide operator()(Wide x, Wide y) const {{ return x + y; }}
}};
"""

FLOATS = frozenset(map(np.dtype, ("float16", "float32", "float64")))
"""The dtypes that kernels compute with."""

INDICES = frozenset(map(np.dtype, ("int32", "int64")))
"""The dtypes of indices."""

_MOST_BLOCKS = 1 << 12  # enough to fill any device several times over


class Program:
    """A source of kernels, in pieces that are put one behind the other."""

    def __init__(self, *pieces: str) -> None:
        self._source = "".join(pieces)
        self._kernels: dict[Any, Any] = {}

    def launch(
        self,
        name: str,
        dtypes: tuple[Any, ...],
        blocks: int,
        threads: int | tuple[int, int],
        *args: Array | bool | int | float | None,
        shared: int = 0,
    ) -> None:
        """Queue the kernel `name` on the current stream.

        Args:
            name: of an `extern "C"` function.
            dtypes: of T, and of Id where the source has it.
            blocks, threads: of a block, in x, or in x and y.
            args: C-contiguous arrays as pointers, None as a null pointer, whole numbers as Index,
                floats as Wide, and bools.
            shared: bytes of dynamic shared memory.
        """
        key = name, dtypes, cupy.cuda.runtime.getDevice()
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._compiled(dtypes).get_function(name)
        block = threads if isinstance(threads, tuple) else (threads,)
        wide = wide_dtype(dtypes[0])
        kernel((blocks,), block, tuple(_argument(x, wide) for x in args), shared_mem=shared)

    def _compiled(self, dtypes: tuple[Any, ...]) -> Any:
        return cupy.RawModule(code=self.source(dtypes), options=("-std=c++17",))

    def source(self, dtypes: tuple[Any, ...]) -> str:
        """All that is compiled for these dtypes."""
        number, wide, _ = _TYPES[dtypes[0].name]
        names = [f"typedef {number} T;", f"typedef {wide} Wide;"]
        names += [f"typedef {_TYPES[index.name][0]} Id;" for index in dtypes[1:]]
        if number == "float16":
            names.insert(0, "#include <cupy/float16.cuh>")
        return "\n".join(names) + _LOOPS + self._source


def _argument(x: Any, wide: Any) -> Any:
    if x is None:
        return 0
    if isinstance(x, bool):
        return np.bool_(x)
    return wide(x) if isinstance(x, float) else x


def wide_dtype(dtype: Any) -> Any:
    """What NumPy calls the type Wide of a launch for `dtype`."""
    return _TYPES[dtype.name][2]


def contiguous(x: Array) -> Array:
    """The same array, or a copy without gaps."""
    return x if x.flags.c_contiguous else x.copy()


def floats(*arrays: Array | None) -> bool:
    """Whether all of the arrays are of one dtype that kernels compute with."""
    dtype = arrays[0].dtype  # type: ignore[union-attr]
    return dtype in FLOATS and all(x is None or x.dtype == dtype for x in arrays)


def blocks_of_numbers(count: int, threads: int = 256) -> int:
    """How many blocks to launch for `count` numbers, where a thread takes one at a time."""
    return max(1, min(-(-count // threads), _MOST_BLOCKS))


def blocks_of_rows(rows: int) -> int:
    """How many blocks to launch where a block takes one row at a time."""
    return min(rows, _MOST_BLOCKS)


def threads_of_row(length: int) -> int:
    """How many threads to give to a row, a power of two: about one for four numbers."""
    threads = 32
    while threads < MOST_THREADS and 4 * threads < length:
        threads *= 2
    return threads
