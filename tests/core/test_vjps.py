"""The derivative of every primitive, on the tape of every backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from checks import check_second_derivatives

from tfx.core import ops
from tfx.core.autograd import grad
from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import FLOATS
from tfx.core.tensor import Tensor
from tfx.testing.primitive_table import PRIMITIVE_OPS
from tfx.testing.records import Op

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DIFFERENTIABLE = [op for op in PRIMITIVE_OPS.values() if op.differentiable]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=str)
def test_second_derivatives(op: Op, backend: Backend) -> None:
    check_second_derivatives(op, backend)


# ---- what finite differences cannot tell -------------------------------------------------


def slope(f: Callable[..., Tensor], backend: Backend, *args: object) -> list[Any]:
    """The gradient of sum(f(*args)) by each argument, in float64."""
    params = [tensor(np.array(x, np.float64), backend) for x in args]
    return [g.tolist() for g in grad(lambda p: f(*p).sum(), autograd="core")(params)]


def test_equals_share_the_gradient_of_max(backend: Backend) -> None:
    assert slope(lambda x: x.max(), backend, [3, 1, 3, 3, 2]) == [[1 / 3, 0, 1 / 3, 1 / 3, 0]]
    assert slope(lambda x: x.max(1), backend, [[1, 1], [2, 3]]) == [[[0.5, 0.5], [0, 1]]]
    assert slope(lambda x: x.max((0, 1)), backend, [[1, 1], [1, 1]]) == [
        [[0.25, 0.25], [0.25, 0.25]]
    ]
    assert slope(lambda x: x.min(), backend, [1, 1]) == [[0.5, 0.5]]


def test_equals_share_the_gradient_of_maximum(backend: Backend) -> None:
    assert slope(Tensor.maximum, backend, [1, 2, 3], [1, 3, 2]) == [[0.5, 0, 1], [0.5, 1, 0]]
    assert slope(Tensor.maximum, backend, [[1, 2], [2, 2]], [2]) == [[[0, 0.5], [0.5, 0.5]], [2.5]]
    assert slope(lambda x: x.maximum(0), backend, [-1, 0, 1]) == [[0, 0.5, 1]]
    assert slope(lambda x: ops.maximum(x, x), backend, [1, 2]) == [[1, 1]]


def test_what_is_not_selected_does_not_matter(backend: Backend) -> None:
    select = partial(ops.where, tensor([True, False], backend))
    for odd in (math.nan, math.inf, -math.inf):
        found = slope(lambda x, y: select(x, y) * 2, backend, [1, odd], [odd, 3])
        assert found == [[2, 0], [0, 2]]


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [
        (0, [0, 0, 0, 0]),
        (1, [1, 1, 1, 1]),
        (2, [0, -4, math.inf, 6]),
        (3, [0, 12, math.inf, 27]),
    ],
)
def test_powers_at_zero_infinity_and_below_zero(
    backend: Backend, exponent: int, expected: list[float]
) -> None:
    assert slope(lambda x: x**exponent, backend, [0, -2, math.inf, 3]) == [expected]


def test_what_was_overwritten_has_no_gradient_whatever_replaced_it(backend: Backend) -> None:
    slab = tensor(np.array([math.inf, math.nan]), backend)
    assert slope(lambda x: x.write(slab, 1)[:1] * 5, backend, [1, 2, 3, 4]) == [[5, 0, 0, 0]]
    (kept,) = slope(lambda x: x.write(slab, 1), backend, [1, 2, 3, 4])
    assert kept == [1, 0, 0, 1]


def test_write_leaves_a_recorded_buffer_as_it_was(backend: Backend) -> None:
    x, y = (tensor(np.array(v), backend, requires_grad=True) for v in ([1.0, 2, 3], [5.0]))
    for buffer in (x, x * 1.0, tensor(np.array([1.0, 2, 3]), backend)):
        before = buffer.tolist()
        squares = buffer * buffer
        written = buffer.write(y, 1)
        assert written.tolist() == [1, 5, 3] and buffer.tolist() == before
        (squares.sum() + written.sum()).backward()
    assert y.grad is not None and y.grad.tolist() == [3]


def test_a_buffer_the_tape_still_needs_is_not_overwritten(backend: Backend) -> None:
    """Neither the buffer nor the slab is recorded, but a product that used the buffer was."""

    def f(w: Tensor) -> Tensor:
        buffer = tensor(np.array([1.0, 2.0]), backend)
        product = w * buffer
        buffer.write(tensor(np.array([9.0, 9.0]), backend), 0)
        return product.sum()

    assert grad(f, autograd="core")(tensor(np.array([1.0, 1.0]), backend)).tolist() == [1, 2]


def test_narrow_floats_have_gradients_of_their_dtype(backend: Backend) -> None:
    for dtype in sorted(FLOATS & backend.dtypes):
        x = tensor([1.0, 2.0], backend, dtype)
        first = grad(lambda x: (x * x).sum(), autograd="core")(x)
        through = grad(lambda x: (x.cast("float64") * 3.0).sum(), autograd="core")(x)
        assert first.dtype is through.dtype is dtype
        assert first.tolist() == [2, 4] and through.tolist() == [3, 3]
