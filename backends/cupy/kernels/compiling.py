"""From CUDA C++ with placeholders for types to kernels, compiled at first use and kept.

A source is written over these types, which the kernel's dtypes stand for:

- `T`: what arguments and results are stored as;
- `A`: what is computed in, which is float for halves;
- others as a source has them, such as `S` for what a weight is stored as.

bfloat16 is stored as words of 16 bits: its numbers are the upper halves of floats.
"""

from __future__ import annotations

from functools import cache

import cupy

_STORED = {
    "int32": "int",
    "int64": "long long",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "float16": "__half",
    "float32": "float",
    "float64": "double",
    "int8": "signed char",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
}

_PRELUDE = r"""
#include <cuda_fp16.h>

__device__ inline float wide(float x) { return x; }
__device__ inline double wide(double x) { return x; }
__device__ inline float wide(__half x) { return __half2float(x); }
__device__ inline float wide(unsigned short x) { return __uint_as_float((unsigned)x << 16); }
__device__ inline float wide(signed char x) { return x; }

__device__ inline void store(float* y, float x) { *y = x; }
__device__ inline void store(double* y, double x) { *y = x; }
__device__ inline void store(__half* y, float x) { *y = __float2half_rn(x); }

#define WARP 32
#define ALL_LANES 0xffffffffu
"""

THREADS = 256
"""In a block of kernels that have no reason for another number."""

MOST_BLOCKS = 65535
"""Along the second axis of a grid."""


WARP = 32


@cache
def compiled(source: str, name: str, **names: str | int) -> cupy.RawKernel:
    """The kernel of that name, with a meaning for each name in its source: a dtype for a type, a
    number for a macro. Other meanings are another compilation, so there are to be few."""
    lines = [f"typedef {'double' if names['T'] == 'float64' else 'float'} A;"]
    for here, meant in names.items():
        if isinstance(meant, str):
            lines.append(f"typedef {_STORED[meant]} {here};")
        else:
            lines.append(f"#define {here} {meant}")
    return cupy.RawKernel("\n".join([_PRELUDE, *lines, source]), name)


def blocks_for(count: int, threads: int = THREADS) -> int:
    """Blocks of so many threads to have one for each of `count` items."""
    return -(-count // threads)


def pointer(x: cupy.ndarray | None) -> cupy.ndarray | int:
    """An optional array as an argument of a kernel, which gets a null pointer for none."""
    return 0 if x is None else x
