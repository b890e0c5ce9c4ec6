"""`attention`: a few queries by one way, many by another, and the gradients of both."""

from __future__ import annotations

from typing import Any

from tfx.backends.cupy.kernels import attention_rows, attention_tiles
from tfx.backends.cupy.kernels.attention_call import WIDTHS
from tfx.core.backend import Array, Fused

FEW = 8
"""Up to so many queries, a tile of them would be mostly empty."""

_DTYPES = ("float16", "float32", "float64")


def _attention(
    B: Any,
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
) -> tuple[Array, Array]:
    attend = attention_rows.attend if q.shape[-2] <= FEW else attention_tiles.attend
    return attend(q, k, v, scale, offset, visible, factor, causal, heads)


def _attention_vjp(
    B: Any,
    g: Array,
    out: Array,
    log_totals: Array,
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
) -> tuple[Array | None, ...]:
    forward = q, k, v, scale, offset, visible, factor, causal, heads
    grads = attention_tiles.pull(g, out, log_totals, *forward)
    return (*grads, None, None, None, None)


def _fits(
    B: Any,
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
        q.dtype.name in _DTYPES
        and all(x is None or x.dtype == q.dtype for x in (k, v, factor))
        and (offset is None or (offset.shape == () and offset.dtype == "int64"))
        and (visible is None or visible.dtype == "bool")
        and all(_broadcasts(x.shape, scores) for x in (visible, factor) if x is not None)
    )


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False)
    )


ATTENTION = Fused("attention", _attention, _attention_vjp, supports=_fits)
