"""The node tests of ONNX on tfx: models of one node, with inputs and outputs from ONNX itself.

`OPERATIONS` has a function for each operator that tfx has a direct counterpart of. It takes the
node's inputs as tensors by position, None where one is left out, and its attributes by keyword; it
returns the node's results. What it does not take makes a case unmapped. To list these anew:

    python tests/oracles/onnx_adapter.py
"""

from __future__ import annotations

import importlib
import math
import operator
import pkgutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test.case.node as node_tests
from foreign_cases import (
    Listing,
    Score,
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
from onnx.helper import get_attribute_value, tensor_dtype_to_np_dtype
from onnx.numpy_helper import to_array

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import ops
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import full
from tfx.core.nn import attention, cross_entropy, gelu, layer_norm, linear, rms_norm, softmax
from tfx.core.tensor import Tensor

FILE = Path(__file__).with_name("onnx_unmapped.txt")
VERSION = "1.23.2"
"""The version of the package `onnx` that the file was written with."""

NOT_MADE = {"averagepool", "lppool", "maxpool"}
"""Modules whose cases take seconds to compute, of operators that tfx does not have."""

SEVERAL = "models-of-several-nodes"
LACKING = "no direct counterpart"
AGAIN = "what others say with one node, once more"

# ---- operators -----------------------------------------------------------------------------------


def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    only(low is not None or high is not None, "no bound")
    if low is None or high is None:
        return ops.minimum(x, high.item()) if low is None else x.maximum(low.item())
    return ops.clip(x, low.item(), high.item())


def power(x: Tensor, exponent: Tensor) -> Tensor:
    only(exponent.size == 1, "an exponent for each element")
    return x ** exponent.item()


def cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    return x.cast(known(tensor_dtype_to_np_dtype(to).name))


def constant(shape: Tensor, *, value: onnx.TensorProto) -> Tensor:
    cell = to_array(value)
    return full(shape.tolist(), cell.item(), shape.backend, cell.dtype.name)


def reduction(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def over(
        x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        given = axes.tolist() if axes is not None else []
        only(bool(given) or not noop_with_empty_axes, "no axes meaning no reduction")
        return method(x, given or None, bool(keepdims))

    return over


def logsumexp(x: Tensor, axes: list[int] | None, keepdims: bool) -> Tensor:
    only(axes is not None and len(axes) == 1, "more than one axis")
    return ops.logsumexp(x, axes[0], keepdims)


def argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    only(not select_last_index, "the last of equals")
    return unsqueezed(x.argmax(axis), axis % x.ndim) if keepdims else x.argmax(axis)


def gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, transA: int = 0, transB: int = 0
) -> Tensor:
    x, outputs_first = a.T if transA else a, bool(transB)
    rows, columns = x.shape[0], b.shape[0 if transB else 1]
    if c is not None and c.shape == (rows, columns):
        return linear(x, b, residual=c, outputs_first=outputs_first)
    only(c is None or c.size == columns, "a bias of one number")
    bias = c if c is None else c.reshape(columns)
    return linear(x, b, bias, outputs_first=outputs_first)


def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    new = shape.tolist()
    return x.reshape([n if n or allowzero else x.shape[i] for i, n in enumerate(new)])


def split(
    x: Tensor, sizes: Tensor | None = None, *, axis: int = 0, num_outputs: int | None = None
) -> tuple[Tensor, ...]:
    lengths = sizes.tolist() if sizes is not None else []
    count = num_outputs or len(lengths)
    only(count > 0, "the number of parts told by the results alone")
    only(len(set(lengths)) < 2, "parts of different lengths")
    return ops.split(x, count, axis)


def cut(
    x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    key = [slice(None)] * x.ndim
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        at = i if axes is None else axes[i].item()
        key[at] = slice(start, end, 1 if steps is None else steps[i].item())
    return x[tuple(key)]


def pad(
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    only(mode == "constant", f"mode {mode}")
    widths = [(0, 0)] * x.ndim
    befores, afters = pads.reshape(2, -1).tolist()
    places = range(x.ndim) if axes is None else axes.tolist()
    for axis, width in zip(places, zip(befores, afters, strict=True), strict=True):
        widths[axis] = width
    return x.pad(widths, 0 if value is None else value.item())


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    only(bool((indices.numpy() >= 0).all()), "negative indices")
    return x.take(indices, axis)


def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    only(reduction == "add", f"reduction {reduction}")
    only(indices.shape[-1] == 1, "indices of more than one axis")
    return x.scatter_add(indices[..., 0], updates)


def over_last(x: Tensor, axis: int) -> None:
    only(axis % x.ndim == x.ndim - 1, "normalised over more than the last axis")


def layer_normalization(
    x: Tensor,
    gain: Tensor,
    bias: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    over_last(x, axis)
    deviation = ops.rsqrt(ops.var(x, -1, keepdims=True) + epsilon)
    return layer_norm(x, gain, bias, eps=epsilon), x.mean(-1, keepdims=True), deviation


def rms_normalization(x: Tensor, gain: Tensor, *, axis: int = -1, epsilon: float = 1e-5) -> Tensor:
    over_last(x, axis)
    return rms_norm(x, gain, eps=epsilon)


def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    only(alpha == 1, "a factor before the sigmoid")
    return ops.silu(x)


def cross_entropy_loss(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, reduction: str = "mean"
) -> tuple[Tensor, Tensor]:
    only(weights is None, "a weight for each class")
    loss = cross_entropy(logits.transpose(0, *range(2, logits.ndim), 1), targets)
    reduced = {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]
    return reduced, ops.log_softmax(logits, 1)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_k: Tensor | None = None,
    past_v: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    is_causal: int = 0,
    q_num_heads: int | None = None,
    kv_num_heads: int | None = None,
    scale: float | None = None,
    left_window_size: int = -1,
    right_window_size: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    heads = (q_num_heads, kv_num_heads) if q_num_heads else (q.shape[-3], k.shape[-3])
    only(heads[0] == heads[1], "fewer heads of keys than of queries")
    only(mask is None or mask.dtype == "bool", "a mask that is added to the scores")
    only(lengths is None, "a length for the keys of each row")
    only(left_window_size == right_window_size == -1, "a window")
    only(past_k is None or q_num_heads is None, "a past with its heads on an axis of their own")
    offset = None
    if past_k is not None and past_v is not None:
        offset = full((), past_k.shape[-2], q.backend, q.backend.index_dtype)
        k, v = ops.concat([past_k, k], -2), ops.concat([past_v, v], -2)
    scale = scale or (q.shape[-1] // (q_num_heads or 1)) ** -0.5
    out = attention(q, k, v, scale, offset, mask, causal=bool(is_causal), heads=q_num_heads)
    return out, k, v


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Abs": ops.absolute,
    "Add": operator.add,
    "And": operator.and_,
    "ArgMax": argmax,
    "Attention": attend,
    "Cast": cast,
    "CastLike": lambda x, like, *, saturate=1: x.cast(like.dtype),
    "Clip": clip,
    "Concat": lambda *xs, axis: ops.concat(xs, axis),
    "ConstantOfShape": constant,
    "Div": operator.truediv,
    "Equal": operator.eq,
    "Erf": ops.erf,
    "Exp": ops.exp,
    "Expand": lambda x, shape: x.broadcast_to(np.broadcast_shapes(x.shape, tuple(shape.tolist()))),
    "Flatten": lambda x, *, axis=1: x.reshape(math.prod(x.shape[:axis]), -1),
    "Gather": gather,
    "Gelu": lambda x, *, approximate="none": gelu(x, approximate=approximate),
    "Gemm": gemm,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "IsNaN": lambda x: x != x,
    "LayerNormalization": layer_normalization,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Log": ops.log,
    "LogSoftmax": lambda x, *, axis=-1: ops.log_softmax(x, axis),
    "MatMul": operator.matmul,
    "Max": lambda *xs: reduce(ops.maximum, xs),
    "Min": lambda *xs: reduce(ops.minimum, xs),
    "Mul": operator.mul,
    "Neg": operator.neg,
    "Not": operator.invert,
    "Or": operator.or_,
    "Pad": pad,
    "Pow": power,
    "RMSNormalization": rms_normalization,
    "Reciprocal": lambda x: 1 / x,
    "ReduceLogSumExp": reduction(logsumexp),
    "ReduceMax": reduction(Tensor.max),
    "ReduceMean": reduction(Tensor.mean),
    "ReduceMin": reduction(Tensor.min),
    "ReduceSum": reduction(Tensor.sum),
    "Relu": ops.relu,
    "Reshape": reshape,
    "ScatterND": scatter_nd,
    "Sigmoid": ops.sigmoid,
    "Slice": cut,
    "Softmax": lambda x, *, axis=-1: softmax(x.swapaxes(axis, -1)).swapaxes(axis, -1),
    "SoftmaxCrossEntropyLoss": cross_entropy_loss,
    "Split": split,
    "Sqrt": ops.sqrt,
    "Squeeze": lambda x, axes=None: squeezed(x, None if axes is None else tuple(axes.tolist())),
    "Sub": operator.sub,
    "Sum": lambda *xs: reduce(operator.add, xs),
    "Swish": swish,
    "Tanh": ops.tanh,
    "Transpose": lambda x, *, perm=(): x.transpose(*perm),
    "Unsqueeze": lambda x, axes: unsqueezed(x, tuple(axes.tolist())),
    "Where": ops.where,
    "Xor": operator.ne,
}

# ---- cases ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NodeCase:
    """A model of one node, with its inputs and the results it should have; None where left out."""

    name: str
    node: onnx.NodeProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]

    @property
    def dtypes(self) -> Iterator[str]:
        return (x.dtype.name for x in (*self.inputs, *self.outputs) if x is not None)

    def check(self, backend: Backend) -> None:
        for dtype in self.dtypes:
            known(dtype)
        attributes = {a.name: _attribute(a) for a in self.node.attribute}
        inputs = [_tensor(x, backend) for x in self.inputs]
        results = call(OPERATIONS[self.node.op_type], inputs, attributes)
        found = results if isinstance(results, tuple) else (results,)
        beyond = self.outputs[len(found) :]
        only(all(x is None for x in beyond), "a result that tfx does not give")
        for x, expected in zip(found, self.outputs, strict=False):
            if expected is not None:
                assert_same(x, expected, expected.dtype.name)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _tensor(value: Any, backend: Backend) -> Tensor | None:
    if value is None:
        return None
    name = value.dtype.name
    return imported(value.astype(np.float32) if name == "bfloat16" else value, name, backend)


@cache
def models() -> dict[str, list[Any]]:
    """The tests by operator; those of several nodes, which say anew what other tests say, apart.

    ONNX computes them when their modules are imported, from numbers drawn with fixed seeds.
    """
    with np.errstate(all="ignore"):
        for module in pkgutil.iter_modules(node_tests.__path__, node_tests.__name__ + "."):
            if module.name.rpartition(".")[2] not in NOT_MADE:
                importlib.import_module(module.name)
    found = defaultdict(list)
    for test in node_tests._NodeTestCases:
        nodes = test.model.graph.node
        found[nodes[0].op_type if len(nodes) == 1 else SEVERAL].append(test)
    return dict(found)


def case(test: Any) -> NodeCase:
    (node,) = test.model.graph.node
    ((inputs, outputs),) = test.data_sets
    return NodeCase(test.name, node, _by_place(node.input, inputs), _by_place(node.output, outputs))


def _by_place(names: Sequence[str], values: Sequence[Any]) -> list[HostArray | None]:
    present = iter(values)
    return [_host(next(present)) if name else None for name in names]


def _host(value: Any) -> HostArray:
    return to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


# ---- what they come to ---------------------------------------------------------------------------


@cache
def score(operator: str, backend: Backend) -> Score:
    """What the cases of an operator came to."""
    return judge(map(case, models().get(operator, [])), backend)


def unmapped(backend: Backend) -> Listing:
    """What stays unmapped, as this backend tells it."""
    listing: Listing = Counter()
    for name, tests in models().items():
        if name in OPERATIONS:
            for reason, count in score(name, backend).unmapped.items():
                listing[name, reason] = count
        else:
            listing[name, AGAIN if name == SEVERAL else LACKING] = len(tests)
    for module in NOT_MADE:
        listing[module, f"{LACKING}; its cases are not made, which takes seconds"] = 1
    return listing


if __name__ == "__main__":
    FILE.write_text(told(unmapped(NumpyBackend())), "utf-8")
