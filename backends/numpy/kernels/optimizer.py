"""The optimizer: `euclidean_norm`, and `adamw_step` in blocks that stay in a
core's cache over its many passes."""

from __future__ import annotations

import numpy as np

from tfx.backends.numpy.kernels.arrays import Array, floats
from tfx.core.backend import Backend, Fused
from tfx.core.host_memory import empty

# ---- euclidean_norm ----------------------------------------------------------------------

_ROW = 1 << 14  # so many squares are added up one by one: sums of more would lose digits


def _euclidean_norm(B: Backend, x: Array) -> tuple[Array, None]:
    flat = x.reshape(-1)
    whole = flat.size - flat.size % _ROW
    rest = flat[whole:]
    total = np.vecdot(rest, rest)
    if whole:
        rows = flat[:whole].reshape(-1, _ROW)
        total = total + np.vecdot(rows, rows).sum()
    return np.asarray(np.sqrt(total)), None


def _euclidean_norm_vjp(B: Backend, g: Array, out: Array, saved: None, x: Array) -> tuple[Array]:
    return (x * (g / out),)


# ---- adamw_step ----------------------------------------------------------------------------

_BLOCK = 1 << 15  # numbers; seven arrays of as many are at work at a time


def _adamw_step(
    B: Backend,
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
) -> tuple[tuple[Array, Array, Array], None]:
    if healthy is not None and not healthy:
        return (p, m, v), None
    new = empty(p.shape, p.dtype), empty(m.shape, m.dtype), empty(v.shape, v.dtype)
    if p.ndim > 1 or p.size <= _BLOCK:
        _advance(new, p, g, m, v, rates, decay, factor, beta1, beta2, eps)
        return new, None
    for start in range(0, p.size, _BLOCK):
        here = slice(start, start + _BLOCK)
        part = decay[here] if decay is not None and decay.ndim else decay
        out = new[0][here], new[1][here], new[2][here]
        now = p[here], g[here], m[here], v[here]
        _advance(out, *now, rates, part, factor, beta1, beta2, eps)
    return new, None


def _advance(
    new: tuple[Array, Array, Array],
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rates: Array,
    decay: Array | None,
    factor: Array | None,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """One step of these numbers, into `new`."""
    lr, m_correction, v_correction = rates
    new_p, new_m, new_v = new
    if factor is not None:
        g = g * factor
    np.multiply(m, beta1, out=new_m)
    step = g * (1 - beta1)
    new_m += step
    np.multiply(v, beta2, out=new_v)
    np.multiply(g, g, out=step)
    step *= 1 - beta2
    new_v += step
    np.multiply(new_v, v_correction, out=step)
    np.sqrt(step, out=step)
    step += eps
    np.divide(new_m, step, out=step)
    if decay is None:
        step *= m_correction * lr
    else:
        step *= m_correction
        step += p * decay
        step *= lr
    np.subtract(p, step, out=new_p)


def _can_step(
    B: Backend,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rates: Array,
    decay: Array | None,
    healthy: Array | None,
    factor: Array | None,
    **_: float,
) -> bool:
    return (
        p.ndim > 0
        and p.shape == g.shape == m.shape == v.shape
        and rates.shape == (3,)
        and (decay is None or decay.shape in ((), p.shape))
        and (healthy is None or (healthy.shape == () and healthy.dtype == np.bool_))
        and (factor is None or factor.shape == ())
        and floats(p, g, m, v, rates, decay, factor)
    )


EUCLIDEAN_NORM = Fused(
    "euclidean_norm", _euclidean_norm, _euclidean_norm_vjp, lambda B, x: x.ndim > 0 and floats(x)
)
ADAMW_STEP = Fused("adamw_step", _adamw_step, supports=_can_step)
