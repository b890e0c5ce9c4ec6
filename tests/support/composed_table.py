"""Every operation of `tfx.core.ops` and `tfx.core.nn`, with oracles written another way."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
from op_records import Op, Sample, given, ids, mask, normal, positive, torch

from tfx.core import nn, ops
from tfx.core.creation import arange, tensor
from tfx.core.tensor import Tensor

_erf = np.vectorize(math.erf, otypes=[np.float64])

SHAPES = [(), (3,), (2, 3), (0, 2), (2, 1, 4)]
normals = [Sample(normal(*shape)) for shape in SHAPES]
positives = [Sample(positive(*shape)) for shape in SHAPES]
rows = [Sample(normal(*shape)) for shape in [(3,), (2, 3), (0, 2), (2, 1, 4), (2, 1)]]
pairs = [
    Sample(normal(*x), normal(*y))
    for x, y in [((), ()), ((2, 3), (3,)), ((2, 1), (1, 3)), ((0, 2), (2,))]
]
ODD = given(nan, inf, -inf, 0.0, -0.0, 1.0, -1.0, 800.0, -800.0)


def _functional() -> Any:
    return torch.nn.functional


def _numpy_softmax(x: Any) -> Any:
    """Without care for overflow, but with rows of nothing but -inf as zeros."""
    e = np.exp(x)
    total = e.sum(-1, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total != 0)


def _numpy_sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


OPS = [
    Op("where", ops.where, np.where, lambda c, x, y: torch.where(c, x, y), [
        Sample(mask(2, 3), normal(2, 1), normal(3)),
        Sample(mask(2, 3), normal(2, 3), 0),
        Sample(mask(), 1.5, normal(2)),
    ]),
    Op("maximum", ops.maximum, np.maximum, lambda x, y: torch.maximum(x, y), pairs),
    Op("minimum", ops.minimum, np.minimum, lambda x, y: torch.minimum(x, y), pairs,
       [Sample(given(nan, inf, -inf, 0, 1), given(1, 1, 1, 0, nan))]),
    Op("minimum of a number", ops.minimum, np.minimum, lambda x, y: x.clamp(max=y),
       [Sample(normal(2, 3), 0.25)], [Sample(ODD, 0)]),
    Op("clip", ops.clip, np.clip, lambda x, low, high: x.clamp(low, high),
       [Sample(normal(*shape), -0.5, 0.5) for shape in SHAPES], [Sample(ODD, -1, 2)]),
    Op("absolute", ops.absolute, np.abs, lambda x: x.abs(), normals, [Sample(ODD)]),
    Op("relu", ops.relu, lambda x: np.where(x > 0, x, 0), lambda x: x.relu(), normals,
       [Sample(given(inf, -inf, 0.0, -0.0, 3.0))]),
    Op("isfinite", ops.isfinite, np.isfinite, None, normals, [Sample(ODD)]),
    Op("exp", ops.exp, np.exp, lambda x: x.exp(), normals),
    Op("log", ops.log, np.log, lambda x: x.log(), positives),
    Op("tanh", ops.tanh, np.tanh, lambda x: x.tanh(), normals),
    Op("sqrt", ops.sqrt, np.sqrt, lambda x: x.sqrt(), positives),
    Op("rsqrt", ops.rsqrt, lambda x: 1 / np.sqrt(x), lambda x: x.rsqrt(), positives),
    Op("sigmoid", ops.sigmoid, _numpy_sigmoid, lambda x: x.sigmoid(), normals, [Sample(ODD)]),
    Op("silu", ops.silu, lambda x: x * _numpy_sigmoid(x), lambda x: _functional().silu(x), normals),
    Op("erf", ops.erf, _erf, lambda x: x.erf(),
       [*normals, Sample(given(-5.9, -4.1, -2, -0.47, -0.46, 1e-9, 0.3, 0.49, 0.51, 3, 7, 30))],
       [Sample(ODD)]),
    Op("var", ops.var, np.var, lambda x, axis=None, keepdims=False: torch.var(
        x, dim=axis, correction=0, keepdim=keepdims), [
        Sample(normal(3)),
        Sample(normal(2, 3), axis=-1),
        Sample(normal(2, 3, 2), axis=(0, 2), keepdims=True),
    ]),
    Op("logsumexp", ops.logsumexp, lambda x, axis=-1, keepdims=False: np.log(
        np.exp(x).sum(axis, keepdims=keepdims)),
       lambda x, axis=-1, keepdims=False: torch.logsumexp(x, axis, keepdims),
       [*rows, Sample(normal(2, 3), axis=0), Sample(normal(2, 3, 2), axis=-2, keepdims=True)],
       [Sample(given(-inf, -inf)), Sample(given(-inf, 0, 5)), Sample(given(nan, 0))]),
    Op("log_softmax", ops.log_softmax,
       lambda x, axis=-1: x - np.log(np.exp(x).sum(axis, keepdims=True)),
       lambda x, axis=-1: torch.log_softmax(x, axis), [*rows, Sample(normal(2, 3), axis=0)],
       [Sample(given(-inf, 0, 5))]),
    Op("concat", lambda *xs, axis=0: ops.concat(xs, axis),
       lambda *xs, axis=0: np.concatenate(xs, axis), lambda *xs, axis=0: torch.cat(xs, axis), [
        Sample(normal(2), normal(1)),
        Sample(normal(2, 3), normal(2, 0), normal(2, 1), axis=-1),
    ]),
    Op("stack", lambda *xs, axis=0: ops.stack(xs, axis),
       lambda *xs, axis=0: np.stack(xs, axis), lambda *xs, axis=0: torch.stack(xs, axis), [
        Sample(normal(), normal()),
        Sample(normal(2, 3), normal(2, 3), axis=1),
        Sample(normal(2, 3), normal(2, 3), normal(2, 3), axis=-1),
        Sample(normal(0, 3), normal(0, 3), axis=0),
    ]),
    Op("split", lambda x, count, axis=-1: ops.stack(ops.split(x, count, axis)),
       lambda x, count, axis=-1: np.stack(np.split(x, count, axis)),
       lambda x, count, axis=-1: torch.stack(x.tensor_split(count, axis)), [
        Sample(normal(2, 6), count=3),
        Sample(normal(4, 3, 2), count=2, axis=0),
        Sample(normal(2, 3), count=1),
        Sample(normal(2, 0), count=2),
    ]),
    Op("mean", Tensor.mean, np.mean, lambda x, axis=None, keepdims=False: torch.mean(
        x, dim=axis, keepdim=keepdims), [
        Sample(normal(3)),
        Sample(normal()),
        Sample(normal(2, 3), axis=-1),
        Sample(normal(2, 3, 2), axis=(0, 2), keepdims=True),
    ]),
    Op("min", Tensor.min, np.min, lambda x, axis=None, keepdims=False: torch.amin(
        x, dim=() if axis is None else axis, keepdim=keepdims), [
        Sample(normal(3)),
        Sample(normal(2, 3), axis=-1, keepdims=True),
        Sample(normal(2, 3, 2), axis=(0, 2)),
    ], [Sample(given(nan, 1)), Sample(given(inf, inf))]),
]  # fmt: skip


# ---- the fused ops -----------------------------------------------------------------------


def _activation(x: Any, name: str | None) -> Any:
    functional = _functional()
    match name:
        case "gelu_new":
            return functional.gelu(x, approximate="tanh")
        case None:
            return x
    return getattr(functional, name)(x)


def _numpy_gelu(x: Any, *, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / np.sqrt(2)))


_NUMPY_ACTIVATIONS: dict[str | None, Callable[[Any], Any]] = {
    None: lambda x: x,
    "gelu": _numpy_gelu,
    "gelu_new": lambda x: _numpy_gelu(x, approximate="tanh"),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * _numpy_sigmoid(x),
}


def _numpy_linear(
    x: Any,
    w: Any,
    b: Any = 0,
    residual: Any = 0,
    *,
    activation: str | None = None,
    outputs_first: bool = False,
) -> Any:
    w = w.T if outputs_first else w
    return residual + _NUMPY_ACTIVATIONS[activation](np.einsum("...n,nm->...m", x, w) + b)


def _torch_linear(
    x: Any,
    w: Any,
    b: Any = 0,
    residual: Any = 0,
    *,
    activation: str | None = None,
    outputs_first: bool = False,
) -> Any:
    w = w if outputs_first else w.T
    return residual + _activation(_functional().linear(x, w) + b, activation)


def _numpy_layer_norm(x: Any, gain: Any, bias: Any, *, eps: float = 1e-5) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * gain + bias


def _numpy_rms_norm(x: Any, gain: Any = 1.0, *, eps: float = 1e-5) -> Any:
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + eps) * gain


def _numpy_attention(
    q: Any,
    k: Any,
    v: Any,
    scale: Any,
    offset: Any = None,
    visible: Any = None,
    factor: Any = None,
    *,
    causal: bool = True,
    heads: int | None = None,
) -> Any:
    """Head by head, row by row: query i sees the visible ones of the keys up to offset + i."""
    leading = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    scores = (*leading, *(() if heads is None else (heads,)), q.shape[-2], k.shape[-2])
    visible = np.broadcast_to(True if visible is None else visible, scores)
    factor = np.broadcast_to(1.0 if factor is None else factor, scores)
    if heads is not None:
        each = zip(*(np.split(x, heads, -1) for x in (q, k, v)), strict=True)
        outs = [
            _numpy_attention(
                *qkv, scale, offset, visible[..., h, :, :], factor[..., h, :, :], causal=causal
            )
            for h, qkv in enumerate(each)
        ]
        return np.concatenate(outs, -1)
    products = np.einsum("...td,...sd->...ts", q, k) * scale
    out = np.zeros((*leading, q.shape[-2], v.shape[-1]))
    for i in range(q.shape[-2]):
        seen = max(0, int(offset or 0) + i + 1) if causal else k.shape[-2]
        row = np.where(visible[..., i, :seen], products[..., i, :seen], -inf)
        weights = _numpy_softmax(row) * factor[..., i, :seen]
        out[..., i, :] = np.einsum("...s,...se->...e", weights, v[..., :seen, :])
    return out


def _torch_attention(
    q: Any,
    k: Any,
    v: Any,
    scale: Any,
    offset: Any = None,
    visible: Any = None,
    factor: Any = None,
    *,
    causal: bool = True,
    heads: int | None = None,
) -> Any:
    """By a large negative number for what is unseen, and zeros for a query that sees nothing."""
    if heads is not None:
        q, k, v = (torch.stack(x.chunk(heads, -1), -3) for x in (q, k, v))
    seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    if causal:
        seen = seen.tril(int(offset or 0))
    if visible is not None:
        seen = seen & visible
    weights = torch.softmax(torch.where(seen, q @ k.mT * scale, -1e9), -1) * seen
    y = (weights if factor is None else weights * factor) @ v
    return y if heads is None else torch.cat(y.unbind(-3), -1)


def _numpy_cross_entropy(logits: Any, targets: Any) -> Any:
    chosen = np.take_along_axis(_numpy_softmax(logits), targets[..., None], -1)
    return -np.log(chosen[..., 0])


def _torch_cross_entropy(logits: Any, targets: Any) -> Any:
    flat = _functional().cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none"
    )
    return flat.reshape(targets.shape)


def _adamw(sqrt: Any, stack: Any) -> Any:
    """The paper's update (Algorithm 2), decay first; the three results in one array."""

    def step(
        p: Any, g: Any, m: Any, v: Any, rates: Any, decay: Any = None, factor: Any = None
    ) -> Any:
        lr, m_up, v_up = rates
        g = g if factor is None else g * factor
        decay = 0.0 if decay is None else decay
        m = 0.9 * m + 0.1 * g
        v = 0.95 * v + 0.05 * g**2
        return stack([p - lr * decay * p - lr * (m * m_up) / (sqrt(v * v_up) + 1e-8), m, v])

    return step


