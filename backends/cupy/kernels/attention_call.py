"""What the kernels of `attention` are told about a call, and what all of them share in CUDA C++.

A kernel sees heads apart, as (texts, heads, rows, columns). It reads arrays where they lie: of each
it gets the steps from one text, head and row to the next; only columns have to lie side by side.
Head sizes, lengths and steps are arguments, so there is one compiled variant for each dtype and
width class, whatever the shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from tfx.backends.cupy.kernels.cuda import wide_dtype
from tfx.core.backend import Array

WIDTHS = (64, 128, 256)
"""A head's columns are held in registers and tiles that have room for one of these."""

CALL = r"""
// WIDTH is room for the columns of a head.
#define LOWEST ((Wide)__int_as_float(0xff800000))   // -infinity

struct Steps { Index text, head, row; };
struct MaskSteps { Index text, head, query, key; };

struct Call {
  Index texts, heads, queries, keys;
  Index width, value_width;          // of a head, in q and k, and in v
  Index causal;
  Steps q, k, v, out;
  MaskSteps visible, factor;
};

// How many of the first keys a query may see; `position` is where the first query stands.
__device__ __forceinline__ Index seen_by(
    const Call& call, Index position, Index query) {
  if (!call.causal) return call.keys;
  const Index count = position + query + 1;
  return count < 0 ? 0 : count < call.keys ? count : call.keys;
}

// The scores of one head of one text have these masks, either of which may be missing.
struct Masks {
  const bool* visible;
  const T* factor;
  MaskSteps visible_steps, factor_steps;

  __device__ Masks(const Call& call, const bool* visible_, const T* factor_,
                   Index text, Index head)
      : visible(visible_), factor(factor_),
        visible_steps(call.visible), factor_steps(call.factor) {
    if (visible) visible += text * visible_steps.text + head * visible_steps.head;
    if (factor) factor += text * factor_steps.text + head * factor_steps.head;
  }
  __device__ __forceinline__ bool shows(Index query, Index key) const {
    return !visible || visible[query * visible_steps.query + key * visible_steps.key];
  }
  __device__ __forceinline__ Wide times(Index query, Index key) const {
    return factor ? (Wide)factor[query * factor_steps.query + key * factor_steps.key] : (Wide)1;
  }
};

// What scores are taken relative to: a row that saw nothing has no highest one.
__device__ __forceinline__ Wide base_of(Wide top) { return top == LOWEST ? (Wide)0 : top; }
"""


# ---- how arrays lie in memory --------------------------------------------------------------------

Form = tuple[tuple[int, ...], tuple[int, ...]]
"""The shape of an array, and its strides in bytes."""


class Given(NamedTuple):
    """The arguments of `attention`."""

    q: Array
    k: Array
    v: Array
    scale: Any
    offset: Array | None
    visible: Array | None
    factor: Array | None
    causal: bool
    heads: int | None


@dataclass(frozen=True, slots=True)
class Call:
    """The struct `Call`, and what a launch goes by."""

    heads: int  # of all texts
    queries: int
    keys: int
    value_width: int
    width_class: int
    struct: Any


def results_of(given: Given) -> tuple[Array, Array]:
    """Room for the result (..., T, e) and the logarithms of the totals (heads of all texts, T)."""
    *outside, queries, _ = given.q.shape
    out = cupy.empty((*outside, queries, given.v.shape[-1]), given.q.dtype)
    heads = math.prod(outside) * (given.heads or 1)
    return out, cupy.empty((heads, queries), wide_dtype(out.dtype))


def reading(given: Given, out: Array) -> tuple[tuple[Array | None, ...], Call]:
    """The arguments that kernels begin with, and what they are told of them and of `out`, which is
    `readable`.

    That is made once for each form of a call: a decode step asks for it in every layer.
    """
    q, k, v = (readable(x, given.heads) for x in given[:3])
    masks = [_over_scores(x, given) for x in (given.visible, given.factor)]
    forms = (x if x is None else _form(x) for x in (q, k, v, out, *masks))
    call = _described(*forms, q.itemsize, given.causal, given.heads)
    return (q, k, v, given.offset, *masks), call


