"""`attention`: which of its two ways a call goes."""

from __future__ import annotations

from typing import Any

from tfx.backends.numpy.kernels import few_scores, score_tiles
from tfx.backends.numpy.kernels.arrays import Array, Calls
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Workspace, planned


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


ATTENTION = planned("attention", _attention, _attention_vjp, HOST.attention)
