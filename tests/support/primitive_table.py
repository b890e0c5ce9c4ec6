"""Every primitive that maps arrays to arrays, with its oracles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf, nan
from typing import Any

import numpy as np
from op_records import Op, Sample, given, ids, mask, normal, positive, torch

from tfx.core.dtypes import INTEGERS, DType
from tfx.core.tensor import Tensor, apply

HALF = {DType.float16}
NUMBERS = HALF | INTEGERS
ANYTHING = NUMBERS | {DType.bool}

UNARY = [(), (3,), (2, 3), (0,), (2, 0, 3), (2, 1, 3, 2)]
PAIRS = [
    ((), ()),
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((), (2, 3)),
    ((2, 1, 3), (4, 1)),
    ((1, 1), (2, 2)),
    ((0, 3), (3,)),
    ((2, 0), (1,)),
    ((1,), (0,)),
]
ODD = given(nan, inf, -inf, 0.0, -0.0, 1.0, -1.0)
EVEN = given(1.0, -inf, inf, -0.0, 0.0, nan, -1.0)
"""One row of odd floats beside another."""

PRIMITIVE_OPS: dict[str, Op] = {}


def op(
    name: str,
    numpy: Callable[..., Any],
    torch: Callable[..., Any] | None,
    samples: Sequence[Sample],
    specials: Sequence[Sample] = (),
    dtypes: Iterable[DType] = (),
    tfx: Callable[..., Tensor] | None = None,
) -> None:
    call = tfx or partial(apply, name)
    PRIMITIVE_OPS[name] = Op(name, call, numpy, torch, samples, specials, dtypes)


# ---- elementwise -------------------------------------------------------------------------


def binary(number: float = 2.5) -> list[Sample]:
    """Pairs of shapes, and a number on either side."""
    pairs = [Sample(normal(*a), positive(*b)) for a, b in PAIRS]
    return [
        *pairs,
        Sample(positive(2, 3), number),
        Sample(3, positive(2, 3)),
        Sample(positive(), 2),
    ]


def as_tensor(x: Any, beside: Any) -> Any:
    return x if torch.is_tensor(x) else torch.tensor(x, dtype=beside.dtype)


def torch_maximum(x: Any, y: Any) -> Any:
    return torch.maximum(as_tensor(x, y), as_tensor(y, x))


normals, positives = [[Sample(draw(*shape)) for shape in UNARY] for draw in (normal, positive)]
odd = [Sample(ODD)]
odds = [Sample(ODD, EVEN), Sample(EVEN, 0.0), Sample(inf, ODD)]

op("neg", np.negative, lambda x: -x, normals, odd, NUMBERS)
op("exp", np.exp, lambda x: x.exp(), normals, [*odd, Sample(given(-800.0, 800.0))], HALF)
op("log", np.log, lambda x: x.log(), positives, odd, HALF)
op("tanh", np.tanh, lambda x: x.tanh(), normals, [*odd, Sample(given(-800.0, 800.0))], HALF)
op("sqrt", np.sqrt, lambda x: x.sqrt(), positives, odd, HALF)
op("add", np.add, lambda x, y: x + y, binary(), odds, NUMBERS)
op("sub", np.subtract, lambda x, y: x - y, binary(), odds, NUMBERS)
op("mul", np.multiply, lambda x, y: x * y, binary(), odds, NUMBERS)
op("div", np.true_divide, lambda x, y: x / y, binary(), odds, HALF)
op("maximum", np.maximum, torch_maximum, binary(), odds, NUMBERS)
op("less", np.less, None, binary(), odds, NUMBERS)
op("equal", np.equal, None, [*binary(), Sample(mask(2, 3), False)], odds, ANYTHING)
op(
    "pow",
    lambda x, *, exponent: np.power(x, np.float64(exponent)),
    lambda x, *, exponent: torch.pow(x, exponent),
    [
        *(Sample(positive(2, 3), exponent=e) for e in (0, 1, 2, 3, -1, -0.5, 0.5, 2.5)),
        *(Sample(normal(3, 2), exponent=e) for e in (0, 1.0, 2, 3, -2)),
        Sample(positive(), exponent=-0.5),
        Sample(positive(0, 2), exponent=2),
    ],
    [
        *(Sample(ODD, exponent=e) for e in (0, 1, 2, 3, -1)),
        *(Sample(given(nan, inf, 0.0, -1.0), exponent=e) for e in (0.5, -0.5)),
    ],
    HALF,
)
op(
    "where",
    np.where,
    lambda c, x, y: torch.where(c, x, y),
    [
        Sample(mask(2, 3), normal(2, 3), normal(2, 3)),
        Sample(mask(3), normal(2, 1), normal()),
        Sample(mask(), normal(2, 3), normal(3)),
        Sample(mask(2, 3), normal(3), 2),
        Sample(mask(2, 3), 0, normal(2, 1)),
        Sample(mask(2, 3), 0.5, normal()),
        Sample(mask(0, 3), normal(3), normal(1, 1)),
        Sample(mask(), normal(), 1),
    ],
    [Sample(mask(7), ODD, 0.0), Sample(mask(7), ODD, EVEN), Sample(mask(2, 2), normal(2, 2), -inf)],
    ANYTHING,
)
op(
    "cast",
    lambda x, *, dtype: x.astype(str(dtype)),
    lambda x, *, dtype: x.to(getattr(torch, str(dtype))),
    [Sample(normal(*shape), dtype=DType.float64) for shape in UNARY],
)


# ---- reductions and products -------------------------------------------------------------


def torch_amax(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    return torch.amax(x, axis, keepdims) if axis else x


def torch_sum(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    return torch.sum(x, axis, keepdims) if axis else x


reductions = [
    Sample(normal(*shape), axis=axis, keepdims=keepdims)
    for shape, axis, keepdims in [
        ((), (), False),
        ((3,), (0,), False),
        ((2, 3), (), False),
        ((2, 3), (1,), True),
        ((2, 3), (0,), False),
        ((2, 3), (0, 1), False),
        ((2, 3), (1, 0), True),
        ((2, 3, 4), (0, 2), False),
        ((0, 3), (1,), True),
        ((2, 1, 3, 1), (1, 3), False),
    ]
]
nothing = [Sample(normal(0, 3), axis=a, keepdims=k) for a in [(0,), (0, 1)] for k in (True, False)]
ties = [Sample(given(1, 3, 3, -2, 3), axis=(0,), keepdims=False)]
odd_sum = [
    Sample(ODD, axis=(0,), keepdims=True),
    Sample(given(1, inf, 2), axis=(0,), keepdims=False),
]

op("sum", np.sum, torch_sum, [*reductions, *nothing], [*ties, *odd_sum], NUMBERS)
op("max", np.max, torch_amax, reductions, [*ties, *odd_sum], NUMBERS)
op(
    "argmax",
    np.argmax,
    None,
    [
        *(Sample(normal(2, 3, 4), axis=i) for i in range(3)),
        Sample(normal(3), axis=0),
        Sample(normal(0, 3), axis=1),
    ],
    [Sample(given(1, 3, 3, -2, 3), axis=0), Sample(given(-inf, -inf), axis=0)],
    NUMBERS,
)
op(
    "matmul",
    np.matmul,
    lambda x, y: torch.matmul(x, y),
    [
        Sample(normal(2, 3), normal(3, 4)),
        Sample(normal(5, 2, 3), normal(3, 4)),
        Sample(normal(2, 3), normal(5, 3, 1)),
        Sample(normal(5, 2, 3), normal(5, 3, 4)),
        Sample(normal(2, 1, 2, 3), normal(3, 3, 2)),
        Sample(normal(1, 1), normal(1, 1)),
        Sample(normal(2, 0), normal(0, 3)),
        Sample(normal(0, 3), normal(3, 2)),
        Sample(normal(4, 2, 3), normal(1, 3, 0)),
    ],
    dtypes=HALF,
)


# ---- shape -------------------------------------------------------------------------------


def moves(name: str, numpy: Any, torch: Any, samples: Sequence[Sample], **more: Any) -> None:
    """An operation that moves elements of any dtype."""
    op(name, numpy, torch, samples, dtypes=ANYTHING, **more)


def cut(x: Any, *, starts: Any, stops: Any, steps: Any) -> Any:
    return x[(*map(slice, starts, stops, steps), ...)]


def torch_pad(x: Any, *, widths: Any, value: float) -> Any:
    flat = [n for pair in reversed(widths) for n in pair]
    return torch.nn.functional.pad(x, flat, value=value) if flat else x


moves(
    "reshape",
    lambda x, *, shape: np.reshape(x, shape),
    lambda x, *, shape: x.reshape(shape),
    [
        Sample(normal(*old), shape=new)
        for old, new in [
            ((2, 3), (3, 2)),
            ((2, 3), (6,)),
            ((), (1, 1)),
            ((1,), ()),
            ((0, 3), (5, 0)),
            ((2, 3, 4), (4, 1, 6)),
        ]
    ],
)
moves(
    "transpose",
    lambda x, *, axes: np.transpose(x, axes),
    lambda x, *, axes: x.permute(axes),
    [
        Sample(normal(*shape), axes=axes)
        for shape, axes in [
            ((), ()),
            ((3,), (0,)),
            ((2, 3), (1, 0)),
            ((2, 3, 4), (2, 0, 1)),
            ((0, 2), (1, 0)),
        ]
    ],
)
moves(
    "broadcast_to",
    lambda x, *, shape: np.broadcast_to(x, shape),
    lambda x, *, shape: torch.broadcast_to(x, shape),
    [
        Sample(normal(*old), shape=new)
        for old, new in [
            ((), ()),
            ((), (2, 3)),
            ((3,), (2, 3)),
            ((2, 1), (2, 3)),
            ((1, 3), (4, 2, 3)),
            ((1,), (0,)),
            ((3,), (0, 3)),
        ]
    ],
)
moves(
    "concat",
    lambda *xs, axis: np.concatenate(xs, axis),
    lambda *xs, axis: torch.cat(xs, axis),
    [
        Sample(normal(2), normal(3), axis=0),
        Sample(normal(2, 3), axis=1),
        Sample(*(normal(2, n, 2) for n in (1, 0, 4, 2, 3, 1, 1)), axis=1),
        Sample(normal(2, 3), normal(2, 1), axis=1),
        Sample(normal(0, 2), normal(0, 2), axis=0),
    ],
)
moves(
    "slice",
    cut,
    cut,
    [
        Sample(normal(), starts=(), stops=(), steps=()),
        Sample(normal(5), starts=(1,), stops=(4,), steps=(1,)),
        Sample(normal(7), starts=(1,), stops=(7,), steps=(3,)),
        Sample(normal(7), starts=(2,), stops=(6,), steps=(9,)),
        Sample(normal(5), starts=(5,), stops=(5,), steps=(2,)),
        Sample(normal(4, 6), starts=(0, 1), stops=(4, 6), steps=(1, 2)),
        Sample(normal(4, 6, 5), starts=(1, 0, 2), stops=(4, 5, 5), steps=(2, 3, 1)),
        Sample(normal(0, 3), starts=(0, 1), stops=(0, 2), steps=(1, 1)),
    ],
)
moves(
    "pad",
    lambda x, *, widths, value: np.pad(x, widths, constant_values=value) if x.ndim else x,
    torch_pad,
    [
        Sample(normal(), widths=(), value=0),
        Sample(normal(3), widths=((1, 2),), value=0),
        Sample(normal(2, 3), widths=((0, 0), (2, 0)), value=2.5),
        Sample(normal(2, 3), widths=((1, 0), (0, 1)), value=3),
        Sample(normal(0, 3), widths=((1, 1), (0, 0)), value=1),
    ],
    specials=[Sample(normal(2), widths=((0, 1),), value=v) for v in (-inf, True)],
)


# ---- index -------------------------------------------------------------------------------


def torch_take(x: Any, indices: Any, *, axis: int) -> Any:
    picked = torch.index_select(x, axis, indices.reshape(-1))
    return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def numpy_scatter_add(x: Any, indices: Any, updates: Any, *, axis: int) -> Any:
    """One update after the other, over the axis moved to the front."""
    out = np.moveaxis(x.copy(), axis, 0)
    last = axis + indices.ndim
    rows = np.moveaxis(updates, range(axis, last), range(indices.ndim)).reshape(-1, *out.shape[1:])
    for i, row in zip(indices.reshape(-1), rows, strict=True):
        out[i] += row
    return np.moveaxis(out, 0, axis)


def torch_scatter_add(x: Any, indices: Any, updates: Any, *, axis: int) -> Any:
    shape = (*x.shape[:axis], indices.numel(), *x.shape[axis + 1 :])
    return x.index_add(axis, indices.reshape(-1), updates.reshape(shape))


def numpy_write(buffer: Any, slab: Any, start: Any, *, axis: int) -> Any:
    before, after = np.split(buffer, [int(start)], axis)
    return np.concatenate(
        [before, slab, after[(slice(None),) * axis + (slice(slab.shape[axis], None),)]], axis
    )


def torch_write(buffer: Any, slab: Any, start: Any, *, axis: int) -> Any:
    return torch.slice_scatter(buffer, slab, axis, int(start), int(start) + slab.shape[axis])


moves(
    "take",
    lambda x, indices, *, axis: np.take(x, indices, axis),
    torch_take,
    [
        Sample(normal(4), ids(3, below=4), axis=0),
        Sample(normal(4), ids(below=4), axis=0),
        Sample(normal(4, 3), ids(9, below=4), axis=0),
        Sample(normal(2, 3), ids(2, 4, below=3), axis=1),
        Sample(normal(2, 3, 2), ids(0, below=3), axis=1),
        Sample(normal(2, 3, 2), ids(5, below=2), axis=2),
        Sample(normal(0, 3), ids(2, below=3), axis=1),
    ],
)
op(
    "scatter_add",
    numpy_scatter_add,
    torch_scatter_add,
    [
        Sample(normal(4), ids(9, below=4), normal(9), axis=0),
        Sample(normal(4), ids(below=4), normal(), axis=0),
        Sample(normal(4, 3), ids(5, below=4), normal(5, 3), axis=0),
        Sample(normal(2, 3), ids(2, 4, below=3), normal(2, 2, 4), axis=1),
        Sample(normal(2, 3, 2), ids(0, below=3), normal(2, 0, 2), axis=1),
        Sample(normal(2, 3, 2), ids(5, below=2), normal(2, 3, 5), axis=2),
    ],
    dtypes=NUMBERS,
)
moves(
    "write",
    numpy_write,
    torch_write,
    [
        Sample(normal(5), normal(2), 3, axis=0),
        Sample(normal(5), normal(2), ids(below=4), axis=0),
        Sample(normal(3, 4, 2), normal(3, 1, 2), ids(below=4), axis=1),
        Sample(normal(2, 3), normal(2, 3), 0, axis=1),
        Sample(normal(2, 3), normal(2, 0), 3, axis=1),
    ],
    tfx=Tensor.write,
)
