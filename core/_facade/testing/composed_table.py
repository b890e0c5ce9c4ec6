"""Every operation of `tfx.core.ops` and `tfx.core.nn`: the same written another way, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np

from tfx.core import nn, ops, quantized
from tfx.core.creation import arange, tensor
from tfx.core.dropout import dropout_factor
from tfx.core.dtypes import DType
from tfx.core.generation.sampling import sample_token
from tfx.core.tensor import Tensor
from tfx.core.threefry import threefry2x32
from tfx.testing.records import (
    LONG,
    Arg,
    Op,
    Sample,
    given,
    halves,
    ids,
    mask,
    normal,
    pairs_of_nibbles,
    positive,
    signed_bytes,
)

SHAPES = [(2, 3), (), (3,), (2, 1, 4), (0, 2)]
normals = [Sample(normal(*shape)) for shape in SHAPES]
positives = [Sample(positive(*shape)) for shape in SHAPES]
rows = [Sample(normal(*shape)) for shape in [(2, 3), (3,), (0, 2), (2, 1, 4), (2, 1), (2, LONG)]]
pairs = [
    Sample(normal(*x), normal(*y))
    for x, y in [((), ()), ((2, 3), (3,)), ((2, 1), (1, 3)), ((0, 2), (2,))]
]
ODD = given(nan, inf, -inf, 0.0, -0.0, 1.0, -1.0, 800.0, -800.0)

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _softmax(x: Any) -> Any:
    """Without care for overflow, but with rows of nothing but -inf as zeros."""
    e = np.exp(x)
    total = e.sum(-1, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total != 0)


def _log_softmax(x: Any, axis: int = -1) -> Any:
    near = x - x.max(axis, keepdims=True, initial=-inf)
    return near - np.log(np.exp(near).sum(axis, keepdims=True))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


OPS = [
    Op("where", ops.where, np.where, [
        Sample(mask(2, 3), normal(2, 1), normal(3)),
        Sample(mask(2, 3), normal(2, 3), 0),
        Sample(mask(), 1.5, normal(2)),
    ]),
    Op("maximum", ops.maximum, np.maximum, pairs),
    Op("minimum", ops.minimum, np.minimum, pairs,
       [Sample(given(nan, inf, -inf, 0, 1), given(1, 1, 1, 0, nan))]),
    Op("minimum of a number", ops.minimum, np.minimum, [Sample(normal(2, 3), 0.25)],
       [Sample(ODD, 0)]),
    Op("clip", ops.clip, np.clip, [Sample(normal(*shape), -0.5, 0.5) for shape in SHAPES],
       [Sample(ODD, -1, 2)]),
    Op("absolute", ops.absolute, np.abs, normals, [Sample(ODD)]),
    Op("relu", ops.relu, lambda x: np.where(x > 0, x, 0), normals,
       [Sample(given(inf, -inf, 0.0, -0.0, 3.0))]),
    Op("isfinite", ops.isfinite, np.isfinite, normals, [Sample(ODD)], differentiable=False),
    Op("exp", ops.exp, np.exp, normals),
    Op("log", ops.log, np.log, positives),
    Op("tanh", ops.tanh, np.tanh, normals),
    Op("sqrt", ops.sqrt, np.sqrt, positives),
    Op("rsqrt", ops.rsqrt, lambda x: 1 / np.sqrt(x), positives),
    Op("sigmoid", ops.sigmoid, _sigmoid, normals, [Sample(ODD)]),
    Op("silu", ops.silu, lambda x: x * _sigmoid(x), normals),
    Op("erf", ops.erf, _erf,
       [*normals, Sample(given(-5.9, -4.1, -2, -0.47, -0.46, 1e-9, 0.3, 0.49, 0.51, 3, 7, 30))],
       [Sample(ODD)]),
    Op("var", ops.var, np.var, [
        Sample(normal(3)),
        Sample(normal(2, 3), axis=-1),
        Sample(normal(2, 3, 2), axis=(0, 2), keepdims=True),
    ]),
    Op("logsumexp", ops.logsumexp,
       lambda x, axis=-1, keepdims=False: np.log(np.exp(x).sum(axis, keepdims=keepdims)),
       [*rows, Sample(normal(2, 3), axis=0), Sample(normal(2, 3, 2), axis=-2, keepdims=True)],
       [Sample(given(-inf, -inf)), Sample(given(-inf, 0, 5)), Sample(given(nan, 0))]),
    Op("log_softmax", ops.log_softmax, _log_softmax, [*rows, Sample(normal(2, 3), axis=0)],
       [Sample(given(-inf, 0, 5)), Sample(given(10000, 10001, 10003))]),
    Op("concat", lambda *xs, axis=0: ops.concat(xs, axis),
       lambda *xs, axis=0: np.concatenate(xs, axis), [
        Sample(normal(2), normal(1)),
        Sample(normal(2, 3), normal(2, 0), normal(2, 1), axis=-1),
    ]),
    Op("stack", lambda *xs, axis=0: ops.stack(xs, axis), lambda *xs, axis=0: np.stack(xs, axis), [
        Sample(normal(), normal()),
        Sample(normal(2, 3), normal(2, 3), axis=1),
        Sample(normal(2, 3), normal(2, 3), normal(2, 3), axis=-1),
        Sample(normal(0, 3), normal(0, 3), axis=0),
    ]),
    Op("split", lambda x, count, axis=-1: ops.stack(ops.split(x, count, axis)),
       lambda x, count, axis=-1: np.stack(np.split(x, count, axis)), [
        Sample(normal(2, 6), count=3),
        Sample(normal(4, 3, 2), count=2, axis=0),
        Sample(normal(2, 3), count=1),
        Sample(normal(2, 0), count=2),
    ]),
    Op("mean", Tensor.mean, np.mean, [
        Sample(normal(3)),
        Sample(normal()),
        Sample(normal(2, 3), axis=-1),
        Sample(normal(2, 3, 2), axis=(0, 2), keepdims=True),
    ]),
    Op("min", Tensor.min, np.min, [
        Sample(normal(3)),
        Sample(normal(2, 3), axis=-1, keepdims=True),
        Sample(normal(2, 3, 2), axis=(0, 2)),
    ], [Sample(given(nan, 1)), Sample(given(inf, inf))]),
]  # fmt: skip
"""What is composed of primitives, the same on every backend."""


# ---- the fused ops -----------------------------------------------------------------------


def _gelu(x: Any, *, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / np.sqrt(2)))


_ACTIVATIONS: dict[str | None, Callable[[Any], Any]] = {
    None: lambda x: x,
    "gelu": _gelu,
    "gelu_new": lambda x: _gelu(x, approximate="tanh"),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * _sigmoid(x),
}


def _linear(
    x: Any,
    w: Any,
    b: Any = 0,
    residual: Any = 0,
    *,
    activation: str | None = None,
    outputs_first: bool = False,
) -> Any:
    w = w.T if outputs_first else w
    return residual + _ACTIVATIONS[activation](np.einsum("...n,nm->...m", x, w) + b)


EIGHT_BITS = 0.02
"""Kernels multiply in integers where they can, with the rows rounded to eight bits each: 1/254 of
the largest number at most, and some of that adds up."""


def _q8(q: Any, scales: Any) -> Any:
    return q * np.repeat(scales, q.shape[-1] // scales.shape[-1], -1)


def _q4(q: Any, scales: Any) -> Any:
    """Group by group: first all lower halves of its bytes, then all upper ones."""
    groups = np.split(q, scales.shape[-1], -1)
    numbers = [half(group, 16) for group in groups for half in (np.mod, np.floor_divide)]
    return _q8(np.concatenate(numbers, -1) - 8, scales)


def _linear_of(weight: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def reference(x: Any, q: Any, scales: Any, *more: Any, **how: Any) -> Any:
        return _linear(x, weight(q, scales), *more, **how, outputs_first=True)

    return reference


def _rows_as(form: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The form of an embedding, whose last argument serves for its dtype alone."""

    def call(*args: Tensor) -> Tensor:
        return form(*args[:-1], dtype=args[-1].dtype)

    return call


