"""CUDA C++ of our own: how a source becomes kernels, how they are launched, and what all sources
share.

A source is written over names, of which a launch says what they stand for: a dtype makes a name a
type, a number makes it a macro. A program is compiled when a kernel is first launched with other
meanings, and kept; as sizes are arguments, there are few. Every source has, beside its own names,

    T         the type that numbers are stored as
    Wide      what they are computed in: float for float16, unsigned for whole numbers
    Index     64 bits, for places in arrays

A cast to `Wide` widens whatever is stored, and an assignment to a T narrows. All loops stride over
the grid, so a launch may take any number of blocks. Sums are taken in an order that sizes alone
decide.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tfx.core.backend import Array
from tfx.core.kernel_calls import KernelCalls

CALLS = KernelCalls("float16", "float32", "float64", least_axes=0)
"""What the kernels take."""

_TYPES = {
    np.dtype(name): meant
    for name, meant in {
        "int8": "signed char",
        "int32": "int",
        "int64": "long long",
        "uint8": "unsigned char",
        "uint16": "Bfloat16",
        "uint32": "unsigned int",
        "uint64": "unsigned long long",
        "float16": "float16",
        "float32": "float",
        "float64": "double",
    }.items()
}

_WIDE = {
    np.dtype(name): np.dtype(wide)
    for name, wide in {
        "int8": "uint32",
        "int32": "uint32",
        "int64": "uint64",
        "uint8": "uint32",
        "float16": "float32",
        "float32": "float32",
        "float64": "float64",
    }.items()
}
"""Sums of whole numbers wrap."""

WARP = 32

_SHARED = rf"""
typedef long long Index;

#define WARP {WARP}
#define ALL_LANES 0xffffffffu

#define EACH_NUMBER(i, count) \
    for (Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x; i < (count); \
         i += gridDim.x * (Index)blockDim.x)
#define EACH_ROW(row, rows) for (Index row = blockIdx.x; row < (rows); row += gridDim.x)
#define EACH_COLUMN(i, columns) for (Index i = threadIdx.x; i < (columns); i += blockDim.x)

// Kept as a word: the upper half of a float.
struct Bfloat16 {{
    unsigned short word;
    __device__ operator float() const {{ return __uint_as_float((unsigned)word << 16); }}
}};

// The sum over lanes whose numbers differ in the bits from `near` to `far`, for each of them. Every
// thread of the warp has to come here.
template <class Value>
__device__ __forceinline__ Value sum_of_lanes(Value x, int far = WARP / 2, int near = 1) {{
    for (int apart = far; apart >= near; apart /= 2) x += __shfl_xor_sync(ALL_LANES, x, apart);
    return x;
}}
"""

MOST_THREADS = 512
"""Threads of a block that takes part in `over_block`, at most, where it does not say so."""

OVER_BLOCK = rf"""
const int MOST_THREADS = {MOST_THREADS};

// What `join` makes of the values of all threads of the block, a power of two, for each of them.
template <int MOST = MOST_THREADS, class Value, class Join>
__device__ Value over_block(Value mine, Join join) {{
    __shared__ Value values[MOST];
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

THREADS = 256
"""In a block of kernels that have no reason for another number."""

MOST_BLOCKS = 65535
"""Along an axis of a grid: what every axis takes, and enough to fill any device."""


class Program:
    """A source of kernels, in pieces that are put one behind the other."""

    def __init__(self, *pieces: str) -> None:
        self._source = "".join(pieces)
        self._kernels: dict[Any, Any] = {}

    def launch(
        self,
        name: str,
        blocks: int | tuple[int, int],
        threads: int,
        *args: Any,
        shared: int = 0,
        **names: Any,
    ) -> None:
        """Queue the kernel `name` on the current stream.

        Args:
            name: of an `extern "C"` function.
            blocks: of the grid, in x, or in x and y.
            threads: of a block.
            args: C-contiguous arrays as pointers, None as a null pointer, whole numbers as Index,
                floats as Wide, bools, and what NumPy has a type for as it is.
            shared: bytes of dynamic shared memory.
            names: what the names of the source stand for, T among them: dtypes and numbers.
        """
        kernel = self.kernel(name, **names)
        grid = blocks if isinstance(blocks, tuple) else (blocks,)
        wide = wide_dtype(names["T"]).type
        given = tuple(wide(x) if type(x) is float else x for x in args)
        kernel(grid, (threads,), given, shared_mem=shared)

    def kernel(self, name: str, **names: Any) -> Any:
        """The kernel of that name, compiled if it has not been for this device."""
        key = name, cupy.cuda.runtime.getDevice(), *names.items()
        kernel = self._kernels.get(key)
        if kernel is None:
            module = cupy.RawModule(code=self.source(**names), options=("-std=c++17",))
            kernel = self._kernels[key] = module.get_function(name)
        return kernel

    def source(self, **names: Any) -> str:
        """All that is compiled where names have these meanings."""
        types = {"Wide": wide_dtype(names["T"])}
        types |= {name: meant for name, meant in names.items() if isinstance(meant, np.dtype)}
        lines = [f"typedef {_TYPES[dtype]} {name};" for name, dtype in types.items()]
        lines += [f"#define {name} {names[name]}" for name in names if name not in types]
        has_halves = "float16" in types.values()  # the others need none of CUDA's headers
        header = "#include <cupy/float16.cuh>\n" if has_halves else ""
        return "\n".join([header + _SHARED, *lines, self._source])


def wide_dtype(dtype: Any) -> Any:
    """What NumPy calls the type Wide where T is `dtype`."""
    return _WIDE[dtype]


def contiguous(x: Array | None) -> Any:
    """The same array, or a copy without gaps; None for none."""
    return x if x is None or x.flags.c_contiguous else x.copy()


def blocks_for(count: int, each: int = THREADS, most: int = MOST_BLOCKS) -> int:
    """How many blocks to launch for `count` items, of which one takes `each` at a time."""
    return max(1, min(-(-count // each), most))


def threads_of_row(length: int) -> int:
    """How many threads to give to a row, a power of two: about one for four numbers."""
    threads = WARP
    while threads < MOST_THREADS and 4 * threads < length:
        threads *= 2
    return threads
