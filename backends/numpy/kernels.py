"""Fused ops in plain NumPy: fewer calls than the composed forms, and derivatives by hand.

Each handles float32 and float64; everything else goes to the composed form.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx.core.backend import Backend, Fused

Array = npt.NDArray[Any]

_LOWEST = {np.dtype(d): np.finfo(d).min for d in (np.float32, np.float64)}
"""The dtypes the kernels handle, each with its most negative finite number."""


def _floats(*arrays: Array | None) -> bool:
    """float32 or float64 arrays, all of one dtype."""
    dtype = arrays[0].dtype  # type: ignore[union-attr]
    for x in arrays:
        if x is not None and x.dtype != dtype:
            return False
    return dtype in _LOWEST


# ---- linear: residual + activation(x w + b) -----------------------------------------------


def _linear(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[Array, Array | None]:
    y = np.matmul(x, w.T if outputs_first else w)
    if b is not None:
        y += b
    positive = None
    if activation == "relu":
        positive = y > 0
        y = np.where(positive, y, 0)
    if residual is not None:
        y += residual
    return y, positive


def _linear_vjp(
    B: Backend,
    g: Array,
    out: Array,
    positive: Array | None,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[Array, Array, Array | None, Array | None]:
    inner = g if positive is None else np.where(positive, g, 0)
    rows, g_rows = x.reshape(-1, x.shape[-1]), inner.reshape(-1, inner.shape[-1])
    g_x = np.matmul(inner, w if outputs_first else w.T)
    g_w = np.matmul(g_rows.T, rows) if outputs_first else np.matmul(rows.T, g_rows)
    return g_x, g_w, None if b is None else g_rows.sum(0), None if residual is None else g


def _can_linear(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> bool:
    if x.ndim < 2 or w.ndim != 2 or activation not in (None, "relu"):
        return False
    outputs, inputs = w.shape if outputs_first else w.shape[::-1]
    return (
        x.shape[-1] == inputs
        and (b is None or b.shape == (outputs,))
        and (residual is None or residual.shape == (*x.shape[:-1], outputs))
        and _floats(x, w, b, residual)
    )


# ---- rms_norm: y = x r, r = (mean(x**2) + eps)**-0.5 -----------------------------------


def _rms_norm(B: Backend, x: Array, gain: Array | None, *, eps: float) -> tuple[Array, Any]:
    r = 1 / np.sqrt(np.vecdot(x, x) / x.shape[-1] + eps)[..., None]
    normal = x * r
    return (normal if gain is None else normal * gain), (normal, r)


def _can_rms_norm(B: Backend, x: Array, gain: Array | None, *, eps: float) -> bool:
    return x.ndim > 0 and _floats(x, gain) and (gain is None or gain.shape == x.shape[-1:])


def _rms_norm_vjp(
    B: Backend, g: Array, out: Array, saved: Any, x: Array, gain: Array | None, *, eps: float
) -> tuple[Array, Array | None]:
    normal, r = saved
    g_normal = g if gain is None else g * gain
    along = (np.vecdot(g_normal, normal) / x.shape[-1])[..., None]
    g_gain = None if gain is None else g * normal
    return (g_normal - normal * along) * r, g_gain


# ---- softmax and attention -------------------------------------------------------------


def _softmax_in_place(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis; zeros where every x is -inf."""
    x -= np.maximum(x.max(-1, keepdims=True), _LOWEST[x.dtype])
    np.exp(x, out=x)
    x /= np.maximum(x.sum(-1, keepdims=True), 0.5)
    return x


def _softmax(B: Backend, x: Array) -> tuple[Array, None]:
    return _softmax_in_place(x.copy()), None


def _softmax_vjp(B: Backend, g: Array, out: Array, saved: None, x: Array) -> tuple[Array]:
    return (out * (g - np.vecdot(g, out)[..., None]),)


def _unseen(queries: int, keys: int, first: int = 0) -> Array:
    """True for the keys that come after each query, the first of which stands at `first`."""
    if first < 0:
        return np.arange(keys) > np.arange(first, first + queries)[:, None]
    longest = max(first + queries, keys)
    return _above_diagonal(1 << (longest - 1).bit_length())[first : first + queries, :keys]


@lru_cache(maxsize=2)
def _above_diagonal(size: int) -> Array:
    return ~np.tri(size, dtype=bool)


def _split(x: Array, heads: int | None) -> Array:
    """(..., T, heads * d) as (..., heads, T, d)."""
    return x if heads is None else x.reshape(*x.shape[:-1], heads, -1).swapaxes(-3, -2)


def _merge(x: Array, heads: int | None) -> Array:
    """(..., heads, T, d) as (..., T, heads * d)."""
    if heads is None:
        return x
    *outside, _, count, size = x.shape
    return x.swapaxes(-3, -2).reshape(*outside, count, heads * size)


def _attention(
    B: Backend,
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
) -> tuple[Array, Any]:
    keys = k.shape[-2]
    first = int(offset) if causal and offset is not None else 0
    if causal:  # the unwritten rest of a cache is not even looked at
        keys = min(max(first + q.shape[-2], 1), keys)
        k, v = k[..., :keys, :], v[..., :keys, :]
    q, k, v = (_split(x, heads) for x in (q, k, v))
    weights = np.matmul(q, k.swapaxes(-1, -2))
    weights *= scale
    if causal and (first < 0 or q.shape[-2] > 1):
        np.copyto(weights, -np.inf, where=_unseen(q.shape[-2], keys, first))
    if visible is not None:
        np.copyto(weights, -np.inf, where=~_of_keys(visible, keys))
    _softmax_in_place(weights)
    used = weights if factor is None else weights * _of_keys(factor, keys)
    return _merge(np.matmul(used, v), heads), (weights, used)