def _layer_norm(x: Any, gain: Any, bias: Any, *, eps: float = 1e-5) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * gain + bias


def _rms_norm(x: Any, gain: Any = 1.0, *, eps: float = 1e-5) -> Any:
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + eps) * gain


def _attention(
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
        outs = []
        each = zip(*(np.split(x, heads, -1) for x in (q, k, v)), strict=True)
        for h, (qh, kh, vh) in enumerate(each):
            masks = visible[..., h, :, :], factor[..., h, :, :]
            outs.append(_attention(qh, kh, vh, scale, offset, *masks, causal=causal))
        return np.concatenate(outs, -1)
    products = np.einsum("...td,...sd->...ts", q, k) * scale
    out = np.zeros((*leading, q.shape[-2], v.shape[-1]))
    for i in range(q.shape[-2]):
        seen = max(0, int(offset or 0) + i + 1) if causal else k.shape[-2]
        row = np.where(visible[..., i, :seen], products[..., i, :seen], -inf)
        weights = _softmax(row) * factor[..., i, :seen]
        out[..., i, :] = np.einsum("...s,...se->...e", weights, v[..., :seen, :])
    return out


def _padded_attention(
    q: Any, k: Any, v: Any, scale: Any, padding: int, *, heads: int, offset: int = 0
) -> Any:
    hidden = padding * np.arange(len(q))[:, None]
    visible = (np.arange(k.shape[1]) >= hidden)[:, None, None, :]
    return _attention(q, k, v, scale, offset, visible, heads=heads)


def _cross_entropy(logits: Any, targets: Any) -> Any:
    chosen = np.take_along_axis(_softmax(logits), targets[..., None], -1)
    return -np.log(chosen[..., 0])


def _adamw(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    rates: Any,
    decay: Any = None,
    factor: Any = None,
    *,
    healthy: bool = True,
) -> Any:
    """The paper's update (Algorithm 2), decay first; the three results in one array."""
    if not healthy:
        return np.stack([p, m, v])
    lr, m_up, v_up = rates
    g = g if factor is None else g * factor
    decay = 0.0 if decay is None else decay
    m = 0.9 * m + 0.1 * g
    v = 0.95 * v + 0.05 * g**2
    return np.stack([p - lr * decay * p - lr * (m * m_up) / (np.sqrt(v * v_up) + 1e-8), m, v])


def _tfx_adamw(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    rates: Tensor,
    decay: Tensor | None = None,
    factor: Tensor | None = None,
    *,
    healthy: bool | None = None,
) -> Tensor:
    health = None if healthy is None else tensor(healthy, p.backend)
    new = nn.adamw_step(p, g, m, v, rates, decay, health, factor, beta1=0.9, beta2=0.95, eps=1e-8)
    return ops.stack(new)


def _tfx_offset(
    q: Tensor, k: Tensor, v: Tensor, scale: Any, offset: int, *masks: Tensor | None, **more: Any
) -> Tensor:
    return nn.attention(q, k, v, scale, tensor(offset, q.backend), *masks, **more)


def _tfx_padded(
    q: Tensor, k: Tensor, v: Tensor, scale: Any, padding: int, *, heads: int, offset: int = 0
) -> Tensor:
    """Row i of a batch does not see its first i * `padding` keys."""
    B = q.backend
    behind = arange(k.shape[1], B) >= arange(len(q), B)[:, None] * padding
    visible = behind[:, None, None, :]
    return nn.attention(q, k, v, scale, tensor(offset, B), visible, heads=heads)


def _qkv(*leading: int, t: int = 3, s: int = 3) -> list[Arg]:
    return [normal(*leading, t, 4), normal(*leading, s, 4), normal(*leading, s, 2)]


def _rows(count: int = 2, *, t: int, s: int) -> list[Arg]:
    return [normal(count, t, 4), normal(count, s, 4), normal(count, s, 8)]


def _sample_token(
    logits: Any,
    uniforms: Any = None,
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Any:
    """Row by row, over shares: by the definition of each option, and none of them for speed."""
    ids = []
    for i, row in enumerate(logits):
        falling = sorted(range(len(row)), key=lambda id: (-row[id], -id))
        if not temperature:
            ids.append(int(row.argmax()))
            continue
        e = np.exp((row - row.max()) / temperature)
        if top_k:
            e = np.where(row >= row[falling[:top_k][-1]], e, 0)
        if top_p < 1:
            shares = e[falling].cumsum() / e.sum()
            e[falling[1 + int((shares[:-1] < top_p).sum()) :]] = 0
        e = np.where(e >= min_p * e.max(), e, 0)
        ids.append(int((e.cumsum() / e.sum() > uniforms[i]).argmax()))
    return np.array(ids)


def _tfx_sample_token(logits: Tensor, uniforms: Tensor | None = None, **how: Any) -> Tensor:
    """The ids in the dtype of the logits; numbers draw in float64, where there is one."""
    if uniforms is not None and DType.float64 in logits.backend.dtypes:
        uniforms = uniforms.cast(DType.float64)
    return sample_token(logits, uniforms, **how).cast(logits.dtype)


KEY = 0x13198A2E, 0xFFFFFFFE
"""Of all that is drawn, with high bits in both words."""


def _dropout_factor(step: Any, _: Any, *, shape: tuple[int, ...], rate: float) -> Any:
    """Word by word, in Python's integers."""
    words = [threefry2x32(KEY, i // 2, int(step))[i % 2] for i in range(math.prod(shape))]
    return np.where(np.array(words, np.int64).reshape(shape) >> 8 < rate * 2**24, 0, 1 / (1 - rate))


def _tfx_dropout_factor(step: Tensor, like: Tensor, **how: Any) -> Tensor:
    """The second argument serves for its dtype alone."""
    return dropout_factor(step, key=KEY, dtype=like.dtype, **how)


def _adam_args(*shape: int) -> list[Arg]:
    return [normal(*shape), normal(*shape), normal(*shape), positive(*shape), positive(3)]


FUSED_OPS = [
    Op("linear", nn.linear, _linear, [
        Sample(normal(2, 3), normal(3, 4)),
        Sample(normal(3), normal(3, 4), normal(4)),
        Sample(normal(2, 2, 3), normal(3, 4), normal(4), normal(2, 2, 4)),
        Sample(normal(0, 3), normal(3, 2), normal(2)),
        Sample(normal(5, LONG), normal(LONG, 67), normal(67), normal(5, 67)),
        Sample(normal(2, 3), normal(4, 3), outputs_first=True),
        Sample(normal(2, 2, 3), normal(4, 3), normal(4), normal(2, 2, 4),
               activation="relu", outputs_first=True),
        Sample(normal(1, 1, 3), normal(3, 4), normal(4), normal(1, 1, 4), activation="gelu_new"),
        Sample(normal(1, 3), normal(4, 3), outputs_first=True),
        *(Sample(normal(2, 3), normal(3, 4), normal(4), normal(2, 4), activation=name)
          for name in _ACTIVATIONS),
    ]),
    Op("gelu", nn.gelu, _gelu,
       [*normals, *(Sample(normal(*shape), approximate="tanh") for shape in SHAPES)]),
    Op("rms_norm", nn.rms_norm, _rms_norm,
       [*rows, Sample(normal(2, 3), normal(3)), Sample(normal(2, 3), eps=0.5),
        Sample(normal(1, 1, 3), normal(3)), Sample(normal(1, 3))]),
    Op("layer_norm", nn.layer_norm, _layer_norm, [
        Sample(normal(4), normal(4), normal(4)),
        Sample(normal(2, 1, 4), normal(4), normal(4), eps=0.1),
        Sample(normal(1, 1, 4), normal(4), normal(4)),
        Sample(normal(0, 4), normal(4), normal(4)),
        Sample(normal(2, LONG), normal(LONG), normal(LONG)),
    ]),
    Op("softmax", nn.softmax, _softmax, rows,
       [Sample(given(*row)) for row in [(-inf, -inf), (-inf, 0, 5), (nan, 1), (600, 700)]]),
    Op("attention", nn.attention, _attention, [
        Sample(*_qkv(), 0.5),
        Sample(*_qkv(2, 2), positive()),
        Sample(*_qkv(t=2, s=5), 0.5, causal=False),
        Sample(*_qkv(t=5, s=2), positive(5, 1)),
        Sample(*_qkv(0), 0.5),
        Sample(*_qkv(t=131, s=131), 0.5),
        Sample(normal(2, 3, 4), normal(3, 4), normal(1, 3, 2), 0.5),
        Sample(normal(3, 4), normal(3, 4), normal(3, 6), 0.5, heads=2),
        Sample(normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 4), 0.5, heads=4, causal=False),
    ]),
    Op("attention at an offset", _tfx_offset, _attention, [
        Sample(*_qkv(t=2, s=5), 0.5, 3),
        Sample(*_qkv(2, t=1, s=4), 0.5, 1),
        Sample(normal(2, 4), normal(5, 4), normal(5, 4), 0.5, 3, heads=2),
        Sample(*_qkv(t=4), 0.5, -2),
        Sample(*_rows(t=2, s=5), 0.5, 2, heads=2),
        Sample(*_rows(t=4, s=3), 0.5, 9, heads=2),
        Sample(*_rows(t=3, s=LONG), 0.5, LONG - 3, heads=2),
        Sample(*_rows(t=2, s=5), 0.5, 2, mask(2, 1, 1, 5), heads=2),
        Sample(*_rows(t=2, s=5), 0.5, 2, mask(2, 1, 1, 5), normal(2, 2, 2, 5), heads=2),
    ]),
    Op("attention to some", nn.attention, _attention, [
        Sample(*_qkv(), 0.5, None, mask(3, 3)),
        Sample(*_qkv(2), positive(), None, mask(3)),
        Sample(*_qkv(t=1), 0.5, None, mask()),
        Sample(*_rows(t=3, s=3), 0.5, None, mask(2, 1, 1, 3), heads=2),
        Sample(*_rows(t=3, s=4), 0.5, None, mask(2, 1, 1, 1), causal=False, heads=2),
        Sample(*_rows(t=3, s=3), 0.5, None, None, normal(2, 2, 3, 3), heads=2),
        Sample(*_rows(t=3, s=4), 0.5, None, mask(2, 1, 1, 4), normal(2, 1, 3, 4), heads=2),
        Sample(*_rows(t=2, s=4), 0.5, None, None, normal(), causal=False, heads=2),
    ]),
    Op("attention over padding", _tfx_padded, _padded_attention, [
        Sample(*_rows(3, t=4, s=4), 0.5, 1, heads=2),
        Sample(*_rows(3, t=4, s=4), 0.5, 4, heads=2),
        Sample(*_rows(3, t=2, s=6), 0.5, 2, heads=4, offset=3),
    ]),
    Op("cross_entropy", nn.cross_entropy, _cross_entropy, [
        Sample(normal(5), ids(below=5)),
        Sample(normal(3, 5), ids(3, below=5)),
        Sample(normal(2, 3, 4), ids(2, 3, below=4)),
        Sample(normal(0, 4), ids(0, below=4)),
        Sample(normal(3, LONG), ids(3, below=LONG)),
        Sample(normal(3, 1), ids(3, below=1)),
    ]),
    Op("embedding", nn.embedding, lambda table, i: table[i], [
        Sample(normal(4, 3), ids(9, below=4)),
        Sample(normal(4, 3), ids(below=4)),
        Sample(normal(4, 3), ids(2, 3, below=4)),
        Sample(normal(4, 3), ids(0, below=4)),
        Sample(normal(LONG, 2), ids(30, below=LONG)),
    ]),
    Op("linear_q8", quantized.linear_q8, _linear_of(_q8), [
        Sample(normal(2, 6), signed_bytes(4, 6), positive(4, 2)),
        Sample(normal(6), signed_bytes(4, 6), positive(4, 1), normal(4)),
        Sample(normal(2, 2, 6), signed_bytes(4, 6), positive(4, 6), normal(4), normal(2, 2, 4)),
        Sample(normal(0, 6), signed_bytes(4, 6), positive(4, 3)),
        Sample(normal(1, 192), signed_bytes(67, 192), positive(67, 3), normal(67)),
        Sample(normal(5, LONG), signed_bytes(3, LONG), positive(3, 7)),
        *(Sample(normal(2, 4), signed_bytes(3, 4), positive(3, 2), normal(3), normal(2, 3),
                 activation=name) for name in _ACTIVATIONS),
    ], rounding=EIGHT_BITS),
    Op("linear_q4", quantized.linear_q4, _linear_of(_q4), [
        Sample(normal(2, 8), pairs_of_nibbles(3, 4), positive(3, 2)),
        Sample(normal(8), pairs_of_nibbles(3, 4), positive(3, 1), normal(3)),
        Sample(normal(2, 2, 8), pairs_of_nibbles(3, 4), positive(3, 4), normal(3),
               normal(2, 2, 3)),
        Sample(normal(0, 8), pairs_of_nibbles(3, 4), positive(3, 4)),
        Sample(normal(1, 192), pairs_of_nibbles(67, 96), positive(67, 3), normal(67)),
        Sample(normal(5, 2 * LONG), pairs_of_nibbles(3, LONG), positive(3, 7)),
        *(Sample(normal(2, 4), pairs_of_nibbles(3, 2), positive(3, 2), normal(3), normal(2, 3),
                 activation=name) for name in _ACTIVATIONS),
    ], rounding=EIGHT_BITS),
    Op("linear_half", quantized.linear_half, _linear, [
        Sample(normal(2, 3), halves(3, 4)),
        Sample(normal(3), halves(3, 4), normal(4)),
        Sample(normal(2, 2, 3), halves(3, 4), normal(4), normal(2, 2, 4), activation="gelu_new"),
        Sample(normal(0, 3), halves(3, 2), normal(2)),
        Sample(normal(5, LONG), halves(67, LONG), normal(67), normal(5, 67), outputs_first=True),
        Sample(normal(1, 1, 3), halves(4, 3), outputs_first=True),
    ]),
    Op("embedding_q8", _rows_as(quantized.embedding_q8),
       lambda q, scales, i, _: _q8(q, scales)[i], [
        Sample(signed_bytes(4, 6), positive(4, 2), ids(2, 3, below=4), normal()),
        Sample(signed_bytes(4, 6), positive(4, 1), ids(below=4), normal()),
        Sample(signed_bytes(LONG, 2), positive(LONG, 2), ids(30, below=LONG), normal()),
    ]),
    Op("embedding_q4", _rows_as(quantized.embedding_q4),
       lambda q, scales, i, _: _q4(q, scales)[i], [
        Sample(pairs_of_nibbles(4, 6), positive(4, 2), ids(2, 3, below=4), normal()),
        Sample(pairs_of_nibbles(4, 6), positive(4, 1), ids(below=4), normal()),
        Sample(pairs_of_nibbles(LONG, 2), positive(LONG, 2), ids(30, below=LONG), normal()),
    ]),
    Op("embedding_half", _rows_as(quantized.embedding_half), lambda table, i, _: table[i], [
        Sample(halves(4, 3), ids(2, 3, below=4), normal()),
        Sample(halves(4, 3), ids(below=4), normal()),
        Sample(halves(4, 3), ids(0, below=4), normal()),
    ]),
    Op("sample_token", _tfx_sample_token, _sample_token, [
        Sample(normal(3, 40)),
        Sample(normal(1, LONG)),
        Sample(normal(2, 40), given(0.07, 0.83), temperature=1.0),
        Sample(normal(2, 40), given(0.12, 0.64), temperature=0.7, top_k=5),
        Sample(normal(2, 40), given(0.07, 0.83), temperature=1.6, top_p=0.77),
        Sample(normal(2, 40), given(0.33, 0.97), temperature=1.0, min_p=0.11),
        Sample(normal(2, 40), given(0.07, 0.83), temperature=1.2, top_k=30, top_p=0.91,
               min_p=0.013),
    ], differentiable=False),
    Op("dropout_factor", _tfx_dropout_factor, _dropout_factor, [
        Sample(ids(below=1000), normal(), shape=shape, rate=rate)
        for shape, rate in [((2, 3), 0.5), ((), 0.5), ((1,), 0.1), ((0, 2), 0.5), ((2, 1, 4), 0.0),
                            ((LONG, 3), 0.1), ((3, 5), 0.9)]
    ]),
    Op("euclidean_norm", nn.euclidean_norm, lambda x: np.sqrt((x**2).sum()),
       [Sample(normal(3)), Sample(normal(2, 3)), Sample(normal())],
       [Sample(given(inf, 1)), Sample(given(nan, 1)), Sample(given(0.0))]),
    Op("adamw_step", _tfx_adamw, _adamw, [
        Sample(*_adam_args()),
        Sample(*_adam_args(2, 3)),
        Sample(*_adam_args(2, 3), positive()),
        Sample(*_adam_args(2, 3), positive(2, 3)),
        Sample(*_adam_args(2, 3), None, positive()),
        Sample(*_adam_args(5), positive(5), positive()),
        Sample(*_adam_args(0)),
        Sample(*_adam_args(1 << 12 | 1), positive()),
        *(Sample(*_adam_args(2, 3), healthy=healthy) for healthy in (True, False)),
    ], [
        Sample(given(1, 2), given(nan, inf), given(0, 1), given(1, 1), positive(3), healthy=False),
    ]),
]  # fmt: skip
"""The ops that a kernel may override. The first word of a name is that of the op."""