def _tfx_adamw(*args: Tensor) -> Tensor:
    state, (decay, factor) = args[:5], (*args[5:], None, None)[:2]
    return ops.stack(nn.adamw_step(*state, decay, None, factor, beta1=0.9, beta2=0.95, eps=1e-8))


def _offset(
    q: Tensor, k: Tensor, v: Tensor, scale: Any, offset: int, *masks: Tensor | None, **more: Any
) -> Tensor:
    return nn.attention(q, k, v, scale, tensor(offset, q.backend), *masks, **more)


def _padded(
    q: Tensor, k: Tensor, v: Tensor, scale: Any, padding: int, *, heads: int, offset: int = 0
) -> Tensor:
    """Row i of a batch does not see its first i * `padding` keys."""
    B = q.backend
    behind = arange(k.shape[1], B) >= arange(len(q), B)[:, None] * padding
    visible = behind[:, None, None, :]
    return nn.attention(q, k, v, scale, tensor(offset, B), visible, heads=heads)


def _padding_as_mask(attend: Callable[..., Any], of: Callable[[Any], Any]) -> Callable[..., Any]:
    def padded(
        q: Any, k: Any, v: Any, scale: Any, padding: int, heads: int, offset: int = 0
    ) -> Any:
        hidden = padding * np.arange(len(q))[:, None]
        visible = of((np.arange(k.shape[1]) >= hidden)[:, None, None, :])
        return attend(q, k, v, scale, offset, visible, heads=heads)

    return padded


