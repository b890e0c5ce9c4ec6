"""`softmax`, and `attention` in tiles: as many scores at a time as stay in a core's cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from tfx.backends.numpy.kernels.arrays import LIMITS, Array, floats
from tfx.core.backend import Backend, Fused

# ---- softmax -------------------------------------------------------------------------------


def _softmax_in_place(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis; zeros where every x is -inf."""
    limits = LIMITS[x.dtype]
    x -= np.maximum.reduce(x, -1, keepdims=True, initial=limits.min)
    np.exp(x, out=x)
    # Beside exp(0) = 1, the smallest number is nothing; it is there for rows without any.
    x /= np.add.reduce(x, -1, keepdims=True, initial=limits.smallest_normal)
    return x


def _softmax(B: Backend, x: Array) -> tuple[Array, None]:
    return _softmax_in_place(x.copy()), None


def _softmax_vjp(B: Backend, g: Array, out: Array, saved: None, x: Array) -> tuple[Array]:
    return (out * (g - np.vecdot(g, out)[..., None]),)


# ---- the scores of one tile --------------------------------------------------------------------

_TILE = 1 << 17  # scores
_FEWEST = 64  # queries in a tile: products with fewer rows are slow

Cut = tuple[Any, ...]
_ALL: Cut = (...,)
_POSITION = np.dtype(np.int64)  # of an offset


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

    def tiles(self) -> Iterable[tuple[Cut, Cut]]:
        """Cuts of the scores, each with that of the keys which its queries may see.

        They are indices of (..., T) and (..., S): of all queries where scores are not many, else
        of some queries of one head.
        """
        *heads, queries, _ = self.q.shape
        if math.prod(heads) * queries * self.k.shape[-2] > _TILE:
            return self._small_tiles()
        return ((_ALL, (..., slice(self._seen(queries)), slice(None))),)

    def _small_tiles(self) -> Iterator[tuple[Cut, Cut]]:
        *leading, queries = self.q.shape[:-1]
        at_once = max(_FEWEST, _TILE // self.k.shape[-2])
        for head in product(*map(range, leading)):
            for start in range(0, queries, at_once):
                stop = min(start + at_once, queries)
                yield (*head, slice(start, stop)), (*head, slice(self._seen(stop)))

    def _seen(self, stop: int) -> int:
        """How many keys the queries before `stop` see between them, but at least one."""
        keys: int = self.k.shape[-2]
        return min(max(self.first + stop, 1), keys) if self.causal else keys

    def weights(self, cut: Cut, seen: Cut) -> tuple[Array, Array]:
        """The weights of a tile before and after the factor."""
        weights = np.matmul(self.q[cut], self.k[seen].mT)
        weights *= self.scale
        queries, keys = weights.shape[-2:]
        first = self.first if cut is _ALL else self.first + cut[-1].start
        if self.causal and first + 1 < keys:
            np.copyto(weights, -np.inf, where=_unseen(queries, keys, first))
        if self.visible is not None:
            np.copyto(weights, -np.inf, where=~self.visible[cut][..., :keys])
        _softmax_in_place(weights)
        if self.factor is None:
            return weights, weights
        return weights, weights * self.factor[cut][..., :keys]


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
    q, k, v, out_heads = _split(q, heads), _split(k, heads), _split(v, heads), _split(out, heads)
    first = 0 if offset is None else int(offset)
    shape = (*q.shape[:-1], k.shape[-2])
    if visible is not None:
        visible = np.broadcast_to(visible, shape)
    if factor is not None:
        factor = np.broadcast_to(factor, shape)
    scores = _Scores(q, k, scale, causal, first, visible, factor)
    kept = None
    for cut, seen in scores.tiles():
        weights = scores.weights(cut, seen)
        np.matmul(weights[1], v[seen], out=out_heads[cut])
        kept = weights if cut is _ALL else None
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
    grads = (
        np.empty(q.shape, q.dtype),
        np.zeros(k.shape, k.dtype),
        np.zeros(v.shape, v.dtype),
    )
    g, out, v, g_q, g_k, g_v = (_split(x, heads) for x in (g, out, v, *grads))
    for cut, seen in scores.tiles():
        weights, used = kept or scores.weights(cut, seen)
        g_rows = g[cut]
        g_v[seen] += np.matmul(used.mT, g_rows)
        g_scores = np.matmul(g_rows, v[seen].mT)
        if scores.factor is not None:
            g_scores *= scores.factor[cut][..., : weights.shape[-1]]
        # The sum of weights times their gradients is that of outputs times theirs.
        g_scores -= np.vecdot(g_rows, out[cut])[..., None]
        g_scores *= weights
        g_scores *= scale
        np.matmul(g_scores, scores.k[seen], out=g_q[cut])
        g_k[seen] += np.matmul(g_scores.mT, scores.q[cut])
    return *grads, None, None, None, None


def _split(x: Array, heads: int | None) -> Array:
    """(..., T, heads * d) as (..., heads, T, d), sharing its memory where it can."""
    return x if heads is None else x.reshape((*x.shape[:-1], heads, -1)).swapaxes(-3, -2)


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
    if q.ndim < 2 or not q.size or not v.size:
        return False
    *outside, queries, width = q.shape
    if not (
        k.shape == (*outside, *k.shape[-2:-1], width)
        and k.shape[:-1] == v.shape[:-1]
        and (heads is None or width % heads == 0 == v.shape[-1] % heads)
        and isinstance(scale, float)
        and floats(q, k, v, factor)
        and (offset is None or (offset.shape == () and offset.dtype == _POSITION))
        and (visible is None or visible.dtype == np.bool_)
    ):
        return False
    if visible is None and factor is None:
        return True
    scores = (*outside, *(() if heads is None else (heads,)), queries, k.shape[-2])
    return all(x is None or _broadcasts(x.shape, scores) for x in (visible, factor))


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False)
    )


SOFTMAX = Fused("softmax", _softmax, _softmax_vjp, lambda B, x: x.size > 0 < x.ndim and floats(x))
ATTENTION = Fused("attention", _attention, _attention_vjp, _can_attend)