def steps_of(xs: tuple[Array, ...], heads: int | None) -> Any:
    """The structs `Steps` of several arrays that are `readable`, one behind the other."""
    return _steps_of(tuple(map(_form, xs)), xs[0].itemsize, heads)


def readable(x: Array, heads: int | None) -> Array:
    """`x` itself, or a copy where no steps lead from head to head, or columns lie apart."""
    found = _by_head(_form(x), x.itemsize, heads)
    return cupy.ascontiguousarray(x) if found is None else x


def _over_scores(x: Array | None, given: Given) -> Array | None:
    """A mask that broadcasts with the scores, as (texts, heads, queries, keys)."""
    if x is None:
        return None
    *outside, queries, _ = given.q.shape
    keys, heads = given.k.shape[-2], given.heads
    whole = (*outside, *(() if heads is None else (heads,)), queries, keys)
    *texts, inner = whole[:-2] or (1,)
    return cupy.broadcast_to(x, whole).reshape(math.prod(texts), inner, queries, keys)


def _form(x: Array) -> Form:
    return x.shape, x.strides


@lru_cache(maxsize=256)
def _described(
    q: Form,
    k: Form,
    v: Form,
    out: Form,
    visible: Form | None,
    factor: Form | None,
    itemsize: int,
    causal: bool,
    heads: int | None,
) -> Call:
    (texts, inner, queries, width), _ = _found(q, itemsize, heads)
    (*_, keys, value_width), _ = _found(v, itemsize, heads)
    numbers = [texts, inner, queries, keys, width, value_width, int(causal)]
    for form in (q, k, v, out):
        numbers += _found(form, itemsize, heads)[1]
    for mask, size in ((visible, 1), (factor, itemsize)):
        numbers += [0] * 4 if mask is None else [n // size for n in mask[1]]
    width_class = next(room for room in WIDTHS if max(width, value_width) <= room)
    return Call(texts * inner, queries, keys, value_width, width_class, _struct(numbers))


@lru_cache(maxsize=256)
def _steps_of(forms: tuple[Form, ...], itemsize: int, heads: int | None) -> Any:
    return _struct([n for form in forms for n in _found(form, itemsize, heads)[1]])


def _struct(numbers: list[int]) -> Any:
    """A struct of 64-bit integers, which a kernel takes by value."""
    return np.array(numbers, np.int64).view(f"V{8 * len(numbers)}")


def _found(form: Form, itemsize: int, heads: int | None) -> Form:
    found = _by_head(form, itemsize, heads)
    assert found is not None, "what is readable has steps"
    return found


@lru_cache(maxsize=1024)
def _by_head(form: Form, itemsize: int, heads: int | None) -> Form | None:
    """The shape (texts, heads, rows, columns) of an array (..., rows, heads * columns), or without
    `heads` (..., heads, rows, columns), and its steps in numbers from text to text, head to head
    and row to row; None where there are none.

    >>> _by_head(((2, 5, 12), (480, 96, 8)), 8, 3)
    ((2, 3, 5, 4), (60, 4, 12))
    """
    (*outside, rows, width), (*far, step, column) = form
    if column != itemsize and width > 1:
        return None
    if heads is None:
        inner, far_head = (outside.pop(), far.pop()) if outside else (1, 0)
    else:
        inner, width = heads, width // heads
        far_head = width * itemsize
    far_text = 0
    texts = 1
    for count, stride in zip(reversed(outside), reversed(far), strict=True):
        if texts == 1:
            far_text = stride
        elif count > 1 and stride != texts * far_text:
            return None
        texts *= count
    shape = texts, inner, rows, width
    return shape, (far_text // itemsize, far_head // itemsize, step // itemsize)