def _qkv(*leading: int, t: int = 3, s: int = 3) -> list[Any]:
    return [normal(*leading, t, 4), normal(*leading, s, 4), normal(*leading, s, 2)]


def _rows(count: int = 2, *, t: int, s: int) -> list[Any]:
    return [normal(count, t, 4), normal(count, s, 4), normal(count, s, 8)]


def _adam_args(*shape: int) -> list[Any]:
    return [normal(*shape), normal(*shape), normal(*shape), positive(*shape), positive(3)]


FUSED_OPS = [
    Op("linear", nn.linear, _numpy_linear, _torch_linear, [
        Sample(normal(2, 3), normal(3, 4)),
        Sample(normal(3), normal(3, 4), normal(4)),
        Sample(normal(2, 2, 3), normal(3, 4), normal(4), normal(2, 2, 4)),
        Sample(normal(0, 3), normal(3, 2), normal(2)),
        Sample(normal(2, 3), normal(4, 3), outputs_first=True),
        Sample(normal(2, 2, 3), normal(4, 3), normal(4), normal(2, 2, 4),
               activation="relu", outputs_first=True),
        Sample(normal(1, 1, 3), normal(3, 4), normal(4), normal(1, 1, 4), activation="gelu_new"),
        Sample(normal(1, 3), normal(4, 3), outputs_first=True),
        *(Sample(normal(2, 3), normal(3, 4), normal(4), normal(2, 4), activation=name)
          for name in _NUMPY_ACTIVATIONS),
    ]),
    Op("gelu", nn.gelu, _numpy_gelu,
       lambda x, approximate="none": _functional().gelu(x, approximate=approximate),
       [*normals, *(Sample(normal(*shape), approximate="tanh") for shape in SHAPES)]),
    Op("rms_norm", nn.rms_norm, _numpy_rms_norm,
       lambda x, gain=None, eps=1e-5: _functional().rms_norm(x, x.shape[-1:], gain, eps),
       [*rows, Sample(normal(2, 3), normal(3)), Sample(normal(2, 3), eps=0.5),
        Sample(normal(1, 1, 3), normal(3)), Sample(normal(1, 3))]),
    Op("layer_norm", nn.layer_norm, _numpy_layer_norm,
       lambda x, gain, bias, eps=1e-5: _functional().layer_norm(x, x.shape[-1:], gain, bias, eps), [
        Sample(normal(4), normal(4), normal(4)),
        Sample(normal(2, 1, 4), normal(4), normal(4), eps=0.1),
        Sample(normal(1, 1, 4), normal(4), normal(4)),
        Sample(normal(0, 4), normal(4), normal(4)),
    ]),
    Op("softmax", nn.softmax, _numpy_softmax, lambda x: torch.softmax(x, -1), rows,
       [Sample(given(*row)) for row in [(-inf, -inf), (-inf, 0, 5), (nan, 1), (600, 700)]]),
    Op("attention", nn.attention, _numpy_attention, _torch_attention, [
        Sample(*_qkv(), 0.5),
        Sample(*_qkv(2, 2), positive()),
        Sample(*_qkv(t=2, s=5), 0.5, causal=False),
        Sample(*_qkv(t=5, s=2), positive(5, 1)),
        Sample(*_qkv(0), 0.5),
        Sample(normal(2, 3, 4), normal(3, 4), normal(1, 3, 2), 0.5),
        Sample(normal(3, 4), normal(3, 4), normal(3, 6), 0.5, heads=2),
        Sample(normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 4), 0.5, heads=4, causal=False),
    ]),
    Op("attention at an offset", _offset, _numpy_attention, _torch_attention, [
        Sample(*_qkv(t=2, s=5), 0.5, 3),
        Sample(*_qkv(2, t=1, s=4), 0.5, 1),
        Sample(normal(2, 4), normal(5, 4), normal(5, 4), 0.5, 3, heads=2),
        Sample(*_qkv(t=4), 0.5, -2),
        Sample(*_rows(t=2, s=5), 0.5, 2, heads=2),
        Sample(*_rows(t=4, s=3), 0.5, 9, heads=2),
        Sample(*_rows(t=2, s=5), 0.5, 2, mask(2, 1, 1, 5), heads=2),
        Sample(*_rows(t=2, s=5), 0.5, 2, mask(2, 1, 1, 5), normal(2, 2, 2, 5), heads=2),
    ]),
    Op("attention to some", nn.attention, _numpy_attention, _torch_attention, [
        Sample(*_qkv(), 0.5, None, mask(3, 3)),
        Sample(*_qkv(2), positive(), None, mask(3)),
        Sample(*_qkv(t=1), 0.5, None, mask()),
        Sample(*_rows(t=3, s=3), 0.5, None, mask(2, 1, 1, 3), heads=2),
        Sample(*_rows(t=3, s=4), 0.5, None, mask(2, 1, 1, 1), causal=False, heads=2),
        Sample(*_rows(t=3, s=3), 0.5, None, None, normal(2, 2, 3, 3), heads=2),
        Sample(*_rows(t=3, s=4), 0.5, None, mask(2, 1, 1, 4), normal(2, 1, 3, 4), heads=2),
        Sample(*_rows(t=2, s=4), 0.5, None, None, normal(), causal=False, heads=2),
    ]),
    Op("attention over padding", _padded,
       _padding_as_mask(_numpy_attention, np.asarray),
       _padding_as_mask(_torch_attention, lambda x: torch.tensor(x)), [
        Sample(*_rows(3, t=4, s=4), 0.5, 1, heads=2),
        Sample(*_rows(3, t=4, s=4), 0.5, 4, heads=2),
        Sample(*_rows(3, t=2, s=6), 0.5, 2, heads=4, offset=3),
    ]),
    Op("cross_entropy", nn.cross_entropy, _numpy_cross_entropy, _torch_cross_entropy, [
        Sample(normal(5), ids(below=5)),
        Sample(normal(3, 5), ids(3, below=5)),
        Sample(normal(2, 3, 4), ids(2, 3, below=4)),
        Sample(normal(0, 4), ids(0, below=4)),
        Sample(normal(3, 1), ids(3, below=1)),
    ]),
    Op("embedding", nn.embedding, lambda table, i: table[i],
       lambda table, i: _functional().embedding(i, table), [
        Sample(normal(4, 3), ids(9, below=4)),
        Sample(normal(4, 3), ids(below=4)),
        Sample(normal(4, 3), ids(2, 3, below=4)),
        Sample(normal(4, 3), ids(0, below=4)),
    ]),
    Op("euclidean_norm", nn.euclidean_norm, lambda x: np.sqrt((x**2).sum()),
       lambda x: (x**2).sum().sqrt(),
       [Sample(normal(3)), Sample(normal(2, 3)), Sample(normal())],
       [Sample(given(inf, 1)), Sample(given(nan, 1)), Sample(given(0.0))]),
    Op("adamw_step", _tfx_adamw, _adamw(np.sqrt, np.stack),
       _adamw(lambda x: x.sqrt(), lambda xs: torch.stack(xs)), [
        Sample(*_adam_args()),
        Sample(*_adam_args(2, 3)),
        Sample(*_adam_args(2, 3), positive()),
        Sample(*_adam_args(2, 3), positive(2, 3)),
        Sample(*_adam_args(2, 3), None, positive()),
        Sample(*_adam_args(5), positive(5), positive()),
        Sample(*_adam_args(0)),
    ]),
]  # fmt: skip
