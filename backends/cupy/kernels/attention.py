"""`attention`: a few queries by one way, many by another, and the gradients of both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfx.backends.cupy.kernels import attention_pull, attention_rows, attention_tiles
from tfx.backends.cupy.kernels.attention_call import WIDTHS, Given
from tfx.backends.cupy.kernels.cuda import floats
from tfx.core.backend import Array, Fused

_FEW = 4  # queries, which would leave most of a tile empty
_SOME = 16  # queries, for which a block each is better if tiles are too few for the device
_FEW_BLOCKS = 256  # about two for each multiprocessor of a large device

_POSITION, _BOOL = np.dtype(np.int64), np.dtype(np.bool_)


def _attention(B: Any, *args: Any, **how: Any) -> tuple[Array, Array]:
    given = Given(*args, **how)
    few = _are_few(given.q, given.heads)
    return attention_rows.attend(given) if few else attention_tiles.attend(given)


def _are_few(q: Array, heads: int | None) -> bool:
    *outside, queries, _ = q.shape
    blocks = math.prod(outside) * (heads or 1) * queries
    few: bool = queries <= _FEW or (queries <= _SOME and blocks <= _FEW_BLOCKS)
    return few


def _attention_vjp(
    B: Any, g: Array, out: Array, log_totals: Array, *args: Any, **how: Any
) -> tuple[Array | None, ...]:
    grads = attention_pull.pull(g, out, log_totals, Given(*args, **how))
    return (*grads, None, None, None, None)


def _fits(B: Any, *args: Any, **how: Any) -> bool:
    q, k, v, scale, offset, visible, factor, _, heads = Given(*args, **how)
    if q.ndim < 2 or not (q.size and k.size and v.size) or not isinstance(scale, int | float):
        return False
    *outside, queries, width = q.shape
    if k.shape != (*outside, *k.shape[-2:-1], width) or k.shape[:-1] != v.shape[:-1]:
        return False
    if width % (heads or 1) or v.shape[-1] % (heads or 1):
        return False
    if max(width, v.shape[-1]) // (heads or 1) > max(WIDTHS):
        return False
    scores = (*outside, *(() if heads is None else (heads,)), queries, k.shape[-2])
    return (
        floats(q, k, v, factor)
        and (offset is None or (offset.shape == () and offset.dtype == _POSITION))
        and (visible is None or visible.dtype == _BOOL)
        and all(_broadcasts(x.shape, scores) for x in (visible, factor) if x is not None)
    )


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False)
    )


ATTENTION = Fused("attention", _attention, _attention_vjp, supports=_fits)
