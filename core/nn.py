"""The fused ops: each a plain function over primitives that a kernel may override.

The composed form here is the definition; `tfx.core.fused` decides when an override may stand in.
"""

from __future__ import annotations

from typing import Literal, get_args

from tfx.core.checks import index
from tfx.core.creation import arange, full
from tfx.core.errors import ShapeError, UsageError
from tfx.core.fused import fused
from tfx.core.ops import causal_mask, erf, finite_max, relu, silu, where
from tfx.core.tensor import Tensor

Activation = Literal["gelu_new", "gelu", "relu", "silu"]


@fused
def linear(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: Activation | None = None,
    outputs_first: bool = False,
) -> Tensor:
    """residual + activation(x @ w + b), with x (..., n), w (n, m), b (m,), residual (..., m).

    With `outputs_first`, w is (m, n), as torch.nn.Linear keeps it.
    """
    y = x @ (w.T if outputs_first else w)
    if b is not None:
        y = y + b
    if activation is not None:
        y = activate(y, activation)
    return y if residual is None else residual + y


def activate(x: Tensor, name: Activation) -> Tensor:
    """The activation of that name in transformers' configuration files."""
    match name:
        case "gelu_new":
            return gelu(x, approximate="tanh")
        case "gelu":
            return gelu(x)
        case "relu":
            return relu(x)
        case "silu":
            return silu(x)
    raise UsageError(f"no activation named {name!r}; there are {', '.join(get_args(Activation))}")


@fused
def gelu(x: Tensor, *, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016, arXiv:1606.08415).

    "none" goes through erf; "tanh" is the paper's approximation, which GPT-2 was trained with.
    """
    if approximate not in ("none", "tanh"):
        raise UsageError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    if approximate == "tanh":
        inner = (x + x * x * x * 0.044715) * 0.7978845608028654  # sqrt(2 / pi)
        return x * 0.5 * (inner.tanh() + 1.0)
    return x * 0.5 * (erf(x * 0.7071067811865476) + 1.0)


@fused
def rms_norm(x: Tensor, gain: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    """x / sqrt(mean(x**2) + eps) over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    wide = x.widened()
    y = (wide * ((wide * wide).mean(-1, keepdims=True) + eps) ** -0.5).cast(x.dtype)
    return y if gain is None else y * gain


@fused
def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * gain + bias over the last axis (Ba et al. 2016,
    arXiv:1607.06450)."""
    wide = x.widened()
    off = wide - wide.mean(-1, keepdims=True)
    normal = (off * ((off * off).mean(-1, keepdims=True) + eps) ** -0.5).cast(x.dtype)
    return normal * gain + bias


@fused
def softmax(x: Tensor) -> Tensor:
    """exp(x) / sum(exp(x)) over the last axis; a row of nothing but -inf gives zeros."""
    e = (x - finite_max(x, -1)).exp()
    # The largest term is exp(0) = 1: the bound matters only to rows that saw nothing.
    return e / e.sum(-1, keepdims=True).maximum(0.5)


@fused
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor | float,
    offset: Tensor | None = None,
    visible: Tensor | None = None,
    factor: Tensor | None = None,
    *,
    causal: bool = True,
    heads: int | None = None,
) -> Tensor:
    """(factor * softmax(mask(scale * q @ k^T))) @ v (Vaswani et al. 2017, arXiv:1706.03762).

    With `heads`, scores have an axis for them before their last two: (..., heads, T, S).

    Args:
        q: queries (..., T, d).
        k, v: keys (..., S, d) and values (..., S, e).
        scale: a number, or a tensor that broadcasts with the scores (..., T, S).
        offset: the position of the first query among the keys, a 0-d tensor of the backend's index
            dtype; 0 by default.
        visible: which keys a query may see at all, bool, broadcasts with the scores.
        factor: what each weight is multiplied by, as dropout has it; broadcasts with the scores.
        causal: queries see no key that comes after them.
        heads: how many heads lie side by side in the last axis; each attends by itself.

    Returns:
        (..., T, e); zeros for a query that sees nothing.
    """
    if heads is not None:
        q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
        return merge_heads(attention(q, k, v, scale, offset, visible, factor, causal=causal))
    weights = attention_weights(q, k, scale, offset, visible, causal=causal)
    if factor is not None:
        weights = weights * factor
    return weights @ v


def attention_weights(
    q: Tensor,
    k: Tensor,
    scale: Tensor | float,
    offset: Tensor | None = None,
    visible: Tensor | None = None,
    *,
    causal: bool = True,
    heads: int | None = None,
) -> Tensor:
    """softmax(mask(scale * q @ k^T)), for those who want to see them: (..., T, S), with `heads`
    (..., heads, T, S). As in `attention`."""
    if heads is not None:
        q, k = split_heads(q, heads), split_heads(k, heads)
    scores = q @ k.swapaxes(-1, -2) * scale
    seen = visible
    if causal:
        if offset is None:
            offset = full((), 0, q.backend, q.backend.index_dtype)
        before = causal_mask(q.shape[-2], k.shape[-2], offset)
        seen = before if visible is None else before & visible
    if seen is not None:
        scores = where(seen, scores, float("-inf"))
    return softmax(scores)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(..., T, heads * d) as (..., heads, T, d)."""
    if x.ndim < 2 or x.shape[-1] % heads:
        raise ShapeError(f"{x.shape} cannot be split into {heads} heads")
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).swapaxes(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """(..., heads, T, d) as (..., T, heads * d)."""
    *outside, heads, count, size = x.shape
    return x.swapaxes(-3, -2).reshape(*outside, count, heads * size)


@fused
def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target] for each position: logits (..., V), targets (...) of integers.

    Targets outside [0, V) are outside the contract: ids are checked on the host.
    """
    if not logits.shape or logits.shape[:-1] != targets.shape:
        raise ShapeError(f"logits {logits.shape} do not suit targets {targets.shape}")
    shifted = logits - finite_max(logits, -1)
    vocabulary = arange(logits.shape[-1], logits.backend)
    chosen = index(targets).cast(vocabulary.dtype)[..., None] == vocabulary
    return shifted.exp().sum(-1).log() - where(chosen, shifted, 0).sum(-1)


@fused
def embedding(table: Tensor, ids: Tensor) -> Tensor:
    """The rows of `table` (V, n) at `ids` (...): (..., n)."""
    return table.take(ids)


@fused
def euclidean_norm(x: Tensor) -> Tensor:
    """sqrt(sum(x**2)) over all elements, 0-d."""
    return (x * x).sum().sqrt()


@fused
def adamw_step(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    rates: Tensor,
    decay: Tensor | None = None,
    healthy: Tensor | None = None,
    factor: Tensor | None = None,
    *,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam with decoupled decay (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Args:
        p, g, m, v: parameters, gradients and both moments, of one shape.
        rates: what changes from step to step, (3,): the learning rate, and 1 / (1 - beta**t) of
            either moment.
        decay: weight decay, 0-d or of the shape of `p`; None for plain Adam.
        healthy: a 0-d bool; where it is False, nothing moves.
        factor: what the gradients are multiplied by first, 0-d.

    Returns:
        The new p, m and v; without health, the old ones bit for bit.
    """
    old = p, m, v
    if factor is not None:
        g = g * factor
    lr, m_correction, v_correction = rates
    m = m * beta1 + g * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    step = m * m_correction / ((v * v_correction).sqrt() + eps)
    if decay is not None:
        step = step + p * decay
    new = p - step * lr, m, v
    if healthy is None:
        return new
    new_p, new_m, new_v = (where(healthy, x, y) for x, y in zip(new, old, strict=True))
    return new_p, new_m, new_v
