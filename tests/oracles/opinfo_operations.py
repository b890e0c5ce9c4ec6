"""What tfx has for torch's operations, by the names that torch tests them under.

`OPERATIONS` has a function for each operation that tfx has a direct counterpart of. It has the
parameters of torch's, those that tfx knows, in torch's order and by torch's names where samples
name them. What it does not take makes a case unmapped.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from foreign_cases import along, only, squeezed, unsqueezed

from tfx.core import ops
from tfx.core.nn import (
    attention,
    cross_entropy,
    embedding,
    euclidean_norm,
    gelu,
    layer_norm,
    linear,
    rms_norm,
    softmax,
)
from tfx.core.tensor import Tensor


def power(x: Tensor, exponent: Tensor) -> Tensor:
    only(exponent.ndim == 0, "an exponent for each element")
    only(not exponent.requires_grad, "the gradient by an exponent")
    return x ** exponent.item()


def clamp(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    if low is None or high is None:
        return ops.minimum(x, high) if low is None else ops.maximum(x, low)
    only(not isinstance(low, Tensor), "bounds for each element")
    return ops.clip(x, low, high)


def xor(x: Tensor, y: Tensor) -> Tensor:
    only(x.dtype == "bool", "the truth of numbers")
    return x != y


def reduction(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def over(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        only(dim not in ((), []), "no axes meaning all axes")
        return method(x, dim, keepdim)

    return over


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    only(not keepdim or dim is not None, "argmax of all elements with their axes kept")
    return unsqueezed(x.argmax(dim), dim % x.ndim) if keepdim else x.argmax(dim)


def largest(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.max(dim, keepdim), argmax(x, dim, keepdim)


def var(
    x: Tensor, dim: Any = None, *, keepdim: bool = False, correction: int = 1, unbiased: bool = True
) -> Tensor:
    only(correction == 0 or not unbiased, "Bessel's correction, or another")
    return reduction(ops.var)(x, dim, keepdim)


def logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    only(isinstance(dim, int) or len(dim) == 1, "other than one axis")
    return ops.logsumexp(x, dim if isinstance(dim, int) else dim[0], keepdim)


def euclidean(x: Tensor, ord: float = 2) -> Tensor:
    only(ord == 2, "a norm that is not Euclidean")
    return euclidean_norm(x)


def softmax_along(x: Tensor, dim: int) -> Tensor:
    return softmax(x.swapaxes(dim, -1)).swapaxes(dim, -1)


def dense(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    only(w.ndim == 2, "weights of one axis")
    return linear(x, w, b, outputs_first=True)


def layer_normal(
    x: Tensor,
    shape: Sequence[int],
    gain: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    only(len(shape) == 1, "normalised over more than the last axis")
    only(gain is not None and bias is not None, "no gain or no bias")
    return layer_norm(x, gain, bias, eps=eps)


def layer_normal_and_moments(
    x: Tensor, shape: Sequence[int], gain: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    deviation = ops.rsqrt(ops.var(x, -1, keepdims=True) + eps)
    return layer_normal(x, shape, gain, bias, eps), x.mean(-1, keepdims=True), deviation


def rms_normal(
    x: Tensor, shape: Sequence[int], gain: Tensor | None = None, eps: float | None = None
) -> Tensor:
    only(len(shape) == 1, "normalised over more than the last axis")
    return rms_norm(x, gain, eps=float(np.finfo(x.dtype).eps) if eps is None else eps)


def loss(
    logits: Tensor, targets: Tensor, *, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    only(weight is None, "a weight for each class")
    only(targets.dtype.is_integer, "probabilities as targets")
    if logits.ndim > 1:
        logits = logits.transpose(0, *range(2, logits.ndim), 1)
    each = cross_entropy(logits, targets)
    return {"none": each, "mean": each.mean(), "sum": each.sum()}[reduction]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    only(attn_mask is None or attn_mask.dtype == "bool", "a mask that is added to the scores")
    only(dropout_p == 0, "dropout")
    return attention(q, k, v, q.shape[-1] ** -0.5, visible=attn_mask, causal=is_causal)


def pad_constant(x: Tensor, widths: Sequence[int], value: float = 0) -> Tensor:
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    return x.pad([(0, 0)] * (x.ndim - len(pairs)) + pairs, value or 0)


def pad(x: Tensor, widths: Sequence[int], mode: str = "constant", value: float = 0) -> Tensor:
    only(mode == "constant", f"mode {mode}")
    return pad_constant(x, widths, value)


def split(x: Tensor, size: int, dim: int = 0) -> tuple[Tensor, ...]:
    only(x.shape[dim] % size == 0, "parts of different lengths")
    return ops.split(x, x.shape[dim] // size, dim)


def chunk(x: Tensor, count: int, dim: int = 0) -> tuple[Tensor, ...]:
    only(x.shape[dim] % count == 0, "parts of different lengths")
    return ops.split(x, count, dim)


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    only(dim % x.ndim == 0, "apart along another axis than the first")
    return tuple(x)


def narrow(x: Tensor, dim: int, start: Any, length: int) -> Tensor:
    only(not isinstance(start, Tensor), "a start that is a tensor")
    return along(x, dim, slice(start % x.shape[dim], start % x.shape[dim] + length))


def cut(x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Tensor:
    return along(x, dim, slice(start, end, step))


def paste(
    x: Tensor, slab: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Tensor:
    only(step == 1, "a step")
    return x.write(slab, slice(start, end).indices(x.shape[dim])[0], dim)


def index_select(x: Tensor, dim: int, indices: Tensor) -> Tensor:
    only(indices.ndim == 1, "an index without axes, and the axis kept")
    return x.take(indices, dim)


def index_add(x: Tensor, dim: int, indices: Tensor, updates: Tensor, *, alpha: float = 1) -> Tensor:
    return x.scatter_add(indices, updates * alpha, dim)


VIEWS: dict[str, Callable[..., Any]] = {
    "expand": lambda x, shape: x.broadcast_to(shape),
    "narrow": narrow,
    "permute": lambda x, dims: x.transpose(dims),
    "squeeze": lambda x, dim=None: squeezed(x, dim),
    "t": lambda x: x.T,
    "transpose": Tensor.swapaxes,
    "unbind": unbind,
    "unsqueeze": unsqueezed,
    "view": lambda x, shape: x.reshape(shape),
}
"""Operations that torch also has under another name, as copies."""

OPERATIONS: dict[str, Callable[..., Any]] = {
    **VIEWS,
    **{f"{name}_copy": function for name, function in VIEWS.items()},
    "T": lambda x: x.T,
    "__getitem__": operator.getitem,
    "__radd__": lambda x, y: y + x,
    "__rdiv__": lambda x, y: y / x,
    "__rmatmul__": lambda x, y: y @ x,
    "__rmul__": lambda x, y: y * x,
    "__rsub__": lambda x, y: y - x,
    "abs": ops.absolute,
    "add": operator.add,
    "amax": reduction(Tensor.max),
    "amin": reduction(Tensor.min),
    "argmax": argmax,
    "bfloat16": lambda x: x.cast("bfloat16"),
    "bmm": operator.matmul,
    "bool": lambda x: x.cast("bool"),
    "broadcast_to": lambda x, shape: x.broadcast_to(shape),
    "cat": lambda xs, dim=0: ops.concat(xs, dim),
    "chunk": chunk,
    "clamp": clamp,
    "clamp_max": ops.minimum,
    "clamp_min": ops.maximum,
    "constant_pad_nd": pad_constant,
    "div.no_rounding_mode": operator.truediv,
    "dot": operator.matmul,
    "double": lambda x: x.cast("float64"),
    "eq": operator.eq,
    "erf": ops.erf,
    "exp": ops.exp,
    "expand_as": lambda x, like: x.broadcast_to(like.shape),
    "flatten": lambda x: x.reshape(-1),
    "float": lambda x: x.cast("float32"),
    "ge": operator.ge,
    "gt": operator.gt,
    "half": lambda x: x.cast("float16"),
    "index_add": index_add,
    "index_select": index_select,
    "int": lambda x: x.cast("int32"),
    "isfinite": ops.isfinite,
    "isnan": lambda x: x != x,
    "le": operator.le,
    "linalg.vector_norm": euclidean,
    "log": ops.log,
    "log_softmax": ops.log_softmax,
    "logical_and": operator.and_,
    "logical_not": operator.invert,
    "logical_or": operator.or_,
    "logical_xor": xor,
    "logsumexp": logsumexp,
    "long": lambda x: x.cast("int64"),
    "lt": operator.lt,
    "mT": lambda x: x.swapaxes(-1, -2),
    "masked_fill": lambda x, mask, value: ops.where(mask, value, x),
    "matmul": operator.matmul,
    "max.binary": ops.maximum,
    "max.reduction_no_dim": Tensor.max,
    "max.reduction_with_dim": largest,
    "maximum": ops.maximum,
    "mean": reduction(Tensor.mean),
    "min.binary": ops.minimum,
    "min.reduction_no_dim": Tensor.min,
    "minimum": ops.minimum,
    "mm": operator.matmul,
    "mul": operator.mul,
    "mv": operator.matmul,
    "native_layer_norm": layer_normal_and_moments,
    "ne": operator.ne,
    "neg": operator.neg,
    "nn.functional.cross_entropy": loss,
    "nn.functional.embedding": embedding,
    "nn.functional.gelu": lambda x, *, approximate="none": gelu(x, approximate=approximate),
    "nn.functional.layer_norm": layer_normal,
    "nn.functional.linear": dense,
    "nn.functional.pad.constant": pad,
    "nn.functional.relu": ops.relu,
    "nn.functional.rms_norm": rms_normal,
    "nn.functional.scaled_dot_product_attention": attend,
    "nn.functional.silu": ops.silu,
    "pow": power,
    "reciprocal": lambda x: 1 / x,
    "reshape": lambda x, shape: x.reshape(shape),
    "reshape_as": lambda x, like: x.reshape(like.shape),
    "rsqrt": ops.rsqrt,
    "rsub": lambda x, y: y - x,
    "select": along,
    "sigmoid": ops.sigmoid,
    "slice": cut,
    "slice_scatter": paste,
    "softmax": softmax_along,
    "split": split,
    "sqrt": ops.sqrt,
    "square": lambda x: x**2,
    "squeeze.multiple": squeezed,
    "stack": lambda xs, dim=0: ops.stack(xs, dim),
    "sub": operator.sub,
    "sum": reduction(Tensor.sum),
    "tanh": ops.tanh,
    "torch.ops.aten._safe_softmax.default": softmax_along,
    "true_divide": operator.truediv,
    "var": var,
    "view_as": lambda x, like: x.reshape(like.shape),
    "where": lambda x, condition, y: ops.where(condition, x, y),
}
