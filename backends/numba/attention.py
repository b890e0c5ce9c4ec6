"""`softmax`, and `attention` in two ways: one compiled function for few queries or short texts, and
products by BLAS in tiles for many."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numba import prange

from tfx.backends.numba.arithmetic import exp, highest, row
from tfx.backends.numba.arrays import look_at, result, rows_of
from tfx.backends.numba.compiling import (
    MANY,
    Array,
    Count,
    Factors,
    Heads,
    Mask,
    Position,
    Real,
    Rows,
    helper,
    shared,
)
from tfx.backends.numba.rows.row import planned
from tfx.backends.numba.tiles import NO_MASK, Masks, Tiling, as_heads, no_factor
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Call, Workspace

# ---- softmax -------------------------------------------------------------------------------------


@shared
def _softmax_rows(out: Rows, x: Rows) -> None:
    real = x.dtype.type
    for i in prange(x.shape[0]):
        source, target = row(x, i), row(out, i)
        top = highest(source)
        total = real(0)
        for j in range(len(source)):
            e = exp(source[j] - top)
            target[j] = e
            total += e
        # The largest term is exp(0) = 1: the bound matters only to rows that saw nothing.
        share = real(1) / (real(0.5) if total < real(0.5) else total)
        for j in range(len(source)):
            target[j] *= share


@shared
def _softmax_pull(g_x: Rows, g: Rows, out: Rows) -> None:
    real = g.dtype.type
    for i in prange(g.shape[0]):
        weights, slope, target = row(out, i), row(g, i), row(g_x, i)
        mean = real(0)
        for j in range(len(slope)):
            mean += slope[j] * weights[j]
        for j in range(len(slope)):
            target[j] = weights[j] * (slope[j] - mean)


def _plan_softmax(B: Backend, space: Workspace, x: Array) -> tuple[Array, None, list[Call]]:
    calls: list[Call] = []
    out, rows = result(space, x.shape, x.dtype), rows_of(x, space, calls)
    calls.append((_softmax_rows.of(x.dtype, size=x.size), (out.target, rows)))
    return out.array, None, [*calls, *out.last_calls()]


def _plan_softmax_vjp(
    B: Backend, space: Workspace, g: Array, out: Array, saved: None, x: Array
) -> tuple[tuple[Array], list[Call]]:
    calls: list[Call] = []
    g_x = result(space, x.shape, x.dtype)
    args = g_x.target, rows_of(g, space, calls), rows_of(out, space, calls)
    calls.append((_softmax_pull.of(x.dtype, size=x.size), args))
    return (g_x.array,), [*calls, *g_x.last_calls()]


# ---- attention in one function -------------------------------------------------------------------


@helper
def _dots(out: Any, x: Any, rows: Any, at: Any, scale: Any) -> None:
    """scale * x @ row for the first rows at (text, head), four at a time, which read `x` once."""
    real = x.dtype.type
    text, head = at
    whole = len(out) - len(out) % 4
    for s in range(0, whole, 4):
        row0, row1 = row(rows, (text, head, s)), row(rows, (text, head, s + 1))
        row2, row3 = row(rows, (text, head, s + 2)), row(rows, (text, head, s + 3))
        dot0 = dot1 = dot2 = dot3 = real(0)
        for c in range(len(x)):
            dot0 += x[c] * row0[c]
            dot1 += x[c] * row1[c]
            dot2 += x[c] * row2[c]
            dot3 += x[c] * row3[c]
        out[s], out[s + 1] = dot0 * scale, dot1 * scale
        out[s + 2], out[s + 3] = dot2 * scale, dot3 * scale
    for s in range(whole, len(out)):
        last = row(rows, (text, head, s))
        dot = real(0)
        for c in range(len(x)):
            dot += x[c] * last[c]
        out[s] = dot * scale


@helper
def _mix(out: Any, weights: Any, rows: Any, at: Any) -> None:
    """The sum of the first rows at (text, head), each times its weight, four at a time."""
    text, head = at
    out[:] = out.dtype.type(0)
    whole = len(weights) - len(weights) % 4
    for s in range(0, whole, 4):
        row0, row1 = row(rows, (text, head, s)), row(rows, (text, head, s + 1))
        row2, row3 = row(rows, (text, head, s + 2)), row(rows, (text, head, s + 3))
        weight0, weight1 = weights[s], weights[s + 1]
        weight2, weight3 = weights[s + 2], weights[s + 3]
        for c in range(len(out)):
            near = weight0 * row0[c] + weight1 * row1[c]
            out[c] += near + (weight2 * row2[c] + weight3 * row3[c])
    for s in range(whole, len(weights)):
        last = row(rows, (text, head, s))
        for c in range(len(out)):
            out[c] += weights[s] * last[c]


@helper
def _attend_head(
    text: Any,
    head: Any,
    out: Any,
    weights: Any,
    used: Any,
    q: Any,
    k: Any,
    v: Any,
    scale: Any,
    first: Any,
    causal: Any,
    visible: Any,
    masked: Any,
    factor: Any,
    factored: Any,
) -> None:
    real = q.dtype.type
    keys = k.shape[2]
    for i in range(q.shape[2]):
        seen = min(max(first[0] + i + 1, 0), keys) if causal else keys
        scores = row(weights, (text, head, i))[:seen]
        _dots(scores, row(q, (text, head, i)), k, (text, head), scale)
        if masked:
            for s in range(seen):
                if not visible[text, head, i, s]:
                    scores[s] = real(-np.inf)
        top = highest(scores)
        total = real(0)
        for s in range(seen):
            e = exp(scores[s] - top)
            scores[s] = e
            total += e
        share = real(1) / (real(0.5) if total < real(0.5) else total)
        for s in range(seen):
            scores[s] *= share
        multiplied = scores
        if factored:
            multiplied = row(used, (text, head, i))[:seen]
            for s in range(seen):
                multiplied[s] = scores[s] * factor[text, head, i, s]
        _mix(row(out, (text, head, i)), multiplied, v, (text, head))


@shared
def _attend(
    out: Heads,
    weights: Heads,
    used: Heads,
    q: Heads,
    k: Heads,
    v: Heads,
    scale: Real,
    first: Position,
    causal: Count,
    visible: Mask,
    masked: Count,
    factor: Factors,
    factored: Count,
) -> None:
    texts, heads, keys = q.shape[0], q.shape[1], k.shape[2]
    seen = min(max(first[0] + q.shape[2], 0), keys) if causal else keys
    rest = q, k, v, scale, first, causal, visible, masked, factor, factored
    if 2 * texts * seen * heads * q.shape[3] < MANY:  # how far a cache is filled shows only here
        for n in range(texts * heads):
            _attend_head(n // heads, n % heads, out, weights, used, *rest)
    else:
        for n in prange(texts * heads):
            _attend_head(n // heads, n % heads, out, weights, used, *rest)


@shared
def _attend_pull(
    g_q: Heads,
    g_k: Heads,
    g_v: Heads,
    g: Heads,
    out: Heads,
    weights: Heads,
    q: Heads,
    k: Heads,
    v: Heads,
    scale: Real,
    first: Position,
    causal: Count,
    factor: Factors,
    factored: Count,
) -> None:
    real = q.dtype.type
    heads, queries, keys = q.shape[1], q.shape[2], k.shape[2]
    for n in prange(q.shape[0] * heads):
        text, head = n // heads, n % heads
        for s in range(keys):
            row(g_k, (text, head, s))[:] = real(0)
            row(g_v, (text, head, s))[:] = real(0)
        for i in range(queries):
            seen = min(max(first[0] + i + 1, 0), keys) if causal else keys
            slope, result = row(g, (text, head, i)), row(out, (text, head, i))
            query, g_query = row(q, (text, head, i)), row(g_q, (text, head, i))
            scores = row(weights, (text, head, i))
            # The sum of weights times their gradients is that of outputs times theirs.
            mean = real(0)
            for c in range(len(slope)):
                mean += slope[c] * result[c]
            g_query[:] = real(0)
            for s in range(seen):
                value, g_value = row(v, (text, head, s)), row(g_v, (text, head, s))
                key, g_key = row(k, (text, head, s)), row(g_k, (text, head, s))
                times = factor[text, head, i, s] if factored else real(1)
                along = real(0)
                for c in range(len(slope)):
                    along += slope[c] * value[c]
                g_score = scores[s] * (along * times - mean) * scale
                weight = scores[s] * times
                for c in range(len(slope)):
                    g_value[c] += weight * slope[c]
                for c in range(len(query)):
                    g_query[c] += g_score * key[c]
                for c in range(len(query)):
                    g_key[c] += g_score * query[c]


# ---- plans ---------------------------------------------------------------------------------------

_FEW = 8  # queries for which a key is read about as often as by a product
_SHORT = 1 << 12  # multiplications for the scores of one head that are done before a product begins


def _in_one(q: Array, k: Array) -> bool:
    """Whether one function is quicker than products."""
    queries: int = q.shape[2]
    keys: int = k.shape[2]
    return queries <= _FEW or queries * keys * q.shape[3] <= _SHORT


def _plan_attention(
    B: Backend,
    space: Workspace,
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    offset: Array | None,
    visible: Array | None,
    factor: Array | None,
    *,
    causal: bool,
    heads: int | None,
) -> tuple[Array, Array | None, list[Call]]:
    calls: list[Call] = []
    look = partial(as_heads, heads=heads)
    out = result(space, (*q.shape[:-1], v.shape[-1]), q.dtype, look=look)
    masks = _masks(q, k, heads, visible, factor, space, calls)
    q, k, v = (look_at(x, look, space, calls) for x in (q, k, v))
    if not _in_one(q, k):
        tiling = Tiling(q, k, v, scale, causal, masks, space)
        calls += tiling.forward(out.target, offset)
        return out.array, None, [*calls, *out.last_calls()]
    weights = space.saved((*q.shape[:3], k.shape[2]), q.dtype)
    first = _START if offset is None else offset.reshape(1)
    used = weights if factor is None else space.scratch(weights.shape, q.dtype)
    args = out.target, weights, used, q, k, v, scale, first, causal, *masks
    calls.append((_attend.of(q.dtype, size=_reading(k)), args))
    return out.array, weights, [*calls, *out.last_calls()]


def _plan_attention_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    weights: Array | None,
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    offset: Array | None,
    visible: Array | None,
    factor: Array | None,
    *,
    causal: bool,
    heads: int | None,
) -> tuple[tuple[Array | None, ...], list[Call]]:
    calls: list[Call] = []
    look = partial(as_heads, heads=heads)
    grads = [result(space, x.shape, x.dtype, of, look) for of, x in enumerate((q, k, v))]
    masks = _masks(q, k, heads, visible, factor, space, calls)
    g, out, q, k, v = (look_at(x, look, space, calls) for x in (g, out, q, k, v))
    g_q, g_k, g_v = (grad.target for grad in grads)
    if weights is None:
        tiling = Tiling(q, k, v, scale, causal, masks, space)
        calls += tiling.backward(g_q, g_k, g_v, g, offset)
    else:
        first = _START if offset is None else offset.reshape(1)
        args = g_q, g_k, g_v, g, out, weights, q, k, v, scale, first, causal, *masks[2:]
        calls.append((_attend_pull.of(q.dtype, size=_reading(k)), args))
    for grad in grads:
        calls += grad.last_calls()
    return (*(grad.array for grad in grads), None, None, None, None), calls


_START = np.zeros(1, np.int64)


def _reading(k: Array) -> int:
    """How many numbers there may be to read, if all keys are seen."""
    return 2 * k.size


def _masks(
    q: Array,
    k: Array,
    heads: int | None,
    visible: Array | None,
    factor: Array | None,
    space: Workspace,
    calls: list[Call],
) -> Masks:
    """What there is of both, as a compiled function takes it."""
    *outside, queries, _ = q.shape
    shape = (*outside, *(() if heads is None else (heads,)), queries, k.shape[-2])
    form = math.prod(outside), heads or 1, queries, k.shape[-2]

    def spread(x: Array) -> Array:
        wide = np.broadcast_to(x, shape)
        found: Array = wide.reshape(form)
        if np.may_share_memory(found, x):
            return found
        copy = space.scratch(shape, x.dtype)
        calls.append((np.copyto, (copy, wide)))
        found = copy.reshape(form)
        return found

    seen = NO_MASK if visible is None else spread(visible)
    times = no_factor(q.dtype) if factor is None else spread(factor)
    return seen, visible is not None, times, factor is not None


SOFTMAX = planned(
    "softmax",
    _plan_softmax,
    _plan_softmax_vjp,
    HOST.softmax,
)
ATTENTION = planned("attention", _plan_attention, _plan_attention_vjp, HOST.attention)
