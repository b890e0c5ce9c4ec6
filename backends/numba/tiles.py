"""Attention of many queries: products by BLAS of as many rows as stay in a core's cache, each with
the keys alone that its queries see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from tfx.backends.numba.arithmetic import exp, highest, row
from tfx.backends.numba.compiling import Array, Count, Factors, Mask, Real, Rows, compiled
from tfx.core.planning import Call, Workspace

Masks = tuple[Array, bool, Array, bool]
"""What is visible and what weights are multiplied by, each with whether it is there at all."""

NO_MASK = np.ones((1, 1, 1, 1), np.bool_)


@cache
def no_factor(dtype: np.dtype[Any]) -> Array:
    return np.ones((1, 1, 1, 1), dtype)


def as_heads(x: Array, heads: int | None) -> Array | None:
    """(..., positions, heads * n) as (texts, heads, positions, n) in the same memory; None where
    its numbers are not laid out so."""
    *outside, count, width = x.shape
    texts = x if len(outside) == 1 else x.reshape(-1, count, width)
    beside = x.strides[-1] == x.itemsize or width == 1
    if not beside or not np.may_share_memory(texts, x):
        return None
    among = heads or 1
    return texts.reshape(len(texts), count, among, width // among).swapaxes(1, 2)


@compiled
def _softmax_tile(
    weights: Rows,
    used: Rows,
    scale: Real,
    first: Count,
    causal: Count,
    visible: Mask,
    masked: Count,
    factor: Factors,
    factored: Count,
) -> None:
    real = weights.dtype.type
    keys = weights.shape[1]
    for i in range(weights.shape[0]):
        line = row(weights, i)
        seen = min(max(first + i + 1, 0), keys) if causal else keys
        scores = line[:seen]
        line[seen:] = real(0)
        for s in range(seen):
            scores[s] *= scale
        if masked:
            for s in range(seen):
                if not visible[0, 0, i, s]:
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
        if factored:
            multiplied = row(used, i)
            for s in range(keys):
                multiplied[s] = line[s] * factor[0, 0, i, s]


@compiled
def _pull_tile(slopes: Rows, weights: Rows, scale: Real, factor: Factors, factored: Count) -> None:
    real = weights.dtype.type
    for i in range(weights.shape[0]):
        line, slope = row(weights, i), row(slopes, i)
        if factored:
            for s in range(len(line)):
                slope[s] *= factor[0, 0, i, s]
        mean = real(0)
        for s in range(len(line)):
            mean += slope[s] * line[s]
        for s in range(len(line)):
            slope[s] = line[s] * (slope[s] - mean) * scale


_QUERIES = 128  # in a tile


class Tiling:
    """The calls of one attention, heads apart: q (texts, heads, T, d), k (texts, heads, S, d)."""

    def __init__(
        self,
        q: Array,
        k: Array,
        v: Array,
        scale: float,
        causal: bool,
        masks: Masks,
        space: Workspace,
    ) -> None:
        self._q, self._k, self._v = q, k, v
        self._scale, self._causal, self._masks = scale, causal, masks
        self._space = space
        self._softmax, self._pull = _softmax_tile.of(q.dtype), _pull_tile.of(q.dtype)

    def forward(self, out: Array, offset: Array | None) -> list[Call]:
        """The calls that write `out` (texts, heads, T, e)."""
        weights, used = self._weights()

        def calls(first: int) -> Iterator[Call]:
            for head, rows, seen in self._tiles(first):
                some = _part(weights, rows, seen), _part(used, rows, seen)
                yield from self._weigh(*some, head, rows, first)
                yield np.matmul, (some[1], self._v[head][:seen], out[head][rows])

        return _at(offset, calls)

    def backward(
        self, g_q: Array, g_k: Array, g_v: Array, g: Array, offset: Array | None
    ) -> list[Call]:
        """The calls that write the gradients, from that by the result.

        Weights are computed a second time, as Dao et al. 2022 do (arXiv:2205.14135): keeping them
        costs as much time, and memory besides.
        """
        (weights, used), slopes = self._weights(), self._scores()
        parts = [self._space.scratch(x.shape[2:], x.dtype) for x in (g_k, g_v)]

        def calls(first: int) -> Iterator[Call]:
            for head, rows, seen in self._tiles(first):
                some = _part(weights, rows, seen), _part(used, rows, seen)
                yield from self._weigh(*some, head, rows, first)
                g_rows, g_scores = g[head][rows], _part(slopes, rows, seen)
                yield np.matmul, (g_rows, self._v[head][:seen].T, g_scores)
                _, _, factor, factored = self._cut(head, rows, seen)
                yield self._pull, (g_scores, some[0], self._scale, factor, factored)
                yield np.matmul, (g_scores, self._k[head][:seen], g_q[head][rows])
                begun = rows.stop < self._q.shape[2]
                yield from _add(g_k[head], parts[0], g_scores, self._q[head][rows], begun)
                yield from _add(g_v[head], parts[1], some[1], g_rows, begun)

        return _at(offset, calls)

    def _scores(self) -> Array:
        count = min(self._q.shape[2], _QUERIES) * self._k.shape[2]
        scores: Array = self._space.scratch((count,), self._q.dtype)
        return scores

    def _weights(self) -> tuple[Array, Array]:
        """Room for the weights of a tile, before and after the factor."""
        weights = self._scores()
        return weights, self._scores() if self._masks[3] else weights

    def _tiles(self, first: int) -> Iterator[tuple[tuple[int, int], slice, int]]:
        """Each head with some queries, the last ones first, and how many keys these see between
        them, but at least one."""
        texts, heads, queries, _ = self._q.shape
        keys = self._k.shape[2]
        for head in product(range(texts), range(heads)):
            for start in reversed(range(0, queries, _QUERIES)):
                stop = min(start + _QUERIES, queries)
                seen = min(max(first + stop, 1), keys) if self._causal else keys
                yield head, slice(start, stop), seen

    def _weigh(
        self, weights: Array, used: Array, head: tuple[int, int], rows: slice, first: int
    ) -> Iterator[Call]:
        """The calls for the weights of a tile."""
        seen = weights.shape[1]
        yield np.matmul, (self._q[head][rows], self._k[head][:seen].T, weights)
        place = self._scale, first + rows.start, self._causal
        yield self._softmax, (weights, used, *place, *self._cut(head, rows, seen))

    def _cut(self, head: tuple[int, int], rows: slice, seen: int) -> Masks:
        visible, masked, factor, factored = self._masks
        text, among = head
        here = slice(text, text + 1), slice(among, among + 1), rows, slice(seen)
        return (
            visible[here] if masked else visible,
            masked,
            factor[here] if factored else factor,
            factored,
        )


def _part(buffer: Array, rows: slice, seen: int) -> Array:
    """As much of it as a tile needs."""
    count: int = rows.stop - rows.start
    return buffer[: count * seen].reshape(count, seen)


def _add(grad: Array, part: Array, left: Array, right: Array, begun: bool) -> Iterator[Call]:
    """The calls that add left.T @ right to the first rows of a gradient, or begin it by that."""
    seen = left.shape[1]
    if begun:
        yield np.matmul, (left.T, right, part[:seen])
        yield np.add, (grad[:seen], part[:seen], grad[:seen])
    else:
        yield np.matmul, (left.T, right, grad[:seen])
        if seen < len(grad):
            yield np.copyto, (grad[seen:], 0)


def _at(offset: Array | None, calls: Callable[[int], Iterable[Call]]) -> list[Call]:
    """What is to be called; with an offset, one call that reads it first."""
    if offset is None:
        return list(calls(0))

    def at_offset(offset: Array) -> None:
        for function, args in calls(int(offset)):
            function(*args)

    return [(at_offset, (offset,))]
