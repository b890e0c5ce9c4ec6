"""Fused ops that torch has kernels for.

But for the optimizer's, all are made of functions torch differentiates, so they serve its own
autograd; the tape, which knows no rule for them, gets the composed forms. Declined is what torch
would take otherwise than the composed form: mixed dtypes, other shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from tfx.backends.torch.precision import float32_products, half_products
from tfx.core import host_memory
from tfx.core.backend import Array, Backend, Fused
from tfx.core.kernel_calls import broadcasts

_BLOCK = 1 << 18  # numbers of the optimizer's state that are at work at a time, on the host
_ROW = 1 << 14  # so many squares are added up one by one: sums of more would lose digits

_ACTIVATIONS: dict[str | None, Callable[[Array], Array]] = {
    None: lambda x: x,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": lambda x: torch.where(x > 0, x, 0),  # torch.relu keeps NaN
    "silu": F.silu,
}


def _linear(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[Array, None]:
    with float32_products.held(), half_products.held():
        y = F.linear(x, w if outputs_first else w.mT, b)
    y = _ACTIVATIONS[activation](y)
    return (y if residual is None else residual + y), None


def _linear_fits(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> bool:
    if x.ndim == 0 or w.ndim != 2 or activation not in _ACTIVATIONS:
        return False
    outputs, inputs = w.shape if outputs_first else w.shape[::-1]
    return (
        x.shape[-1] == inputs
        and (b is None or b.shape == (outputs,))
        and (residual is None or residual.shape == (*x.shape[:-1], outputs))
        and x.dtype.is_floating_point
        and all(y is None or y.dtype == x.dtype for y in (w, b, residual))
    )


def _layer_norm(
    B: Backend, x: Array, gain: Array, bias: Array, *, eps: float
) -> tuple[Array, None]:
    return F.layer_norm(x, x.shape[-1:], gain, bias, eps), None


def _norm_fits(B: Backend, x: Array, gain: Array, bias: Array, *, eps: float) -> bool:
    return bool(gain.dtype == bias.dtype == x.dtype and gain.shape == bias.shape == x.shape[-1:])


def _gelu(B: Backend, x: Array, *, approximate: str) -> tuple[Array, None]:
    return F.gelu(x, approximate=approximate), None


def _attention(
    B: Backend,
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    offset: Array | None,
    visible: Array | None,
    factor: None,
    *,
    causal: bool,
    heads: int | None,
) -> tuple[Array, None]:
    shape = q.shape[:-1] + v.shape[-1:]
    if heads is not None:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(-3, -2) for x in (q, k, v))
    seen = visible
    if causal and not (offset is None and visible is None):
        standing = torch.arange(q.shape[-2], device=q.device)[:, None]
        if offset is not None:
            standing = standing + offset
        seen = torch.arange(k.shape[-2], device=q.device) <= standing
        if visible is not None:
            seen = seen & visible
    # The kernels behind it ask for four axes.
    q4, k4, v4 = (x.reshape((1,) * (4 - x.ndim) + x.shape) for x in (q, k, v))
    with float32_products.held(), half_products.held():
        y = F.scaled_dot_product_attention(
            q4, k4, v4, attn_mask=seen, is_causal=causal and seen is None, scale=scale
        )
    if seen is not None:  # a query that sees nothing, which kernels answer with NaN or with zeros
        y = y.masked_fill(~seen.any(-1, keepdim=True), 0)
    if heads is not None:
        y = y.transpose(-3, -2)
    return y.reshape(shape), None


def _attention_fits(
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
    return (
        isinstance(scale, int | float)
        and scale > 0
        and factor is None
        and (offset is None or (offset.ndim == 0 and offset.dtype == torch.int64))
        and 2 <= q.ndim <= (4 if heads is None else 3)
        and (heads is None or q.shape[-1] % heads == 0 == v.shape[-1] % heads)
        and q.shape[:-2] == k.shape[:-2]
        and k.shape[:-1] == v.shape[:-1]
        and k.shape[-2] > 0
        and (visible is None or _masks(visible, q, k, heads))
    )


def _masks(visible: Array, q: Array, k: Array, heads: int | None) -> bool:
    """Whether a mask broadcasts with the scores, and has no more axes than they."""
    scores = (*q.shape[:-2], *(() if heads is None else (heads,)), q.shape[-2], k.shape[-2])
    return visible.dtype == torch.bool and broadcasts(tuple(visible.shape), scores)


def _cross_entropy(B: Backend, logits: Array, targets: Array) -> tuple[Array, None]:
    rows = logits.reshape(-1, logits.shape[-1])
    losses = F.cross_entropy(rows, targets.reshape(-1).long(), reduction="none")
    return losses.reshape(targets.shape), None


def _targets_fit(B: Backend, logits: Array, targets: Array) -> bool:
    return targets.dtype in (torch.int32, torch.int64) and logits.shape[:-1] == targets.shape


def _embedding(B: Backend, table: Array, ids: Array) -> tuple[Array, None]:
    return F.embedding(ids, table), None


def _is_table(B: Backend, table: Array, ids: Array) -> bool:
    return bool(table.ndim == 2)


def _euclidean_norm(B: Backend, x: Array) -> tuple[Array, None]:
    flat = x.reshape(-1)
    whole = len(flat) - len(flat) % _ROW
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, _ROW), dim=1)
    return torch.linalg.vector_norm(torch.cat([rows, flat[whole:]])), None


def _is_wide(B: Backend, x: Array) -> bool:
    return x.dtype in (torch.float32, torch.float64)


def _empty_like(x: Array) -> Array:
    if x.device.type != "cpu":
        return torch.empty_like(x)
    words = host_memory.empty(x.shape, f"i{x.element_size()}")
    return torch.from_numpy(words).view(x.dtype)


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
    on_host = p.device.type == "cpu"
    if on_host and healthy is not None and not healthy:
        return (p, m, v), None
    lr, m_correction, v_correction = rates
    new = tuple(map(_empty_like, (p, m, v)))
    size = _BLOCK if on_host and p.ndim == 1 else max(1, len(p))
    for start in range(0, len(p), size):
        here = slice(start, start + size)
        gradient = g[here] if factor is None else g[here] * factor
        new_p, new_m, new_v = (x[here] for x in new)
        torch.mul(m[here], beta1, out=new_m).add_(gradient, alpha=1 - beta1)
        torch.mul(v[here], beta2, out=new_v).addcmul_(gradient, gradient, value=1 - beta2)
        step = new_m * m_correction
        step.div_((new_v * v_correction).sqrt_().add_(eps))
        if decay is not None:
            step.addcmul_(p[here], decay[here] if decay.ndim else decay)
        torch.addcmul(p[here], step, lr, value=-1, out=new_p)
    if healthy is not None and not on_host:  # looking at it would wait for the device
        for x, old in zip(new, (p, m, v), strict=True):
            torch.where(healthy, x, old, out=x)
    return (new[0], new[1], new[2]), None


def _state_fits(
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
    state = (p, g, m, v)
    others = (x for x in (rates, decay, factor) if x is not None)
    return (
        p.ndim > 0
        and p.dtype.is_floating_point
        and all(x.dtype == p.dtype for x in (*state, *others))
        and all(x.shape == p.shape for x in state)
        and (decay is None or decay.shape in ((), p.shape))
        and (healthy is None or (healthy.shape == () and healthy.dtype == torch.bool))
        and (factor is None or factor.shape == ())
    )


KERNELS = (
    Fused("linear", _linear, supports=_linear_fits, native=True),
    Fused("layer_norm", _layer_norm, supports=_norm_fits, native=True),
    Fused("gelu", _gelu, native=True),
    Fused("attention", _attention, supports=_attention_fits, native=True),
    Fused("cross_entropy", _cross_entropy, supports=_targets_fit, native=True),
    Fused("embedding", _embedding, supports=_is_table, native=True),
    Fused("euclidean_norm", _euclidean_norm, supports=_is_wide),
    Fused("adamw_step", _adamw_step, supports=_state_fits),
)