def _attention_vjp(
    B: Backend,
    g: Array,
    out: Array,
    saved: Any,
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
) -> tuple[Array | None, ...]:
    weights, used = saved
    keys = weights.shape[-1]
    g, out, q, k, v = (_split(x, heads) for x in (g, out, q, k, v))
    g_k, g_v = np.zeros_like(k), np.zeros_like(v)
    seen = (..., slice(keys), slice(None))
    g_v[seen] = np.matmul(used.swapaxes(-1, -2), g)
    g_scores = np.matmul(g, v[seen].swapaxes(-1, -2))
    if factor is not None:
        g_scores *= _of_keys(factor, keys)
    # The sum of weights times their gradients is that of outputs times theirs.
    g_scores -= np.vecdot(g, out)[..., None]
    g_scores *= weights
    g_scores *= scale
    g_q = np.matmul(g_scores, k[seen])
    g_k[seen] = np.matmul(g_scores.swapaxes(-1, -2), q)
    return _merge(g_q, heads), _merge(g_k, heads), _merge(g_v, heads), None, None, None, None


def _of_keys(x: Array, keys: int) -> Array:
    """What broadcasts with the scores, for the first `keys` keys."""
    return x[..., :keys] if x.ndim and x.shape[-1] > 1 else x


def _divides(heads: int, x: Array) -> bool:
    return x.size > 0 and x.shape[-1] % heads == 0


def _can_attend(
    B: Backend,
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
    if not (
        q.ndim > 1
        and q.shape[:-2] == k.shape[:-2]
        and k.shape[:-1] == v.shape[:-1]
        and q.shape[-1] == k.shape[-1]
        and k.shape[-2] > 0
        and (heads is None or (_divides(heads, q) and _divides(heads, v)))
        and _floats(q, k, v, factor)
        and (offset is None or (offset.shape == () and offset.dtype == np.int64))
        and (visible is None or visible.dtype == np.bool_)
    ):
        return False
    if isinstance(scale, float) and visible is None and factor is None:
        return True
    scores = (*q.shape[:-2], *(() if heads is None else (heads,)), q.shape[-2], k.shape[-2])
    return isinstance(scale, float) and all(
        x is None or _broadcasts(x.shape, scores) for x in (visible, factor)
    )


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False)
    )


# ---- cross_entropy: log(sum(exp(x))) - x[target] ---------------------------------------


def _cross_entropy(B: Backend, logits: Array, targets: Array) -> tuple[Array, Any]:
    rows = logits.reshape(-1, logits.shape[-1])
    chosen = np.arange(len(rows)), targets.reshape(-1)
    shifted = rows - rows.max(-1, keepdims=True)
    picked = shifted[chosen]
    np.exp(shifted, out=shifted)
    total = shifted.sum(-1)
    return (np.log(total) - picked).reshape(targets.shape), (shifted, total, chosen)


def _cross_entropy_vjp(
    B: Backend, g: Array, out: Array, saved: Any, logits: Array, targets: Array
) -> tuple[Array, None]:
    e, total, chosen = saved
    g_rows = g.reshape(-1)
    g_logits = e * (g_rows / total)[:, None]
    g_logits[chosen] -= g_rows
    return g_logits.reshape(logits.shape), None


def _can_cross_entropy(B: Backend, logits: Array, targets: Array) -> bool:
    return (
        logits.shape[:-1] == targets.shape
        and targets.dtype in (np.int32, np.int64)
        and logits.ndim > 1
        and logits.shape[-1] > 0
        and _floats(logits)
    )


# ---- adamw_step ------------------------------------------------------------------------


def _adamw_step(
    B: Backend,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rates: Array,
    decay: Array | None,
    healthy: Array | None,
    *,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[tuple[Array, Array, Array], None]:
    if healthy is not None and not healthy:
        return (p, m, v), None
    lr, m_correction, v_correction = rates
    new_m = m * beta1
    step = g * (1 - beta1)
    new_m += step
    new_v = v * beta2
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
    return (np.subtract(p, step, out=step), new_m, new_v), None


def _can_step(
    B: Backend,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rates: Array,
    decay: Array | None,
    healthy: Array | None,
    **_: float,
) -> bool:
    return (
        p.ndim > 0
        and p.shape == g.shape == m.shape == v.shape
        and rates.shape == (3,)
        and (decay is None or decay.shape in ((), p.shape))
        and (healthy is None or (healthy.shape == () and healthy.dtype == np.bool_))
        and _floats(p, g, m, v, rates, decay)
    )


KERNELS = (
    Fused("linear", _linear, _linear_vjp, _can_linear),
    Fused("rms_norm", _rms_norm, _rms_norm_vjp, _can_rms_norm),
    Fused("softmax", _softmax, _softmax_vjp, lambda B, x: x.size > 0 < x.ndim and _floats(x)),
    Fused("attention", _attention, _attention_vjp, _can_attend),
    Fused("cross_entropy", _cross_entropy, _cross_entropy_vjp, _can_cross_entropy),
    Fused("adamw_step", _adamw_step, supports=_can_step),
)
