"""`softmax`, and `attention` in tiles: as many scores at a time as stay in a core's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from tfx.backends.numpy.kernels.arrays import LOWEST, Array, floats
from tfx.core.backend import Backend, Fused

# ---- softmax -------------------------------------------------------------------------------


def _softmax_in_place(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis; zeros where every x is -inf."""
    x -= np.maximum(x.max(-1, keepdims=True), LOWEST[x.dtype])
    np.exp(x, out=x)
    x /= np.maximum(x.sum(-1, keepdims=True), 0.5)
    return x


def _softmax(B: Backend, x: Array) -> tuple[Array, None]:
    return _softmax_in_place(x.copy()), None


def _softmax_vjp(B: Backend, g: Array, out: Array, saved: None, x: Array) -> tuple[Array]:
    return (out * (g - np.vecdot(g, out)[..., None]),)


# ---- the scores of one tile --------------------------------------------------------------------

_TILE = 1 << 17  # scores
_FEWEST = 64  # queries in a tile: products with fewer rows are slow


@dataclass(slots=True)
class _Scores:
    """What the weights are computed from, heads apart: q (..., T, d), k (..., S, d)."""

    q: Array
    k: Array
    scale: float
    causal: bool
    first: int  # the first query's position among the keys
    visible: Array | None  # both (..., T, S)
    factor: Array | None

    def tiles(self) -> Iterator[tuple[tuple[Any, ...], int]]:
        """Cuts of the scores, each with the number of keys that its queries may see.

        A cut is an index of (..., T): all of it where that is not much, else some queries of one
        head.
        """
        *leading, queries = self.q.shape[:-1]
        keys = self.k.shape[-2]
        if math.prod(leading) * queries * keys <= _TILE:
            yield (...,), self._seen(queries)
            return
        at_once = max(_FEWEST, _TILE // keys)
        for head in product(*map(range, leading)):
            for start in range(0, queries, at_once):
                stop = min(start + at_once, queries)
                yield (*head, slice(start, stop)), self._seen(stop)

    def _seen(self, stop: int) -> int:
        """How many keys the queries before `stop` see between them, but at least one."""
        keys: int = self.k.shape[-2]
        return min(max(self.first + stop, 1), keys) if self.causal else keys

    def weights(self, cut: tuple[Any, ...], keys: int) -> tuple[Array, Array]:
        """The weights of a tile before and after the factor."""
        q, k = self.q[cut], self.k[_keys(cut, keys)]
        weights = np.matmul(q, k.swapaxes(-1, -2))
        weights *= self.scale
        first = self.first + (cut[-1].start if isinstance(cut[-1], slice) else 0)
        if self.causal and first + 1 < keys:
            np.copyto(weights, -np.inf, where=_unseen(q.shape[-2], keys, first))
        if self.visible is not None:
            np.copyto(weights, -np.inf, where=~self.visible[cut][..., :keys])
        _softmax_in_place(weights)
        if self.factor is None:
            return weights, weights
        return weights, weights * self.factor[cut][..., :keys]


def _keys(cut: tuple[Any, ...], keys: int) -> tuple[Any, ...]:
    """The index of the first `keys` keys, or of their values, that go with a cut of the queries."""
    return (..., slice(keys), slice(None)) if cut == (...,) else (*cut[:-1], slice(keys))


def _unseen(queries: int, keys: int, first: int) -> Array:
    """True for the keys that come after each query, the first of which stands at `first`."""
    if first < 0:
        return np.arange(keys) > np.arange(first, first + queries)[:, None]
    longest = max(first + queries, keys)
    return _above_diagonal(1 << (longest - 1).bit_length())[first : first + queries, :keys]


@lru_cache(maxsize=2)
def _above_diagonal(size: int) -> Array:
    return ~np.tri(size, dtype=bool)


# ---- attention -------------------------------------------------------------------------------


def _attention(
    B: Backend,
    q: Array,
    k: Array,
    v: Array,
    scale: Any,
    offset: Array | None,
    visible: Array | None,
    factor: Array | None,
    *,
    causal: bool,
    heads: int | None,
) -> tuple[Array, Any]:
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    q, k, v, out_heads = (_split(x, heads) for x in (q, k, v, out))
    shape = (*q.shape[:-1], k.shape[-2])
    scores = _Scores(
        q,
        k,
        scale,
        causal,
        0 if offset is None else int(offset),
        None if visible is None else np.broadcast_to(visible, shape),
        None if factor is None else np.broadcast_to(factor, shape),
    )
    kept = None
    for cut, keys in scores.tiles():
        weights = scores.weights(cut, keys)
        np.matmul(weights[1], v[_keys(cut, keys)], out=out_heads[cut])
        kept = weights if cut == (...,) else None
    return out, (scores, kept)


def _attention_vjp(
    B: Backend,
    g: Array,
    out: Array,
    saved: Any,
    q: Array,
    k: Array,
    v: Array,
    scale: Any,
    offset: Array | None,
    visible: Array | None,
    factor: Array | None,
    *,
    causal: bool,
    heads: int | None,
) -> tuple[Array | None, ...]:
    """Computes the weights a second time where there were many, as Dao et al. 2022 do
    (arXiv:2205.14135): keeping them costs as much time, and memory besides."""
    scores, kept = saved
    grads = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    g, out, v, g_q, g_k, g_v = (_split(x, heads) for x in (g, out, v, *grads))
    for cut, keys in scores.tiles():
        weights, used = kept or scores.weights(cut, keys)
        seen, g_rows = _keys(cut, keys), g[cut]
        g_v[seen] += np.matmul(used.swapaxes(-1, -2), g_rows)
        g_scores = np.matmul(g_rows, v[seen].swapaxes(-1, -2))
        if scores.factor is not None:
            g_scores *= scores.factor[cut][..., :keys]
        # The sum of weights times their gradients is that of outputs times theirs.
        g_scores -= np.vecdot(g_rows, out[cut])[..., None]
        g_scores *= weights
        g_scores *= scale
        np.matmul(g_scores, scores.k[seen], out=g_q[cut])
        g_k[seen] += np.matmul(g_scores.swapaxes(-1, -2), scores.q[cut])
    return *grads, None, None, None, None


def _split(x: Array, heads: int | None) -> Array:
    """(..., T, heads * d) as (..., heads, T, d), sharing its memory where it can."""
    return x if heads is None else x.reshape(*x.shape[:-1], heads, -1).swapaxes(-3, -2)


def _can_attend(
    B: Backend,
    q: Array,
    k: Array,
    v: Array,
    scale: Any,
    offset: Array | None,
    visible: Array | None,
    factor: Array | None,
    *,
    causal: bool,
    heads: int | None,
) -> bool:
    if not (
        q.ndim > 1
        and q.shape[:-2] == k.shape[:-2]
        and k.shape[:-1] == v.shape[:-1]
        and q.shape[-1] == k.shape[-1]
        and q.size > 0
        and v.size > 0
        and (heads is None or q.shape[-1] % heads == 0 == v.shape[-1] % heads)
        and isinstance(scale, float)
        and floats(q, k, v, factor)
        and (offset is None or (offset.shape == () and offset.dtype == np.int64))
        and (visible is None or visible.dtype == np.bool_)
    ):
        return False
    if visible is None and factor is None:
        return True
    scores = (*q.shape[:-2], *(() if heads is None else (heads,)), q.shape[-2], k.shape[-2])
    return all(x is None or _broadcasts(x.shape, scores) for x in (visible, factor))


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False)
    )


SOFTMAX = Fused("softmax", _softmax, _softmax_vjp, lambda B, x: x.size > 0 < x.ndim and floats(x))
ATTENTION = Fused("attention", _attention, _attention_vjp, _can_attend)
