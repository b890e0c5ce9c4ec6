"""`attention`: which of its two ways a call goes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfx.backends.numpy.kernels import few_scores, score_tiles
from tfx.backends.numpy.kernels.arrays import Array, Calls, floats
from tfx.core.backend import Backend
from tfx.core.planning import Workspace, planned

_POSITION = np.dtype(np.int64)  # of an offset


def _attention(
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
) -> tuple[Array, Any, Calls]:
    if offset is None and visible is None and factor is None and few_scores.suits(q, k, v, heads):
        return few_scores.attend(space, q, k, v, scale, causal, heads or 1)
    return score_tiles.attend(space, q, k, v, scale, offset, visible, factor, causal, heads)


def _attention_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    saved: Any,
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    *masks: Array | None,
    causal: bool,
    heads: int | None,
) -> tuple[tuple[Array | None, ...], Calls]:
    pull = few_scores.pull if isinstance(saved, few_scores.Saved) else score_tiles.pull
    grads, calls = pull(space, g, out, saved, q, k, v)
    return (*grads, None, None, None, None), calls


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


ATTENTION = planned("attention", _attention, _attention_vjp, _can_attend)
