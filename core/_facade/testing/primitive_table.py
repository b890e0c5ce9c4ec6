"""Every primitive that maps arrays to arrays: what NumPy makes of it, and what to try it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf, nan
from typing import Any

import numpy as np

from tfx.core.dtypes import HALVES, INTEGERS, DType
from tfx.core.tensor import Tensor, apply
from tfx.core.vjps import DIFFERENTIABLE
from tfx.testing.records import LONG, Arg, Op, Sample, given, ids, mask, normal, positive

NUMBERS = HALVES | INTEGERS
ANYTHING = NUMBERS | {DType.bool}

UNARY = [(2, 3), (), (3,), (2, 1, 3, 2), (0,), (2, 0, 3), (LONG,)]
PAIRS = [
    ((2, 3), (3,)),
    ((), ()),
    ((3,), (3,)),
    ((2, 1, 3), (4, 1)),
    ((), (2, 3)),
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
    reference: Callable[..., Any],
    samples: Sequence[Sample],
    specials: Sequence[Sample] = (),
    dtypes: Iterable[DType] = (),
    refused: Sequence[Sample] = (),
    call: Callable[..., Tensor] | None = None,
) -> None:
    PRIMITIVE_OPS[name] = Op(
        name,
        call or partial(apply, name),
        reference,
        samples,
        specials,
        refused,
        dtypes,
        differentiable=name in DIFFERENTIABLE - {"cast"},  # has dtypes of its own: a check apart
    )


# ---- elementwise -------------------------------------------------------------------------


def binary() -> list[Sample]:
    """Pairs of shapes, and a number on either side."""
    pairs = [Sample(normal(*a), positive(*b)) for a, b in PAIRS]
    return [
        *pairs,
        Sample(positive(2, 3), 0.1),  # no float32 is that
        Sample(3, positive(2, 3)),
        Sample(positive(), 2),
    ]


def apart(*before: Arg) -> list[Sample]:
    """Shapes that do not broadcast."""
    shapes = [((2,), (3,)), ((2, 3), (2,)), ((0,), (2,))]
    return [Sample(*before, normal(*a), normal(*b)) for a, b in shapes]


normals, positives = [[Sample(draw(*shape)) for shape in UNARY] for draw in (normal, positive)]
odd = [Sample(ODD)]
far = [Sample(given(-800.0, 800.0))]
small = [Sample(given(1e-30, 1e-9, 3.0, 1e30))]
odds = [Sample(ODD, EVEN), Sample(ODD, ODD), Sample(EVEN, 0.0), Sample(inf, ODD)]
near = [Sample(given(1.0, 1.0, 3.0), given(1 + 2**-23, 1 - 2**-24, 3.0))]
extremes = [*odds, Sample(given(1e30, 1e-30, 1e-9, -1e30), given(1e30, 1e-30, 1e9, 2.0))]

op("neg", np.negative, normals, odd, NUMBERS)
op("exp", np.exp, normals, [*odd, *far], HALVES)
op("log", np.log, positives, [*odd, *small], HALVES)
op("tanh", np.tanh, normals, [*odd, *far], HALVES)
op("sqrt", np.sqrt, positives, [*odd, *small], HALVES)
op("add", np.add, binary(), extremes, NUMBERS, apart())
op("sub", np.subtract, binary(), extremes, NUMBERS, apart())
op("mul", np.multiply, binary(), extremes, NUMBERS, apart())
op("div", np.true_divide, binary(), extremes, HALVES, apart())
op("maximum", np.maximum, binary(), extremes, NUMBERS, apart())
op("less", np.less, binary(), [*extremes, *near], NUMBERS, apart())
op(
    "equal",
    np.equal,
    [*binary(), Sample(mask(2, 3), False)],
    [*extremes, *near],
    ANYTHING,
    apart(),
)
op(
    "pow",
    lambda x, *, exponent: np.power(x, np.float64(exponent)),
    [
        *(Sample(positive(2, 3), exponent=e) for e in (0, 1, 2, 3, -1, -0.5, 0.5, 0.1)),
        *(Sample(normal(3, 2), exponent=e) for e in (0, 1.0, 2, 3, -2)),
        Sample(positive(), exponent=-0.5),
        Sample(positive(0, 2), exponent=2),
    ],
    [
        *(Sample(ODD, exponent=e) for e in (0, 1, 2, 3, -1)),
        *(Sample(given(nan, inf, 0.0, -1.0), exponent=e) for e in (0.5, -0.5)),
    ],
    HALVES,
)
op(
    "where",
    np.where,
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
    apart(mask()),
)
op(
    "cast",
    lambda x, *, dtype: x.astype(str(dtype)),
    [Sample(normal(*shape), dtype=DType.float32) for shape in UNARY],
)


# ---- reductions and products -------------------------------------------------------------

reductions = [
    Sample(normal(*shape), axis=axis, keepdims=keepdims)
    for shape, axis, keepdims in [
        ((2, 3), (1,), True),
        ((), (), False),
        ((3,), (0,), False),
        ((2, 3), (0,), False),
        ((2, 3), (), False),
        ((2, 3), (0, 1), False),
        ((2, 3), (1, 0), True),
        ((2, 3, 4), (0, 2), False),
        ((0, 3), (1,), True),
        ((2, 1, 3, 1), (1, 3), False),
        ((2, LONG), (1,), False),
    ]
]
nothing = [Sample(normal(0, 3), axis=a, keepdims=k) for a in [(0,), (0, 1)] for k in (True, False)]
ties = [Sample(given(1, 3, 3, -2, 3), axis=(0,), keepdims=False)]
odd_sum = [
    Sample(ODD, axis=(0,), keepdims=True),
    Sample(given(1, inf, 2), axis=(0,), keepdims=False),
    Sample(given(-inf, -inf), axis=(0,), keepdims=False),
]

op("sum", np.sum, [*reductions, *nothing], [*ties, *odd_sum], NUMBERS)
op("max", np.max, reductions, [*ties, *odd_sum], NUMBERS)
op(
    "argmax",
    np.argmax,
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
    [
        Sample(normal(2, 3), normal(3, 4)),
        Sample(normal(3, 3), normal(3, 3)),
        Sample(normal(5, 2, 3), normal(3, 4)),
        Sample(normal(2, 3), normal(5, 3, 1)),
        Sample(normal(5, 2, 3), normal(5, 3, 4)),
        Sample(normal(2, 3, 3), normal(2, 3, 3)),
        Sample(normal(3, 3), normal(3, 3, 3)),
        Sample(normal(3, 3, 3), normal(3, 3)),
        Sample(normal(2, 1, 2, 3), normal(3, 3, 2)),
        Sample(normal(1, 1), normal(1, 1)),
        Sample(normal(2, 0), normal(0, 3)),
        Sample(normal(0, 3), normal(3, 2)),
        Sample(normal(4, 2, 3), normal(1, 3, 0)),
        Sample(normal(1, 40), normal(40, 33)),
        Sample(normal(17, 40), normal(40, 33)),
        Sample(normal(5, LONG), normal(LONG, 67)),
    ],
    dtypes=HALVES,
    refused=[
        Sample(normal(2, 3), normal(2, 3)),
        Sample(normal(2, 2, 3), normal(3, 3, 2)),
        Sample(normal(2, 1), normal(3, 2)),
    ],
)


# ---- shape -------------------------------------------------------------------------------


def moves(name: str, reference: Any, samples: Sequence[Sample], **more: Any) -> None:
    """An operation that moves elements of any dtype."""
    op(name, reference, samples, dtypes=ANYTHING, **more)


def cut(x: Any, *, starts: Any, stops: Any, steps: Any) -> Any:
    return x[(*map(slice, starts, stops, steps), ...)]


moves(
    "reshape",
    lambda x, *, shape: np.reshape(x, shape),
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


def scattered(x: Any, indices: Any, updates: Any, *, axis: int) -> Any:
    """One update after the other, over the axis moved to the front."""
    out = np.moveaxis(x.copy(), axis, 0)
    last = axis + indices.ndim
    rows = np.moveaxis(updates, range(axis, last), range(indices.ndim))
    rows = rows.reshape(indices.size, *out.shape[1:])
    for i, row in zip(indices.reshape(-1), rows, strict=True):
        out[i] += row
    return np.moveaxis(out, 0, axis)


def written(buffer: Any, slab: Any, start: Any, *, axis: int) -> Any:
    """What stands before the slab, the slab, and what stands after it."""
    before, after = np.split(buffer, [int(start)], axis)
    behind = after[(slice(None),) * axis + (slice(slab.shape[axis], None),)]
    return np.concatenate([before, slab, behind], axis)


moves(
    "take",
    lambda x, indices, *, axis: np.take(x, indices, axis),
    [
        Sample(normal(4), ids(3, below=4), axis=0),
        Sample(normal(4), ids(below=4), axis=0),
        Sample(normal(4, 3), ids(9, below=4), axis=0),
        Sample(normal(2, 3), ids(2, 4, below=3), axis=1),
        Sample(normal(2, 3, 2), ids(0, below=3), axis=1),
        Sample(normal(2, 3, 2), ids(5, below=2), axis=2),
        Sample(normal(0, 3), ids(2, below=3), axis=1),
        Sample(normal(LONG, 2), ids(99, below=LONG), axis=0),
    ],
)
op(
    "scatter_add",
    scattered,
    [
        Sample(normal(4), ids(9, below=4), normal(9), axis=0),
        Sample(normal(4), ids(below=4), normal(), axis=0),
        Sample(normal(4, 3), ids(5, below=4), normal(5, 3), axis=0),
        Sample(normal(2, 3), ids(2, 4, below=3), normal(2, 2, 4), axis=1),
        Sample(normal(0, 3), ids(2, below=3), normal(0, 2), axis=1),
        Sample(normal(2, 3, 2), ids(0, below=3), normal(2, 0, 2), axis=1),
        Sample(normal(2, 3, 2), ids(5, below=2), normal(2, 3, 5), axis=2),
        Sample(normal(LONG, 2), ids(99, below=LONG), normal(99, 2), axis=0),
    ],
    dtypes=NUMBERS,
)
moves(
    "write",
    written,
    [
        Sample(normal(5), normal(2), 3, axis=0),
        Sample(normal(5), normal(2), ids(below=4), axis=0),
        Sample(normal(3, 4, 2), normal(3, 1, 2), ids(below=4), axis=1),
        Sample(normal(2, 3), normal(2, 3), 0, axis=1),
        Sample(normal(2, 3), normal(2, 0), 3, axis=1),
        Sample(normal(LONG, 2), normal(3, 2), 250, axis=0),
        Sample(normal(LONG, 2), normal(1, 2), ids(below=LONG), axis=0),
    ],
    call=Tensor.write,
)
