"""The optimizer: `euclidean_norm`, and `adamw_step` in one pass over its whole state."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tfx.backends.numba.arithmetic import row
from tfx.backends.numba.arrays import Result, as_one, constant, flat, result, rows_of
from tfx.backends.numba.compiling import Array, Flag, Real, Row, Rows, helper, shared
from tfx.backends.numba.rows.row import planned
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Call, Workspace

# ---- euclidean_norm -----------------------------------------------------------------------------

_BLOCK = 1 << 12  # so many squares are added up by themselves: sums of more would lose digits


@shared
def _norm(out: Row, sums: Row, x: Row) -> None:
    real = x.dtype.type
    for block in prange(len(sums)):
        some = x[block * _BLOCK : (block + 1) * _BLOCK]
        total = real(0)
        for j in range(len(some)):
            total += some[j] * some[j]
        sums[block] = total
    total = real(0)
    for block in range(len(sums)):
        total += sums[block]
    out[0] = np.sqrt(total)


@shared
def _norm_pull(g_x: Rows, x: Rows, g: Row, norm: Row) -> None:
    factor = g[0] / norm[0]
    for i in prange(x.shape[0]):
        source, target = row(x, i), row(g_x, i)
        for j in range(len(source)):
            target[j] = source[j] * factor


def _plan_norm(B: Backend, space: Workspace, x: Array) -> tuple[Array, None, list[Call]]:
    calls: list[Call] = []
    numbers = flat(x, space, calls)
    out = space.result((), x.dtype)
    sums = space.scratch((-(-numbers.size // _BLOCK),), x.dtype)
    calls.append((_norm.of(x.dtype, size=x.size), (out.reshape(1), sums, numbers)))
    return out, None, calls


def _plan_norm_vjp(
    B: Backend, space: Workspace, g: Array, out: Array, saved: None, x: Array
) -> tuple[tuple[Array], list[Call]]:
    calls: list[Call] = []
    g_x = result(space, x.shape, x.dtype)
    args = g_x.target, rows_of(x, space, calls), g.reshape(1), out.reshape(1)
    calls.append((_norm_pull.of(x.dtype, size=x.size), args))
    return (g_x.array,), [*calls, *g_x.last_calls()]


# ---- adamw_step ---------------------------------------------------------------------------------

_PIECE = 1 << 10  # numbers of the state that go through the whole step while they are in a cache


@helper
def _copy(target: Any, source: Any) -> None:
    for j in range(len(target)):
        target[j] = source[j]


@shared
def _adamw(
    new_p: Row,
    new_m: Row,
    new_v: Row,
    p: Row,
    g: Row,
    m: Row,
    v: Row,
    rates: Row,
    decay: Row,
    healthy: Flag,
    factor: Row,
    beta1: Real,
    rest1: Real,
    beta2: Real,
    rest2: Real,
    eps: Real,
) -> None:
    moves, scale = healthy[0], factor[0]
    lr, m_correction, v_correction = rates[0], rates[1], rates[2]
    each = len(decay) > 1
    for piece in prange((len(p) + _PIECE - 1) // _PIECE):
        start, stop = piece * _PIECE, min((piece + 1) * _PIECE, len(p))
        # Where results take the place of arguments, these lines find nothing to do, and where they
        # do not, what follows has fewer arrays to tell apart.
        now_p, now_m, now_v = new_p[start:stop], new_m[start:stop], new_v[start:stop]
        _copy(now_p, p[start:stop])
        _copy(now_m, m[start:stop])
        _copy(now_v, v[start:stop])
        if not moves:
            continue
        slope = g[start:stop]
        for j in range(len(slope)):
            now_m[j] = now_m[j] * beta1 + slope[j] * scale * rest1
        for j in range(len(slope)):
            now_v[j] = now_v[j] * beta2 + (slope[j] * scale) * (slope[j] * scale) * rest2
        if each:
            shrink = decay[start:stop]
            for j in range(len(slope)):
                step = now_m[j] * m_correction / (np.sqrt(now_v[j] * v_correction) + eps)
                now_p[j] -= (step + now_p[j] * shrink[j]) * lr
        else:
            shrunk = decay[0]
            for j in range(len(slope)):
                step = now_m[j] * m_correction / (np.sqrt(now_v[j] * v_correction) + eps)
                now_p[j] -= (step + now_p[j] * shrunk) * lr


_HEALTHY = np.ones(1, np.bool_)


def _plan_adamw(
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
) -> tuple[tuple[Array, Array, Array], None, list[Call]]:
    calls: list[Call] = []
    new = [
        Result(
            old if space.may_overwrite(old, of) else space.result(old.shape, old.dtype, of),
            as_one,
            space,
        )
        for of, old in enumerate((p, m, v))
    ]
    old = [flat(x, space, calls) for x in (p, g, m, v, rates)]
    args = (
        *(x.target for x in new),
        *old,
        constant(0.0, 1, p.dtype) if decay is None else flat(decay, space, calls),
        _HEALTHY if healthy is None else healthy.reshape(1),
        constant(1.0, 1, p.dtype) if factor is None else factor.reshape(1),
    )
    function = _adamw.of(p.dtype, size=p.size)
    calls.append((function, (*args, beta1, 1 - beta1, beta2, 1 - beta2, eps)))
    for x in new:
        calls += x.last_calls()
    return (new[0].array, new[1].array, new[2].array), None, calls


EUCLIDEAN_NORM = planned(
    "euclidean_norm",
    _plan_norm,
    _plan_norm_vjp,
    HOST.euclidean_norm,
)
ADAMW_STEP = planned("adamw_step", _plan_adamw, supports=HOST.adamw_step)
