"""What goes by token ids: `cross_entropy` and `embedding`. No id reads or writes out of bounds."""

from __future__ import annotations

import numpy as np
from numba import prange

from tfx.backends.numba.arithmetic import exp, highest, row
from tfx.backends.numba.arrays import as_one, flat, result, rows_of
from tfx.backends.numba.compiling import Array, Ids, Row, Rows, compiled, shared
from tfx.backends.numba.rows.row import planned
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Call, Workspace

# ---- cross_entropy: log(sum(exp(x))) - x[target] ------------------------------------------------


@shared
def _cross_entropy_rows(out: Row, tops: Row, logs: Row, logits: Rows, targets: Ids) -> None:
    real = logits.dtype.type
    for i in prange(logits.shape[0]):
        source = row(logits, i)
        top = highest(source)
        total = real(0)
        for j in range(len(source)):
            total += exp(source[j] - top)
        tops[i], logs[i] = top, np.log(total)
        target = targets[i]
        known = 0 <= target < len(source)
        out[i] = logs[i] - (source[target] - top if known else real(0))


@shared
def _cross_entropy_pull(
    g_logits: Rows, g: Row, logits: Rows, targets: Ids, tops: Row, logs: Row
) -> None:
    for i in prange(logits.shape[0]):
        source, target = row(logits, i), row(g_logits, i)
        top, log, slope, chosen = tops[i], logs[i], g[i], targets[i]
        for j in range(len(source)):
            target[j] = exp(source[j] - top - log) * slope
        if 0 <= chosen < len(source):
            target[chosen] -= slope


@shared
def _cross_entropy_pull_in_place(logits: Rows, g: Row, targets: Ids, tops: Row, logs: Row) -> None:
    for i in prange(logits.shape[0]):
        both = row(logits, i)
        top, log, slope, chosen = tops[i], logs[i], g[i], targets[i]
        for j in range(len(both)):
            both[j] = exp(both[j] - top - log) * slope
        if 0 <= chosen < len(both):
            both[chosen] -= slope


def _plan_cross_entropy(
    B: Backend, space: Workspace, logits: Array, targets: Array
) -> tuple[Array, tuple[Array, Array], list[Call]]:
    calls: list[Call] = []
    rows, chosen = rows_of(logits, space, calls), flat(targets, space, calls)
    out = result(space, targets.shape, logits.dtype, look=as_one)
    tops, logs = space.saved((2, len(rows)), logits.dtype)
    function = _cross_entropy_rows.of(logits.dtype, targets.dtype, logits.size)
    calls.append((function, (out.target, tops, logs, rows, chosen)))
    return out.array, (tops, logs), [*calls, *out.last_calls()]


def _plan_cross_entropy_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    saved: tuple[Array, Array],
    logits: Array,
    targets: Array,
) -> tuple[tuple[Array, None], list[Call]]:
    calls: list[Call] = []
    dtypes = logits.dtype, targets.dtype, logits.size
    known = flat(targets, space, calls), *saved
    rows, slopes = rows_of(logits, space, calls), flat(g, space, calls)
    if space.may_overwrite(logits) and np.may_share_memory(rows, logits):
        calls.append((_cross_entropy_pull_in_place.of(*dtypes), (rows, slopes, *known)))
        return (logits, None), calls
    g_logits = result(space, logits.shape, logits.dtype)
    calls.append((_cross_entropy_pull.of(*dtypes), (g_logits.target, slopes, rows, *known)))
    return (g_logits.array, None), [*calls, *g_logits.last_calls()]


# ---- embedding: the rows of a table -------------------------------------------------------------


@compiled
def _gather(out: Rows, table: Rows, ids: Ids) -> None:
    for i in range(len(ids)):
        target = row(out, i)
        if 0 <= ids[i] < table.shape[0]:
            source = row(table, ids[i])
            for j in range(len(source)):
                target[j] = source[j]
        else:
            target[:] = table.dtype.type(np.nan)


@compiled
def _scatter(g_table: Rows, g: Rows, ids: Ids) -> None:
    for i in range(g_table.shape[0]):
        row(g_table, i)[:] = g.dtype.type(0)
    for i in range(len(ids)):
        if 0 <= ids[i] < g_table.shape[0]:
            source, target = row(g, i), row(g_table, ids[i])
            for j in range(len(source)):
                target[j] += source[j]


def _plan_embedding(
    B: Backend, space: Workspace, table: Array, ids: Array
) -> tuple[Array, None, list[Call]]:
    calls: list[Call] = []
    out = result(space, (*ids.shape, table.shape[1]), table.dtype)
    where = rows_of(table, space, calls), flat(ids, space, calls)
    calls.append((_gather.of(table.dtype, ids.dtype), (out.target, *where)))
    return out.array, None, [*calls, *out.last_calls()]


def _plan_embedding_vjp(
    B: Backend, space: Workspace, g: Array, out: Array, saved: None, table: Array, ids: Array
) -> tuple[tuple[Array, None], list[Call]]:
    calls: list[Call] = []
    g_table = result(space, table.shape, table.dtype)
    where = rows_of(g, space, calls), flat(ids, space, calls)
    calls.append((_scatter.of(table.dtype, ids.dtype), (g_table.target, *where)))
    return (g_table.array, None), [*calls, *g_table.last_calls()]


CROSS_ENTROPY = planned(
    "cross_entropy", _plan_cross_entropy, _plan_cross_entropy_vjp, HOST.cross_entropy
)
EMBEDDING = planned("embedding", _plan_embedding, _plan_embedding_vjp, HOST.embedding)
