"""Fused ops that torch has kernels for: each measured to help microGPT or a 124M model.

But for the optimizer's step, all are made of functions torch differentiates, so they serve its own
autograd; the tape, which knows no rule for them, gets the composed forms. Declined is what torch
would take otherwise than the composed form: mixed dtypes, other shapes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tfx.backends.torch.precision import float32_products, half_products
from tfx.core.backend import Array, Backend, Fused


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
    return (
        visible.dtype == torch.bool
        and visible.ndim <= len(scores)
        and all(n in (1, m) for n, m in zip(visible.shape[::-1], scores[::-1], strict=False))
    )


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
    old = p, m, v
    lr, m_correction, v_correction = rates
    m = (m * beta1).add_(g, alpha=1 - beta1)
    v = (v * beta2).addcmul_(g, g, value=1 - beta2)
    step = (m * m_correction).div_((v * v_correction).sqrt_().add_(eps))
    if decay is not None:
        step.addcmul_(p, decay)
    new = p.addcmul(step, lr, value=-1), m, v
    if healthy is None:
        return new, None
    new_p, new_m, new_v = (torch.where(healthy, x, y) for x, y in zip(new, old, strict=True))
    return (new_p, new_m, new_v), None


def _state_fits(
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
    state = (p, g, m, v)
    others = (rates,) if decay is None else (rates, decay)
    return (
        p.dtype.is_floating_point
        and all(x.dtype == p.dtype for x in (*state, *others))
        and all(x.shape == p.shape for x in state)
        and (decay is None or decay.shape in ((), p.shape))
        and (healthy is None or (healthy.shape == () and healthy.dtype == torch.bool))
    )


KERNELS = (
    Fused("layer_norm", _layer_norm, supports=_norm_fits, native=True),
    Fused("gelu", _gelu, native=True),
    Fused("attention", _attention, supports=_attention_fits, native=True),
    Fused("cross_entropy", _cross_entropy, supports=_targets_fit, native=True),
    Fused("embedding", _embedding, supports=_is_table, native=True),
    Fused("adamw_step", _adamw_step, supports=_state_fits),
)
