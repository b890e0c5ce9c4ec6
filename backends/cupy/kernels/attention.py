"""`attention`: a few queries by one way, many by another, and the gradients of both."""

from __future__ import annotations

import math
from typing import Any

from tfx.backends.cupy.kernels import attention_pull, attention_rows, attention_tiles
from tfx.backends.cupy.kernels.attention_call import WIDTHS, Given
from tfx.backends.cupy.kernels.cuda import CALLS
from tfx.core.backend import Array, Fused

_FEW = 4  # queries, which would leave most of a tile empty
_SOME = 16  # queries, for which a block each is better if tiles are too few for the device
_FEW_BLOCKS = 256  # about two for each multiprocessor of a large device


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
    given = Given(*args, **how)
    widest = max(given.q.shape[-1:] + given.v.shape[-1:], default=0)
    return CALLS.attention(B, *args, **how) and widest // (given.heads or 1) <= max(WIDTHS)


ATTENTION = Fused("attention", _attention, _attention_vjp, supports=_fits)
