"""torch's own samples of its operations on tfx: values, and gradients in float64.

`OPERATIONS` has a function for each operation that tfx has a direct counterpart of. It has the
parameters of torch's, those that tfx knows, in torch's order and by torch's names where samples
name them. What it does not take makes a case unmapped. To list these anew:

    python tests/oracles/opinfo_adapter.py
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from foreign_cases import (
    Listing,
    Score,
    along,
    assert_same,
    call,
    imported,
    judge,
    known,
    only,
    squeezed,
    told,
    unsqueezed,
)

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import ops
from tfx.core.autograd import Autograd, value_and_grad
from tfx.core.backend import Backend
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

FILE = Path(__file__).with_name("opinfo_unmapped.txt")
VERSION = "2.13.0"
"""The version of torch that the file was written with."""

DTYPES = (torch.float64, torch.float32, torch.int64, torch.bool)

# ---- operations ----------------------------------------------------------------------------------


def power(x: Tensor, exponent: Any) -> Tensor:
    only(not isinstance(exponent, Tensor), "an exponent for each element")
    return x**exponent


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

# ---- cases ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SampleCase:
    """One sample of an operation, and what torch makes of it.

    Attributes:
        name: the operation, the dtype, and which of its samples.
        args, kwargs: of the call, with torch's tensors.
        results: torch's.
        weights: what each result is multiplied by before all are summed up; None where no gradient
            goes through a result.
        gradients: of that sum, by every argument that asks for one.
    """

    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    results: Sequence[torch.Tensor]
    weights: Sequence[torch.Tensor | None]
    gradients: Sequence[torch.Tensor]

    @property
    def dtypes(self) -> Iterator[str]:
        return map(_dtype, (*_tensors((self.args, self.kwargs)), *self.results))

    def check(self, backend: Backend) -> None:
        for dtype in self.dtypes:
            known(dtype)
        found = self._call([_imported(x, backend) for x in _tensors((self.args, self.kwargs))])
        for x, expected in zip(found, self.results, strict=True):
            _assert_same(x, expected)
        if self.gradients:
            self._check_gradients(backend, "core")
            if backend.native_autograd:
                self._check_gradients(backend, "native")

    def _check_gradients(self, backend: Backend, autograd: Autograd) -> None:
        given = list(_tensors((self.args, self.kwargs)))
        weights = [w if w is None else _imported(w, backend) for w in self.weights]

        def weighted(params: Sequence[Tensor]) -> Tensor:
            variables = iter(params)
            found = self._call(
                [next(variables) if x.requires_grad else _imported(x, backend) for x in given]
            )
            pairs = zip(found, weights, strict=True)
            first, *others = [(x * w).sum() for x, w in pairs if w is not None]
            return sum(others, start=first)

        params = [_imported(x, backend) for x in given if x.requires_grad]
        _, found = value_and_grad(weighted, autograd=autograd)(params)
        for x, expected in zip(found, self.gradients, strict=True):
            _assert_same(x, expected)

    def _call(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results for these tensors in place of torch's."""
        args, kwargs = _replaced((self.args, self.kwargs), iter(tensors))
        return _sequence(call(OPERATIONS[self.name.partition(" ")[0]], args, kwargs))


def _tensors(nest: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested lists, tuples and dictionaries."""
    if isinstance(nest, torch.Tensor):
        yield nest
    elif isinstance(nest, list | tuple | dict):
        for x in nest.values() if isinstance(nest, dict) else nest:
            yield from _tensors(x)


def _replaced(nest: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nest with other tensors in place of its own."""
    if isinstance(nest, torch.Tensor):
        return next(tensors)
    if isinstance(nest, dict):
        return {key: _replaced(x, tensors) for key, x in nest.items()}
    if isinstance(nest, list | tuple):
        replaced = [_replaced(x, tensors) for x in nest]
        return replaced if isinstance(nest, list) else tuple(replaced)
    return nest


def _sequence(results: Any) -> Sequence[Any]:
    return results if isinstance(results, list | tuple) else (results,)


def _dtype(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _imported(x: torch.Tensor, backend: Backend) -> Tensor:
    return imported(_host(x), _dtype(x), backend)


def _assert_same(found: Tensor, expected: torch.Tensor) -> None:
    assert_same(found, _host(expected), _dtype(expected))


def _host(x: torch.Tensor) -> Any:
    x = x.detach().resolve_conj().resolve_neg()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


@cache
def infos() -> dict[str, Any]:
    """What torch tells of each operation, by name and variant."""
    with patch("torch.backends.disable_global_flags"):  # it would hold for the rest of the process
        from torch.testing._internal.common_methods_invocations import op_db
    return {info.full_name: info for info in op_db}


@cache
def cases(name: str) -> list[SampleCase]:
    """The samples of an operation in all dtypes, from numbers drawn with a fixed seed."""
    info = infos()[name]
    made = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for dtype in [dtype for dtype in DTYPES if dtype in info.dtypes]:
            differentiated = dtype == torch.float64 and info.supports_autograd
            # sample_inputs() itself, which asks for the call stack each time, is slow below pytest
            samples = info.sample_inputs_func(info, "cpu", dtype, requires_grad=differentiated)
            for i, sample in enumerate(samples):
                made.append(_case(f"{name} {str(dtype)[6:]} {i}", info, sample))
    return made


def _case(name: str, info: Any, sample: Any) -> SampleCase:
    args, kwargs = (sample.input, *sample.args), sample.kwargs
    results = _sequence(info(*args, **kwargs))
    weights = [torch.randn_like(x) if x.requires_grad else None for x in results]
    variables = [x for x in _tensors((args, kwargs)) if x.requires_grad]
    pairs = zip(results, weights, strict=True)
    outputs = [(x, w) for x, w in pairs if w is not None]
    gradients: Sequence[torch.Tensor] = ()
    if outputs:
        values, seeds = zip(*outputs, strict=True)
        gradients = torch.autograd.grad(values, variables, seeds, materialize_grads=True)
    return SampleCase(name, args, kwargs, results, weights, gradients)


# ---- what they come to ---------------------------------------------------------------------------


@cache
def score(name: str, backend: Backend) -> Score:
    """What the samples of an operation came to."""
    return judge(cases(name), backend)


def unmapped(backend: Backend) -> Listing:
    """What stays unmapped, as this backend tells it; an operation counts once, without samples."""
    listing: Listing = Counter()
    for name in infos():
        if name in OPERATIONS:
            for reason, count in score(name, backend).unmapped.items():
                listing[name, reason] = count
        else:
            listing[name, "no direct counterpart"] = 1
    return listing


if __name__ == "__main__":
    FILE.write_text(told(unmapped(NumpyBackend())), "utf-8")
