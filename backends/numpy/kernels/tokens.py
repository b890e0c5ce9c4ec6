"""What goes by token ids: `cross_entropy` and `embedding`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfx.backends.numpy.kernels.arrays import (
    Array,
    Calls,
    as_matrix,
    as_rows,
    filled,
    identity,
    product,
    result_rows,
    row_sums,
)
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Call, Workspace, planned

_BLOCK = 1 << 16  # numbers that one pass after the other goes over while they are in the cache
_FEW = 64  # ids, each of which may as well be a row of zeros and a one
_FEW_LOGITS = 1 << 12

# ---- cross_entropy: log(sum(exp(x))) - x[target] ---------------------------------------


def _cross_entropy(
    B: Backend, space: Workspace, logits: Array, targets: Array
) -> tuple[Array, Any, Calls]:
    calls: Calls = []
    rows = as_matrix(as_rows(space, calls, logits))
    losses = space.result(targets.shape, rows.dtype)
    plan = _few_losses if _are_few(rows) else _many_losses
    return losses, plan(space, calls, rows, targets, losses), calls


def _are_few(rows: Array) -> bool:
    return (
        rows.shape[1] <= _FEW
        and rows.size <= _FEW_LOGITS
        and rows.dtype == np.float64  # for the digits that a large row's logarithm has
        and rows.flags.c_contiguous
    )


_SAFE = 300.0**2
"""No number is beyond the reach of `exp`, and no sum, where their squares add up to less."""


def _few_losses(
    space: Workspace, calls: Calls, rows: Array, targets: Array, losses: Array
) -> tuple[Array, Array, Array]:
    """Targets as rows of zeros and a one."""
    count, vocabulary = rows.shape
    shape = targets.shape
    chosen, exps = (space.saved(rows.shape, rows.dtype) for _ in range(2))
    starts = np.arange(0, rows.size, vocabulary).reshape(shape)
    places = space.scratch(shape, starts.dtype)
    picked, logs = (space.scratch((count,), rows.dtype) for _ in range(2))
    total, summed = row_sums(space.saved, exps, 1.0)
    flat = rows.reshape(-1)

    def exponentials() -> None:
        if flat.dot(flat) < _SAFE:
            np.exp(rows, exps)
        else:
            top = rows.max(-1, keepdims=True)
            np.subtract(rows, top, exps)
            np.exp(exps, exps)
            np.subtract(picked, top[:, 0], picked)

    calls += (
        (np.add, (targets, starts, places)),
        (flat.take, (places, None, picked.reshape(shape), "clip")),
        _one_hot(targets, chosen.reshape(*shape, vocabulary)),
        (exponentials, ()),
        summed,
        (np.log, (total[:, 0], logs)),
        (np.subtract, (logs.reshape(shape), picked.reshape(shape), losses)),
    )
    return chosen, exps, total


def _one_hot(ids: Array, out: Array) -> Call:
    """A row for each id, of zeros and a one."""
    return identity(out.shape[-1], out.dtype).take, (ids, 0, out, "clip")


def _many_losses(
    space: Workspace, calls: Calls, rows: Array, targets: Array, losses: Array
) -> tuple[None, Array, Array]:
    """Block by block."""
    count, vocabulary = rows.shape
    exps = space.saved(rows.shape, rows.dtype)
    total = space.saved((count, 1), rows.dtype)
    top = space.scratch((count, 1), rows.dtype)
    at_once = max(1, _BLOCK // vocabulary)
    cuts = [slice(start, start + at_once) for start in range(0, count, at_once)]
    blocks = [(rows[cut], exps[cut], total[cut], top[cut]) for cut in cuts]
    every = np.arange(count)

    def compute() -> None:
        for x, e, sums, largest in blocks:
            np.maximum.reduce(x, -1, out=largest, keepdims=True)
            np.subtract(x, largest, e)
            np.exp(e, e)
            np.add.reduce(e, -1, out=sums, keepdims=True)
        picked = rows[every, targets.reshape(-1)] - top[:, 0]
        np.subtract(np.log(total[:, 0]).reshape(losses.shape), picked.reshape(losses.shape), losses)

    calls.append((compute, ()))
    return None, exps, total


def _cross_entropy_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    saved: tuple[Array | None, Array, Array],
    logits: Array,
    targets: Array,
) -> tuple[tuple[Array, None], Calls]:
    calls: Calls = []
    chosen, exps, total = saved
    g_logits, rows, last = result_rows(space, logits.shape, logits.dtype)
    rows = as_matrix(rows)
    g_column = as_matrix(as_rows(space, calls, g[..., None]))
    if chosen is not None:
        calls += (
            (np.divide, (exps, total, rows)),
            (np.subtract, (rows, chosen, rows)),
            (np.multiply, (rows, _spread(space, calls, g, g_column, rows.shape), rows)),
        )
    else:
        share = space.scratch(g_column.shape, g.dtype)
        every = np.arange(len(rows))

        def take_off() -> None:
            rows[every, targets.reshape(-1)] -= g_column[:, 0]

        calls += (
            (np.divide, (g_column, total, share)),
            (np.multiply, (exps, share, rows)),
            (take_off, ()),
        )
    return (g_logits, None), [*calls, *last]


def _spread(
    space: Workspace, calls: Calls, g: Array, column: Array, shape: tuple[int, ...]
) -> Array:
    """A number for each row in all of it; the one number, where it is the same for all."""
    if not any(g.strides) and g.size:
        return np.asarray(g[(0,) * g.ndim + (...,)])
    wide: Array = space.scratch(shape, g.dtype)
    calls.append(product(column, filled((1, shape[1]), 1.0, g.dtype), wide))
    return wide


# ---- embedding: the rows of a table ----------------------------------------------------------


def _embedding(B: Backend, space: Workspace, table: Array, ids: Array) -> tuple[Array, None, Calls]:
    out = space.result((*ids.shape, table.shape[1]), table.dtype)
    return out, None, [(table.take, (ids, 0, out, "clip"))]


def _embedding_vjp(
    B: Backend, space: Workspace, g: Array, out: Array, saved: None, table: Array, ids: Array
) -> tuple[tuple[Array, None], Calls]:
    g_table = space.result(table.shape, table.dtype)
    vocabulary = len(table)
    if vocabulary > _FEW:
        return (g_table, None), [(g_table.fill, (0.0,)), (np.add.at, (g_table, ids, g))]
    calls: Calls = []
    g_rows = as_matrix(as_rows(space, calls, g))
    chosen = space.scratch((*ids.shape, vocabulary), g.dtype)
    calls += (
        _one_hot(ids, chosen),
        product(chosen.reshape(-1, vocabulary).T, g_rows, g_table),
    )
    return (g_table, None), calls


CROSS_ENTROPY = planned("cross_entropy", _cross_entropy, _cross_entropy_vjp, HOST.cross_entropy)
EMBEDDING = planned("embedding", _embedding, _embedding_vjp, HOST.embedding)
