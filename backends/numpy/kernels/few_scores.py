"""Attention over few keys, all heads in one product.

Each head's queries stand in rows of their own, zero outside of the head's columns. Then one product
with all keys gives the scores of all heads, a row for each query and head, and another the
gradients by the keys. Most of what is multiplied is zero, but a call costs more than such products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy import divide, exp, multiply

from tfx.backends.numpy.kernels.arrays import (
    Array,
    Calls,
    filled,
    product,
    row_sums,
)
from tfx.backends.numpy.kernels.softmax import pull_softmax, softmax_into
from tfx.core.planning import Workspace

_MANY = 1 << 14  # products of two numbers for the scores of all heads

_SAFE = {np.dtype(np.float32): 80.0**2, np.dtype(np.float64): 600.0**2}
"""No number is beyond the reach of `exp`, and no sum, where their squares add up to less."""


class Saved(NamedTuple):
    """The queries as the heads' rows (heads * T, C), and the weights (heads * T, S)."""

    rows: Array
    weights: Array
    scale: Array
    heads: int


def suits(q: Array, k: Array, v: Array, heads: int | None) -> bool:
    """Whether the calls themselves are what takes the time."""
    if q.ndim != 2 or len(q) == 1 or q.shape[1] != v.shape[1]:
        return False
    return (heads or 1) * q.size * len(k) <= _MANY


def attend(
    space: Workspace, q: Array, k: Array, v: Array, scale: float, causal: bool, heads: int
) -> tuple[Array, Saved, Calls]:
    """The result (T, C), what `pull` wants to see, and the calls."""
    out = space.result(q.shape, q.dtype)
    rows = _zeros(q, heads)
    scores = space.scratch((len(rows), len(k)), q.dtype)
    weights = space.saved(scores.shape, q.dtype)
    wide = space.scratch(rows.shape, q.dtype)
    factor = filled((), scale, q.dtype)
    calls: Calls = [
        (np.copyto, (_by_head(rows, heads), _split(q, heads))),
        product(rows, k.T, scores),
        (np.multiply, (scores, factor, scores)),
        (_weigh(space, scores, weights, len(q) if causal else None), ()),
        product(weights, v, wide),
        (np.copyto, (_split(out, heads), _by_head(wide, heads))),
    ]
    return out, Saved(rows, weights, factor, heads), calls


def _weigh(
    space: Workspace, scores: Array, weights: Array, queries: int | None
) -> Callable[[], None]:
    """Fills in the softmax of scores; with a number of queries to a head, the causal one."""
    total, (summed, (ones, _)) = row_sums(space.scratch, weights, 1.0)
    flat = scores.reshape(-1)
    safe = _SAFE[scores.dtype]
    seen = None if queries is None else _seen(scores.shape, queries, scores.dtype)

    def weigh() -> None:
        if flat.dot(flat) < safe:
            exp(scores, weights)
            if seen is not None:
                multiply(weights, seen, weights)
            summed(ones, total)
            divide(weights, total, weights)
        else:
            if seen is not None:
                np.copyto(scores, -np.inf, where=seen == 0)
            softmax_into(scores, weights)

    return weigh


def pull(
    space: Workspace, g: Array, out: Array, saved: Saved, q: Array, k: Array, v: Array
) -> tuple[tuple[Array, Array, Array], Calls]:
    """The gradients by q, k and v."""
    rows, weights, scale, heads = saved
    g_q, g_k, g_v = (space.result(x.shape, x.dtype, i) for i, x in enumerate((q, k, v)))
    g_rows = _zeros(q, heads)
    g_weights, g_scores = (space.scratch(weights.shape, q.dtype) for _ in range(2))
    wide = space.scratch(rows.shape, q.dtype)
    calls: Calls = [
        (np.copyto, (_by_head(g_rows, heads), _split(g, heads))),
        product(weights.T, g_rows, g_v),
        product(g_rows, v.T, g_weights),
        *pull_softmax(space, weights, g_weights, g_scores),
        (np.multiply, (g_scores, scale, g_scores)),
        product(g_scores, k, wide),
        (np.copyto, (_split(g_q, heads), _by_head(wide, heads))),
        product(g_scores.T, rows, g_k),
    ]
    return (g_q, g_k, g_v), calls


# ---- the heads' rows -----------------------------------------------------------------------


def _zeros(x: Array, heads: int) -> Array:
    """Room for the heads' rows of `x`; its own, since the zeros in it are to stay."""
    return np.zeros((heads * len(x), x.shape[1]), x.dtype)


def _by_head(rows: Array, heads: int) -> Array:
    """What is not zero in the heads' rows, as (T, heads, d)."""
    blocks = rows.reshape(heads, -1, heads, rows.shape[1] // heads)
    view: Array = np.einsum("hthd->thd", blocks)
    return view


def _split(x: Array, heads: int) -> Array:
    """(T, C) as (T, heads, d)."""
    return x.reshape(len(x), heads, -1)


@lru_cache(maxsize=64)
def _seen(shape: tuple[int, int], queries: int, dtype: np.dtype[Any]) -> Array:
    """One where a query sees the key, zero elsewhere."""
    return np.tile(np.tri(queries, shape[1], dtype=dtype), (shape[0] // queries, 1))
