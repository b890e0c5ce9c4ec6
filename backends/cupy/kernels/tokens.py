"""`embedding`, whose gradient is added up row by row of the table."""

from __future__ import annotations

import cupy

from tfx.backends.cupy.kernels.cuda import CALLS
from tfx.backends.cupy.kernels.segments import add_at
from tfx.core.backend import Array, Backend, Fused


def _embedding(B: Backend, table: Array, ids: Array) -> tuple[Array, None]:
    return B.take(table, ids, axis=0), None


def _embedding_vjp(
    B: Backend, g: Array, out: Array, saved: None, table: Array, ids: Array
) -> tuple[Array, None]:
    g_table = cupy.zeros(table.shape, table.dtype)
    add_at(g_table, ids, g)
    return g_table, None


KERNELS = (Fused("embedding", _embedding, _embedding_vjp, CALLS.embedding),)
