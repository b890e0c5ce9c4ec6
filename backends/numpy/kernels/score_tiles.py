"""Attention in tiles: as many scores at a time as stay in a core's cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from tfx.backends.numpy.kernels.arrays import Array, Calls, Memory, filled
from tfx.backends.numpy.kernels.softmax import softmax_into
from tfx.core.planning import Workspace

_TILE = 1 << 17  # scores
_FEWEST = 64  # queries in a tile: products with fewer rows are slow

Cut = tuple[Any, ...]
_ALL: Cut = (...,)


class _Room(NamedTuple):
    """Memory for one tile of scores, flat."""

    weights: Array
    used: Array | None  # the weights times the factor, where there is one

    def parts(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Weights of that shape before and after the factor."""
        size = math.prod(shape)
        weights = self.weights[:size].reshape(shape)
        return weights, weights if self.used is None else self.used[:size].reshape(shape)


@dataclass(slots=True)
class Scores:
    """What the weights are computed from, heads apart: q (..., T, d), k (..., S, d)."""

    q: Array
    k: Array
    scale: Array
    causal: bool
    offset: Array | None  # the first query's position among the keys, read when it is needed
    visible: Array | None  # both (..., T, S)
    factor: Array | None
    in_one: bool = False  # whether all scores are few enough to be one tile

    def __post_init__(self) -> None:
        self.in_one = math.prod(self.q.shape[:-1]) * self.k.shape[-2] <= _TILE

    @property
    def _at_once(self) -> int:
        """How many queries of a head are in a tile."""
        queries, keys = self.q.shape[-2], self.k.shape[-2]
        found: int = min(queries, max(_FEWEST, _TILE // keys))
        return found

    def room(self, memory: Memory) -> _Room:
        """For the largest tile."""
        rows = math.prod(self.q.shape[:-1]) if self.in_one else self._at_once
        size, dtype = (rows * self.k.shape[-2],), self.q.dtype
        return _Room(memory(size, dtype), None if self.factor is None else memory(size, dtype))

    def tiles(self) -> Iterable[tuple[Cut, Cut]]:
        """Cuts of the scores, each with that of the keys which its queries may see.

        They are indices of (..., T) and (..., S): of all queries where scores are not many, else
        of some queries of one head.
        """
        first = self._first()
        if self.in_one:
            return ((_ALL, (..., slice(self._seen(first + self.q.shape[-2])), slice(None))),)
        return self._small_tiles(first)

    def _small_tiles(self, first: int) -> Iterator[tuple[Cut, Cut]]:
        *leading, queries = self.q.shape[:-1]
        at_once = self._at_once
        for head in product(*map(range, leading)):
            for start in range(0, queries, at_once):
                stop = min(start + at_once, queries)
                yield (*head, slice(start, stop)), (*head, slice(self._seen(first + stop)))

    def _first(self) -> int:
        return 0 if self.offset is None else int(self.offset)

    def _seen(self, stop: int) -> int:
        """How many keys the queries before `stop` see between them, but at least one."""
        keys: int = self.k.shape[-2]
        return min(max(stop, 1), keys) if self.causal else keys

    def weights(self, cut: Cut, seen: Cut, room: _Room) -> tuple[Array, Array]:
        """The weights of a tile before and after the factor."""
        q, k = self.q if cut is _ALL else self.q[cut], self.k[seen]
        queries, keys = q.shape[-2], k.shape[-2]
        weights, used = room.parts((*q.shape[:-1], keys))
        np.matmul(q, k.mT, weights)
        np.multiply(weights, self.scale, weights)
        if self.causal:
            first = self._first() + (0 if cut is _ALL else cut[-1].start)
            if first + 1 < keys:
                np.copyto(weights, -np.inf, where=_unseen(queries, keys, first))
        if self.visible is not None:
            np.copyto(weights, -np.inf, where=~self.visible[cut][..., :keys])
        softmax_into(rows := weights.reshape(-1, keys), rows)
        if self.factor is not None:
            np.multiply(weights, self.factor[cut][..., :keys], used)
        return weights, used

    def kept(self, seen: Cut, room: _Room) -> tuple[Array, Array]:
        """The weights that `weights` left in the room for all scores."""
        return room.parts((*self.q.shape[:-1], self.k[seen].shape[-2]))


def _unseen(queries: int, keys: int, first: int) -> Array:
    """True for the keys that come after each query, the first of which stands at `first`."""
    if first < 0:
        return np.arange(keys) > np.arange(first, first + queries)[:, None]
    longest = max(first + queries, keys)
    return _above_diagonal(1 << (longest - 1).bit_length())[first : first + queries, :keys]


@lru_cache(maxsize=2)
def _above_diagonal(size: int) -> Array:
    return ~np.tri(size, dtype=bool)


# ---- the plans ---------------------------------------------------------------------------------

Saved = tuple[Scores, _Room | None, int | None]


def attend(
    space: Workspace,
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    offset: Array | None,
    visible: Array | None,
    factor: Array | None,
    causal: bool,
    heads: int | None,
) -> tuple[Array, Saved, Calls]:
    """The result (..., T, e), what `pull` wants to see, and the call."""
    out = space.result((*q.shape[:-1], v.shape[-1]), q.dtype)
    q, k, values, out_heads = (
        _split(q, heads),
        _split(k, heads),
        _split(v, heads),
        _split(out, heads),
    )
    shape = (*q.shape[:-1], k.shape[-2])
    if visible is not None:
        visible = np.broadcast_to(visible, shape)
    if factor is not None:
        factor = np.broadcast_to(factor, shape)
    scores = Scores(q, k, filled((), scale, q.dtype), causal, offset, visible, factor)
    room = scores.room(space.saved if scores.in_one else space.scratch)

    def compute() -> None:
        for cut, seen in scores.tiles():
            used = scores.weights(cut, seen, room)[1]
            np.matmul(used, values[seen], out_heads[cut])

    return out, (scores, room if scores.in_one else None, heads), [(compute, ())]


def pull(
    space: Workspace, g: Array, out: Array, saved: Saved, q: Array, k: Array, v: Array
) -> tuple[tuple[Array, Array, Array], Calls]:
    """The gradients by q, k and v.

    Computes the weights a second time where there were many, as Dao et al. 2022 do
    (arXiv:2205.14135): keeping them costs as much time, and memory besides.
    """
    scores, kept, heads = saved
    grads = g_q, g_k, g_v = [space.result(x.shape, x.dtype, i) for i, x in enumerate((q, k, v))]
    g, out, values, q_heads, k_heads, v_heads = (_split(x, heads) for x in (g, out, v, *grads))
    room = kept or scores.room(space.scratch)
    one = slice(None) if kept else (0,) * (k_heads.ndim - 2)
    by_weights = space.scratch(room.weights.shape, q.dtype)
    by_keys = space.scratch(k_heads[one].shape, q.dtype)
    by_values = space.scratch(v_heads[one].shape, q.dtype)

    def compute() -> None:
        g_k.fill(0)
        g_v.fill(0)
        for cut, seen in scores.tiles():
            weights, used = scores.kept(seen, kept) if kept else scores.weights(cut, seen, room)
            keys = weights.shape[-1]
            g_rows = g[cut]
            v_heads[seen] += np.matmul(used.mT, g_rows, by_values[..., :keys, :])
            g_scores = by_weights[: weights.size].reshape(weights.shape)
            np.matmul(g_rows, values[seen].mT, g_scores)
            if scores.factor is not None:
                g_scores *= scores.factor[cut][..., :keys]
            # The sum of weights times their gradients is that of outputs times theirs.
            g_scores -= np.vecdot(g_rows, out[cut])[..., None]
            g_scores *= weights
            g_scores *= scores.scale
            np.matmul(g_scores, scores.k[seen], q_heads[cut])
            k_heads[seen] += np.matmul(g_scores.mT, scores.q[cut], by_keys[..., :keys, :])

    return (g_q, g_k, g_v), [(compute, ())]


def _split(x: Array, heads: int | None) -> Array:
    """(..., T, heads * d) as (..., heads, T, d), sharing its memory."""
    return x if heads is None else x.reshape((*x.shape[:-1], heads, -1)).swapaxes(-3, -2)
