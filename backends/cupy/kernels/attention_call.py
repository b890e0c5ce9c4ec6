"""What the kernels of `attention` are told about a call, and what all of them share in CUDA C++.

A kernel sees heads apart, as (texts, heads, rows, columns). It reads arrays where they lie: of each
it gets the steps from one text, head and row to the next; only columns have to lie side by side.
Head sizes, lengths and steps are arguments, so there is one compiled variant for each dtype and
width class, whatever the shapes.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import cupy
import numpy as np

from tfx.core.backend import Array

WIDTHS = (64, 128, 256)
"""A head's columns are held in registers and tiles that have room for one of these."""

_STORED = {"float16": "float16", "float32": "float", "float64": "double"}
_SUMS = {"float16": np.float32, "float32": np.float32, "float64": np.float64}
_MOST_BLOCKS = (1 << 31) - 1

_PRELUDE = r"""
// Stored: the dtype of the arrays. Sum: what is computed in. WIDTH: room for the columns of a head.
#define LOWEST ((Sum)__int_as_float(0xff800000))   // -infinity
#define EVERY_LANE 0xffffffffu

struct Steps { long long text, head, row; };
struct MaskSteps { long long text, head, query, key; };

struct Call {
  long long texts, heads, queries, keys;
  long long width, value_width;          // of a head, in q and k, and in v
  long long causal;
  Steps q, k, v, out;
  MaskSteps visible, factor;
};

// How many of the first keys a query may see; `position` is where the first query stands.
__device__ __forceinline__ long long seen_by(
    const Call& call, long long position, long long query) {
  if (!call.causal) return call.keys;
  const long long count = position + query + 1;
  return count < 0 ? 0 : count < call.keys ? count : call.keys;
}

// The scores of one head of one text have these masks, either of which may be missing.
struct Masks {
  const bool* visible;
  const Stored* factor;
  MaskSteps visible_steps, factor_steps;

  __device__ Masks(const Call& call, const bool* visible_, const Stored* factor_,
                   long long text, long long head)
      : visible(visible_), factor(factor_),
        visible_steps(call.visible), factor_steps(call.factor) {
    if (visible) visible += text * visible_steps.text + head * visible_steps.head;
    if (factor) factor += text * factor_steps.text + head * factor_steps.head;
  }
  __device__ __forceinline__ bool shows(long long query, long long key) const {
    return !visible || visible[query * visible_steps.query + key * visible_steps.key];
  }
  __device__ __forceinline__ Sum times(long long query, long long key) const {
    return factor ? (Sum)factor[query * factor_steps.query + key * factor_steps.key] : (Sum)1;
  }
};

// The sum, or the maximum, over groups of COUNT neighbouring lanes, for each lane of the group.
// Every thread of the warp has to come here.
template <int COUNT> __device__ __forceinline__ Sum sum_of_lanes(Sum x) {
  for (int far = COUNT / 2; far > 0; far /= 2) x += __shfl_xor_sync(EVERY_LANE, x, far);
  return x;
}
template <int COUNT> __device__ __forceinline__ Sum highest_of_lanes(Sum x) {
  for (int far = COUNT / 2; far > 0; far /= 2) x = fmax(x, __shfl_xor_sync(EVERY_LANE, x, far));
  return x;
}

// What scores are taken relative to: a row that saw nothing has no highest one.
__device__ __forceinline__ Sum base_of(Sum top) { return top == LOWEST ? (Sum)0 : top; }
"""


def sum_dtype(x: Array) -> Any:
    """What the kernels add up arrays like `x` in."""
    return _SUMS[x.dtype.name]


@cache
def compiled(source: str, name: str, dtype: str, width: int, **macros: int) -> Any:
    """A kernel of a source behind the prelude, for one dtype and width class.

    It is compiled at its first call, together with the others of its source.
    """
    types = {"Stored": _STORED[dtype], "Sum": "double" if dtype == "float64" else "float"}
    lines = [f"typedef {kind} {type};" for type, kind in types.items()]
    lines += [f"#define {name} {value}" for name, value in {"WIDTH": width, **macros}.items()]
    if dtype == "float16":  # the others need none of CUDA's headers
        lines.insert(0, "#include <cupy/float16.cuh>")
    code = "\n".join([*lines, _PRELUDE, source])
    return cupy.RawModule(code=code, options=("--std=c++17",)).get_function(name)


def width_class(*columns: int) -> int:
    """The least class that has room for heads of so many columns."""
    return next(width for width in WIDTHS if max(columns) <= width)


def blocks(count: int) -> tuple[int]:
    """A grid for so many pieces of work; blocks go on to further ones where there are too many."""
    return (min(count, _MOST_BLOCKS),)


def by_head(x: Array, heads: int | None) -> Array:
    """(..., rows, heads * columns), or (..., heads, rows, columns) without `heads`, as
    (texts, heads, rows, columns): a view, or a copy where no steps lead through the array."""
    *outside, rows, width = x.shape
    if heads is None:
        *texts, inner = outside or [1]
        x = x.reshape(math.prod(texts), inner, rows, width)
    else:
        x = x.reshape(math.prod(outside), rows, heads, width // heads).swapaxes(1, 2)
    side_by_side = x.strides[-1] == x.itemsize or x.shape[-1] == 1
    return x if side_by_side else cupy.ascontiguousarray(x)


def over_scores(x: Array | None, q: Array, k: Array, heads: int | None) -> Array | None:
    """A mask that broadcasts with the scores of raw q and k, as (texts, heads, queries, keys)."""
    if x is None:
        return None
    *outside, queries, _ = q.shape
    keys = k.shape[-2]
    whole = (*outside, *(() if heads is None else (heads,)), queries, keys)
    *texts, inner = whole[:-2] or (1,)
    return cupy.broadcast_to(x, whole).reshape(math.prod(texts), inner, queries, keys)


def described(
    q: Array, k: Array, v: Array, out: Array, masks: tuple[Array | None, ...], causal: bool
) -> Any:
    """The struct `Call` for arrays by head."""
    texts, heads, queries, width = q.shape
    numbers = [texts, heads, queries, k.shape[2], width, v.shape[3], int(causal)]
    for x in (q, k, v, out):
        numbers += steps(x)
    for mask in masks:
        numbers += [0] * 4 if mask is None else [n // mask.itemsize for n in mask.strides]
    return struct(numbers)


def steps(x: Array) -> list[int]:
    """The struct `Steps` of an array by head, as numbers."""
    return [n // x.itemsize for n in x.strides[:3]]


def struct(numbers: list[int]) -> Any:
    """A struct of 64-bit integers, which a kernel takes by value."""
    return np.array(numbers, np.int64).view(f"V{8 * len(numbers)}")
