"""The optimizer: `euclidean_norm`, and `adamw_step` in blocks that stay in a
core's cache over its many passes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import add, divide, multiply, sqrt, subtract

from tfx.backends.numpy.kernels.arrays import Array, Calls, filled
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Workspace, planned

# ---- euclidean_norm ----------------------------------------------------------------------

_ROW = 1 << 14  # so many squares are added up one by one: sums of more would lose digits


def _euclidean_norm(B: Backend, space: Workspace, x: Array) -> tuple[Array, None, Calls]:
    calls: Calls = []
    norm = space.result((), x.dtype)
    square = space.scratch((), x.dtype)
    if not x.flags.c_contiguous:
        copy = space.scratch(x.shape, x.dtype)
        calls.append((np.copyto, (copy, x)))
        x = copy
    flat = x.reshape(-1)
    count = flat.size // _ROW
    if count:
        rows, end = flat[: count * _ROW].reshape(count, _ROW), flat[count * _ROW :]
        sums = space.scratch((count + 1,), x.dtype)
        calls += (
            (np.vecdot, (rows, rows, sums[:count])),
            (end.dot, (end, sums[count, ...])),
            (np.add.reduce, (sums, 0, None, square)),
        )
    else:
        calls.append((flat.dot, (flat, square)))
    calls.append((np.sqrt, (square, norm)))
    return norm, None, calls


def _euclidean_norm_vjp(
    B: Backend, space: Workspace, g: Array, out: Array, saved: None, x: Array
) -> tuple[tuple[Array], Calls]:
    g_x = space.result(x.shape, x.dtype)
    by_norm = space.scratch((), x.dtype)
    return (g_x,), [(np.divide, (g, out, by_norm)), (np.multiply, (x, by_norm, g_x))]


# ---- adamw_step ----------------------------------------------------------------------------

_BLOCK = 1 << 15  # numbers; nine arrays of as many are at work at a time


def _adamw_step(
    B: Backend,
    space: Workspace,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rates: Array,
    decay: Array | None,
    healthy: Array | None,
    factor: Array | None,
    *,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[tuple[Array, Array, Array], None, Calls]:
    old = p, m, v
    new = tuple(
        x if space.may_overwrite(x, i) else space.result(x.shape, x.dtype, i)
        for i, x in enumerate(old)
    )
    moved = [(x, y) for x, y in zip(new, old, strict=True) if x is not y]
    numbers = [filled((), x, p.dtype) for x in (beta1, 1 - beta1, beta2, 1 - beta2)]
    keep_m, take_g, keep_v, take_square = numbers
    shift, scale, rate = (space.scratch((), p.dtype) for _ in range(3))
    blocks = _blocks(space, p, g, m, v, decay, *new)

    def step() -> None:
        """The second moment's correction is taken out of the root: a pass less."""
        if healthy is not None and not healthy:
            for x, y in moved:
                np.copyto(x, y)
            return
        lr, m_correction, v_correction = rates.tolist()
        root = math.sqrt(v_correction)
        shift[...] = eps / root
        scale[...] = m_correction / root
        rate[...] = lr
        if decay is None:
            scale[...] = lr * m_correction / root
        for p, g, m, v, shrink, new_p, new_m, new_v, move, work in blocks:
            if factor is not None:
                g = multiply(g, factor, work)
            multiply(m, keep_m, new_m)
            multiply(g, take_g, move)
            add(new_m, move, new_m)
            multiply(v, keep_v, new_v)
            multiply(g, g, move)
            multiply(move, take_square, move)
            add(new_v, move, new_v)
            sqrt(new_v, move)
            add(move, shift, move)
            divide(new_m, move, move)
            multiply(move, scale, move)
            if shrink is not None:
                multiply(p, shrink, work)
                add(move, work, move)
                multiply(move, rate, move)
            subtract(p, move, new_p)

    return (new[0], new[1], new[2]), None, [(step, ())]


def _blocks(
    space: Workspace, p: Array, g: Array, m: Array, v: Array, decay: Array | None, *new: Array
) -> list[tuple[Any, ...]]:
    """Parts of all arrays, each with the room that its step needs."""
    if p.ndim > 1 or p.size <= _BLOCK:
        room = (space.scratch(p.shape, p.dtype) for _ in range(2))
        return [(p, g, m, v, decay, *new, *room)]
    move, work = (space.scratch((_BLOCK,), p.dtype) for _ in range(2))
    blocks = []
    for start in range(0, p.size, _BLOCK):
        here = slice(start, start + _BLOCK)
        size = min(_BLOCK, p.size - start)
        part = decay[here] if decay is not None and decay.ndim else decay
        now = (x[here] for x in (p, g, m, v))
        blocks.append((*now, part, *(x[here] for x in new), move[:size], work[:size]))
    return blocks


EUCLIDEAN_NORM = planned(
    "euclidean_norm", _euclidean_norm, _euclidean_norm_vjp, HOST.euclidean_norm
)
ADAMW_STEP = planned("adamw_step", _adamw_step, supports=HOST.adamw_step)
