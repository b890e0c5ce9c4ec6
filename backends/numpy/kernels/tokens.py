"""What goes by token ids: `cross_entropy` and `embedding`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfx.backends.numpy.kernels.arrays import INDICES, Array, as_rows, floats
from tfx.core.backend import Backend, Fused

_BLOCK = 1 << 16  # numbers that one pass after the other goes over while they are in the cache

# ---- cross_entropy: log(sum(exp(x))) - x[target] ---------------------------------------


def _cross_entropy(B: Backend, logits: Array, targets: Array) -> tuple[Array, Any]:
    rows = as_rows(logits)
    chosen = np.arange(len(rows)), targets.reshape(-1)
    exps = np.empty(rows.shape, rows.dtype)
    total = np.empty(len(rows), rows.dtype)
    picked = rows[chosen]
    at_once = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), at_once):
        here = slice(start, start + at_once)
        top = rows[here].max(-1, keepdims=True)
        picked[here] -= top[:, 0]
        e = np.subtract(rows[here], top, out=exps[here])
        np.exp(e, out=e)
        np.add.reduce(e, -1, out=total[here])
    return (np.log(total) - picked).reshape(targets.shape), (exps, total, chosen)


def _cross_entropy_vjp(
    B: Backend, g: Array, out: Array, saved: Any, logits: Array, targets: Array
) -> tuple[Array, None]:
    exps, total, chosen = saved
    g_rows = g.reshape(-1)
    g_logits = exps * (g_rows / total)[:, None]
    g_logits[chosen] -= g_rows
    return g_logits.reshape(logits.shape), None


def _can_cross_entropy(B: Backend, logits: Array, targets: Array) -> bool:
    return (
        logits.shape[:-1] == targets.shape
        and targets.dtype in INDICES
        and logits.ndim > 1
        and logits.shape[-1] > 0
        and floats(logits)
    )


# ---- embedding: the rows of a table ----------------------------------------------------------


def _embedding(B: Backend, table: Array, ids: Array) -> tuple[Array, None]:
    return table.take(ids, axis=0), None


def _embedding_vjp(
    B: Backend, g: Array, out: Array, saved: None, table: Array, ids: Array
) -> tuple[Array, None]:
    g_table = np.zeros(table.shape, table.dtype)
    np.add.at(g_table, ids, g)
    return g_table, None


def _can_embed(B: Backend, table: Array, ids: Array) -> bool:
    return table.ndim == 2 and ids.size > 0 and ids.dtype in INDICES and floats(table)


CROSS_ENTROPY = Fused("cross_entropy", _cross_entropy, _cross_entropy_vjp, _can_cross_entropy)
EMBEDDING = Fused("embedding", _embedding, _embedding_vjp, _can_embed)
