"""`Tensor`: what a NumPy or torch user expects of it, against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfx.core.backend import Backend
from tfx.core.creation import arange, full, tensor
from tfx.core.dtypes import FLOATS, INTEGERS, DType
from tfx.core.errors import (
    BackendError,
    BackendMismatch,
    DTypeError,
    GradientError,
    MissingPrimitive,
    ShapeError,
    TfxError,
)
from tfx.core.ops import absolute, concat, minimum, split, stack, where
from tfx.core.tensor import Tensor
from tfx.testing import StrictBackend
from tfx.testing.calling import told
from tfx.testing.nearness import assert_close

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

some = settings(max_examples=60, deadline=None, derandomize=True)

X = np.array([[1.5, -2.0, 3.25], [0.5, 4.0, -1.0]])
Y = np.array([[2.0, 0.25, -3.0], [0.5, 1.0, 2.0]])
I = np.array([[1, -2, 3], [0, 4, -1]])
J = np.array([[2, -2, 5], [0, 3, 1]])


# ---- operators ---------------------------------------------------------------------------

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "x + y": lambda x, y: x + y,
    "x - y": lambda x, y: x - y,
    "x * y": lambda x, y: x * y,
    "-x": lambda x, y: -x,
    "x + 2": lambda x, y: x + 2,
    "2 + x": lambda x, y: 2 + x,
    "x - 2": lambda x, y: x - 2,
    "2 - x": lambda x, y: 2 - x,
    "x * 3": lambda x, y: x * 3,
    "3 * x": lambda x, y: 3 * x,
    "x + True": lambda x, y: x + True,
    "x + row": lambda x, y: x + y[0],
    "column * row": lambda x, y: x[:, :1] * y[0],
    "sum([x, y])": lambda x, y: sum([x, y]),
    "x < y": lambda x, y: x < y,
    "x <= y": lambda x, y: x <= y,
    "x > y": lambda x, y: x > y,
    "x >= y": lambda x, y: x >= y,
    "x == y": lambda x, y: x == y,
    "x != y": lambda x, y: x != y,
    "x < 1": lambda x, y: x < 1,
    "1 < x": lambda x, y: 1 < x,
    "x >= 1": lambda x, y: x >= 1,
    "1 >= x": lambda x, y: 1 >= x,
    "x == 4": lambda x, y: x == 4,
    "4 != x": lambda x, y: 4 != x,
    "(x < y) & (y < 2)": lambda x, y: (x < y) & (y < 2),
    "(x < y) | (y < 2)": lambda x, y: (x < y) | (y < 2),
    "~(x < y)": lambda x, y: ~(x < y),
    "(x < y) == (y < 2)": lambda x, y: (x < y) == (y < 2),
}
FLOATING: dict[str, Callable[..., Any]] = {
    "x / y": lambda x, y: x / y,
    "x / 3": lambda x, y: x / 3,
    "3 / x": lambda x, y: 3 / x,
    "x + 0.1": lambda x, y: x + 0.1,
    "0.1 - x": lambda x, y: 0.1 - x,
    "x ** 2": lambda x, y: x**2,
    "x ** 3": lambda x, y: x**3,
    "x ** -1": lambda x, y: x**-1,
    "x ** 0": lambda x, y: x**0,
    "(x * x) ** -0.5": lambda x, y: (x * x) ** -0.5,
    "x @ y.T": lambda x, y: x @ y.T,
    "x < 0.7": lambda x, y: x < 0.7,
}


@pytest.mark.parametrize("name", [*ARITHMETIC, *FLOATING])
def test_operators(name: str, backend: Backend) -> None:
    expression = (ARITHMETIC | FLOATING)[name]
    for dtype in (DType.float32, DType.float64):
        x, y = X.astype(str(dtype)), Y.astype(str(dtype))
        found, expected = expression(tensor(x, backend), tensor(y, backend)), expression(x, y)
        assert str(found.dtype) == expected.dtype.name
        assert_close(
            found.numpy(), expected.astype(float if found.dtype.is_float else bool), found.dtype
        )


@pytest.mark.parametrize("name", ARITHMETIC)
def test_operators_on_integers(name: str, backend: Backend) -> None:
    for dtype in sorted(INTEGERS & backend.dtypes - {DType.uint8}):
        x, y = I.astype(str(dtype)), J.astype(str(dtype))
        found, expected = (
            ARITHMETIC[name](tensor(x, backend), tensor(y, backend)),
            ARITHMETIC[name](x, y),
        )
        assert str(found.dtype) == expected.dtype.name
        np.testing.assert_array_equal(found.numpy(), expected)


def test_nothing_compares_to_nan(backend: Backend) -> None:
    x = tensor([math.nan, 1.0], backend)
    for compare in ("x < y", "x <= y", "x > y", "x >= y", "x == y"):
        assert not ARITHMETIC[compare](x, x[0]).numpy().any()
    assert (x != x).tolist() == [True, False]


# ---- methods -----------------------------------------------------------------------------

METHODS: dict[str, Callable[[Any], Any]] = {
    "sum()": lambda x: x.sum(),
    "sum(0)": lambda x: x.sum(0),
    "sum(-1, keepdims=True)": lambda x: x.sum(-1, keepdims=True),
    "sum((0, -1))": lambda x: x.sum((0, -1)),
    "sum(axis=())": lambda x: x.sum(axis=()),
    "mean()": lambda x: x.mean(),
    "mean(1)": lambda x: x.mean(1),
    "mean((-1, 0), keepdims=True)": lambda x: x.mean((-1, 0), keepdims=True),
    "max()": lambda x: x.max(),
    "max(-2)": lambda x: x.max(-2),
    "max((0, 1), keepdims=True)": lambda x: x.max((0, 1), keepdims=True),
    "min()": lambda x: x.min(),
    "min(1, keepdims=True)": lambda x: x.min(1, keepdims=True),
    "argmax()": lambda x: x.argmax(),
    "argmax(0)": lambda x: x.argmax(0),
    "argmax(-1)": lambda x: x.argmax(-1),
    "reshape(3, 2)": lambda x: x.reshape(3, 2),
    "reshape((6,))": lambda x: x.reshape((6,)),
    "reshape([3, -1])": lambda x: x.reshape([3, -1]),
    "reshape(-1)": lambda x: x.reshape(-1),
    "reshape(1, 2, -1, 1)": lambda x: x.reshape(1, 2, -1, 1),
    "T": lambda x: x.T,
    "transpose()": lambda x: x.transpose(),
    "transpose(1, 0)": lambda x: x.transpose(1, 0),
    "transpose((-1, 0))": lambda x: x.transpose((-1, 0)),
    "swapaxes(0, -1)": lambda x: x.swapaxes(0, -1),
    "astype": lambda x: x.astype("float32"),
    "first of iter": lambda x: next(iter(x)),
    "sum of iter": lambda x: sum(x),
    "unpacked": lambda x: (lambda first, second: first - second)(*x),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_methods(method: Callable[[Any], Any], backend: Backend) -> None:
    found, expected = method(tensor(X, backend)), np.asarray(method(X))
    assert found.dtype is (
        backend.index_dtype if expected.dtype.kind == "i" else DType(expected.dtype.name)
    )
    assert_close(found.numpy(), expected, found.dtype)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((3,), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (3,)),
        ((5, 2, 3), (3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((2, 3), (5, 3, 4)),
        ((2, 1, 2, 3), (6, 3, 1)),
        ((0, 3), (3, 2)),
        ((5, 0, 3), (3, 2)),
        ((2, 0), (0, 2)),
        ((0,), (0,)),
        ((4, 2, 0), (0, 3)),
    ],
)
def test_matmul_has_numpys_shapes(x: tuple[int, ...], y: tuple[int, ...], backend: Backend) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(x), rng.standard_normal(y)
    found = tensor(a, backend) @ tensor(b, backend)
    assert_close(found.numpy(), np.asarray(a @ b), DType.float64)


def test_the_smallest_of_integers(backend: Backend) -> None:
    for dtype in sorted(INTEGERS & backend.dtypes):
        info = np.iinfo(str(dtype))
        values = np.array([[0, 3, 1], [info.min, 5, info.max]], str(dtype))
        x = tensor(values, backend)
        np.testing.assert_array_equal(x.min().numpy(), values.min())
        np.testing.assert_array_equal(x.min(1).numpy(), values.min(1))
        np.testing.assert_array_equal(
            minimum(x, x[:, ::2][:, :1]).numpy(), np.minimum(values, values[:, :1])
        )
        np.testing.assert_array_equal(
            minimum(x, 1).numpy(), np.minimum(values, np.array(1, values.dtype))
        )
        np.testing.assert_array_equal(absolute(x)[0].numpy(), values[0])


def test_mean_of_nothing_is_nan_and_max_of_nothing_an_error(backend: Backend) -> None:
    nothing = full((2, 0), 0.0, backend)
    assert np.isnan(nothing.mean().item()) and np.isnan(nothing.mean(1).numpy()).all()
    assert nothing.max(0).shape == nothing.min(0).shape == nothing.argmax(0).shape == (0,)
    for method in (Tensor.max, Tensor.min, Tensor.argmax):
        for axis in (None, 1):
            with pytest.raises(ShapeError, match="empty axis"):
                method(nothing, axis)


# ---- indexing ----------------------------------------------------------------------------


@st.composite
def arrays_and_keys(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], Any]:
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    key = draw(hnp.basic_indices(shape, allow_newaxis=True, max_dims=7))
    return np.arange(math.prod(shape), dtype=np.float64).reshape(shape), key


@some
@given(arrays_and_keys())
def test_getitem_is_numpys(backend: Backend, given: tuple[np.ndarray[Any, Any], Any]) -> None:
    values, key = given
    parts = key if isinstance(key, tuple) else (key,)
    x = tensor(values, backend)
    if any(isinstance(part, slice) and (part.step or 1) < 0 for part in parts):
        with pytest.raises(ShapeError, match="step"):
            x[key]
    else:
        np.testing.assert_array_equal(x[key].numpy(), values[key])


PICKS: dict[str, Callable[[Any, Any], Any]] = {
    "x[i]": lambda x, i: x[i],
    "x[:, i]": lambda x, i: x[:, i],
    "x[..., i]": lambda x, i: x[..., i],
    "x[1, i]": lambda x, i: x[1, i],
    "x[i, 1]": lambda x, i: x[i, 1],
    "x[1, 1, i]": lambda x, i: x[1, 1, i],
    "x[None, i]": lambda x, i: x[None, i],
    "x[i, None]": lambda x, i: x[i, None],
    "x[1:, None, i, ::2]": lambda x, i: x[1:, None, i, ::2],
    "x[..., i, :]": lambda x, i: x[..., i, :],
}


@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS.keys())
@pytest.mark.parametrize("indices", [[1, 0, 1], 1, [[0, 1], [1, 1]], []], ids=str)
def test_getitem_by_a_tensor(
    pick: Callable[[Any, Any], Any], indices: Any, backend: Backend
) -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    i = np.array(indices, np.int64)
    found = pick(tensor(values, backend), tensor(i, backend))
    np.testing.assert_array_equal(found.numpy(), pick(values, i))


@pytest.mark.parametrize(
    "pick",
    [
        lambda x, i: x[0, :, i],
        lambda x, i: x[i, :, 0],
        lambda x, i: x[0, None, i],
        lambda x, i: x[0, ..., i],
    ],
)
def test_an_integer_apart_from_a_tensor_is_refused(
    pick: Callable[[Any, Any], Any], backend: Backend
) -> None:
    """NumPy then moves the picked axes to the front; silently doing otherwise would be worse."""
    with pytest.raises(ShapeError, match="chain two indexings"):
        pick(tensor(np.zeros((2, 3, 4)), backend), tensor([0, 1], backend))


# ---- to Python ---------------------------------------------------------------------------


def test_item_and_its_kin(backend: Backend) -> None:
    x = tensor([[2.5]], backend)
    assert (x.item(), float(x), int(x), bool(x), bool(x - 2.5)) == (2.5, 2.5, 2, True, False)
    assert type(x.item()) is float and type(tensor(3, backend).item()) is int
    assert tensor(True, backend).item() is True
    assert tensor([[1, 2], [3, 4]], backend).tolist() == [[1, 2], [3, 4]]
    assert tensor(1.5, backend).tolist() == 1.5
    assert len(tensor([[1], [2]], backend)) == 2
    assert [row.tolist() for row in tensor([[1, 2], [3, 4]], backend)] == [[1, 2], [3, 4]]


def test_what_it_is(backend: Backend) -> None:
    x = tensor(np.zeros((2, 0, 3)), backend)
    assert (x.shape, x.ndim, x.size, x.dtype, x.backend) == (
        (2, 0, 3),
        3,
        0,
        DType.float64,
        backend,
    )
    assert x.dtype == "float64" and not x.requires_grad and x.grad is None


def test_repr_shows_values_dtype_backend_and_whether_it_is_recorded(backend: Backend) -> None:
    x = tensor([[1.0, 2.0], [3.0, 4.0]], backend)
    assert repr(x) == f"Tensor([[1., 2.],\n        [3., 4.]], float32, {backend})"
    assert repr(x.requires_grad_()).endswith(f"float32, {backend}, recorded)")
    assert repr(tensor(True, backend)) == f"Tensor(True, bool, {backend})"
    assert len(repr(full((1000, 1000), 0.0, backend))) < 1000


def test_numpy_gives_a_copy(backend: Backend) -> None:
    x = tensor([1.0, 2.0], backend)
    x.numpy()[0] = 9
    assert x.tolist() == [1, 2]
    given = np.array([1.0, 2.0])
    x = tensor(given, backend)
    given[0] = 9
    assert x.tolist() == [1, 2]


def test_tensors_are_keys_by_identity(backend: Backend) -> None:
    x, y = tensor([1.0], backend), tensor([1.0], backend)
    assert {x: "x", y: "y"}[x] == "x"


# ---- making and moving -------------------------------------------------------------------


def test_a_tensor_of_zeros_has_their_sign(backend: Backend) -> None:
    for zero in (0.0, -0.0):
        assert (np.signbit(full((2,), zero, backend).numpy()) == np.signbit(zero)).all()


def test_dtypes_of_new_tensors(backend: Backend) -> None:
    assert tensor(1.5, backend).dtype is DType.float32
    assert tensor([], backend).dtype is DType.float32
    assert tensor([1, 2], backend).dtype is arange(3, backend).dtype is backend.index_dtype
    assert tensor([True], backend).dtype is DType.bool
    assert tensor(np.float64(1), backend).dtype is DType.float64
    assert full((2,), 1, backend).dtype is DType.float32
    for dtype in sorted(backend.dtypes - {DType.bfloat16}):
        assert tensor(np.zeros(2, str(dtype)), backend).dtype is dtype
        one = True if dtype is DType.bool else 1
        assert (
            tensor([1, 0], backend, dtype).dtype
            is full((2,), one, backend, str(dtype)).dtype
            is dtype
        )


def test_to_another_backend_and_back(backend: Backend) -> None:
    other = StrictBackend()
    assert tensor(1.0, backend).to(backend).backend is backend
    for dtype in sorted(
        (backend.dtypes | backend.storage_dtypes) & (other.dtypes | other.storage_dtypes)
    ):
        x = tensor([[0.0, 1.0, 2.0]], backend).cast(dtype)
        there = x.to(other)
        assert (there.backend, there.dtype, there.tolist()) == (other, dtype, x.tolist())
        assert there.to(backend).tolist() == x.tolist()
    assert other.transfers["asarray"] == other.transfers["to_numpy"] / 2


def test_bfloat16_shows_its_numbers(backend: Backend) -> None:
    if DType.bfloat16 not in backend.dtypes | backend.storage_dtypes:
        pytest.skip(f"{backend} has no bfloat16")
    x = tensor([1.0, 2.5], backend, "bfloat16")
    assert x.tolist() == [1, 2.5] and "2.5" in repr(x) and x[1].item() == 2.5
    assert full((2,), 1.5, backend, "bfloat16").tolist() == [1.5, 1.5]
    words = tensor(np.array([0x3F80], np.uint16), backend, "bfloat16")
    assert words.tolist() == [1]


def test_numbers_of_numpy_that_are_python_floats_stay_weak(backend: Backend) -> None:
    x = tensor([1.0, 2.0], backend)
    two = np.float64(2)
    condition = x < 1.5
    for out in (
        x * two,
        two * x,
        x.maximum(two),
        x**two,
        where(condition, x, two),
        x.pad([(0, 1)], two),
    ):
        assert out.dtype is DType.float32
        assert backend.dtype(out.data) is DType.float32


# ---- errors: one line that says what was given -------------------------------------------

ERRORS: dict[str, tuple[Callable[[Backend], Any], type[Exception], str]] = {
    "add of shapes": (lambda B: f(B, 2) + f(B, 3), ShapeError, r"add\(\(2,\), \(3,\)\)"),
    "matmul of shapes": (lambda B: f(B, 2, 3) @ f(B, 2, 3), ShapeError, "matmul"),
    "matmul of a scalar": (lambda B: f(B) @ f(B, 3), ShapeError, "at least one axis"),
    "vector times shapes": (lambda B: f(B, 3) @ f(B, 2, 3), ShapeError, "matmul"),
    "dtypes": (lambda B: f(B, 2) + i(B, 2), DTypeError, "add of float32 and int"),
    "dtypes of floats": (lambda B: f(B, 2) * f(B, 2).cast("float64"), DTypeError, "never mixed"),
    "dtypes of matmul": (lambda B: f(B, 2, 2) @ f(B, 2, 2).cast("float64"), DTypeError, "matmul"),
    "dtypes of write": (lambda B: f(B, 2).write(i(B, 1), 0), DTypeError, "write"),
    "dtypes of scatter_add": (
        lambda B: f(B, 2).scatter_add(i(B, 1), i(B, 1)), DTypeError, "scatter_add"
    ),
    "dtypes of concat": (lambda B: concat([f(B), i(B)]), DTypeError, "concat of float32, int"),
    "dtypes of where": (lambda B: where(b(B), f(B), i(B)), DTypeError, "where of float32 and int"),
    "integers and a float": (lambda B: i(B, 2) * 0.5, DTypeError, "Python float"),
    "integers where a float": (lambda B: where(b(B), i(B), 0.5), DTypeError, "Python float"),
    "bool where a number": (lambda B: where(b(B), b(B), 2), DTypeError, "bool"),
    "where by numbers": (
        lambda B: where(f(B), f(B), 0), DTypeError, "bool tensor as condition, not float32"
    ),
    "where of two numbers": (lambda B: where(b(B), 1, 0), DTypeError, "two numbers"),
    "sum of bool": (lambda B: b(B, 2).sum(), DTypeError, "sum of bool"),
    "bool + bool": (lambda B: b(B) + b(B), DTypeError, "add of bool"),
    "bool < bool": (lambda B: b(B) < b(B), DTypeError, "less of bool"),
    "bool and numbers": (lambda B: b(B) & i(B), DTypeError, "for bool tensors"),
    "not of numbers": (lambda B: ~i(B), DTypeError, "for bool tensors"),
    "scatter_add into bool": (lambda B: b(B, 2).scatter_add(i(B, 1), b(B, 1)), DTypeError, "bool"),
    "integers / integers": (lambda B: i(B) / i(B), DTypeError, "div is for floats"),
    "integers / number": (lambda B: i(B) / 2, DTypeError, "div is for floats"),
    "exp of integers": (lambda B: i(B).exp(), DTypeError, "exp is for floats"),
    "mean of integers": (lambda B: i(B, 2).mean(), DTypeError, "float"),
    "a number too large": (lambda B: i8(B) + 300, TfxError, "300"),
    "pad integers by a float": (lambda B: i(B, 2).pad([(0, 1)], 0.5), DTypeError, "pad"),
    "full of integers": (lambda B: full((2,), 0.5, B, "int32"), DTypeError, "full of int32"),
    "full of bytes": (lambda B: full((2,), 256, B, "uint8"), DTypeError, "no uint8 is 256"),
    "full of bool": (lambda B: full((2,), 2, B, "bool"), DTypeError, "full of bool and 2"),
    "no such dtype": (lambda B: f(B).cast("float8"), DTypeError, "no dtype named 'float8'"),
    "axis": (lambda B: f(B, 2).sum(1), ShapeError, "axis 1 does not fit"),
    "axis twice": (lambda B: f(B, 2, 2).sum((0, -2)), ShapeError, "does not fit"),
    "reshape": (lambda B: f(B, 2, 3).reshape(4), ShapeError, r"cannot reshape \(2, 3\) to \(4,\)"),
    "reshape -1": (lambda B: f(B, 2, 3).reshape(4, -1), ShapeError, r"to \(4, -1\)"),
    "reshape -1 -1": (lambda B: f(B, 6).reshape(-1, -1), ShapeError, "cannot reshape"),
    "reshape -2": (lambda B: f(B, 6).reshape(-2, -3), ShapeError, "cannot reshape"),
    "reshape of nothing": (lambda B: f(B, 0).reshape(0, -1), ShapeError, "cannot reshape"),
    "transpose": (lambda B: f(B, 2, 3).transpose(0), ShapeError, "transpose of 2 axes"),
    "broadcast_to": (lambda B: f(B, 2).broadcast_to(3), ShapeError, "broadcast_to"),
    "broadcast_to -1": (lambda B: f(B, 2, 1).broadcast_to(-1, 3), ShapeError, "broadcast_to"),
    "broadcast_to fewer": (lambda B: f(B, 2, 1).broadcast_to(2), ShapeError, "broadcast_to"),
    "pad": (lambda B: f(B, 2).pad([(1, 0), (0, 1)]), ShapeError, "pad of 1 axes"),
    "pad by less": (lambda B: f(B, 2).pad([(-1, 0)]), ShapeError, "pad"),
    "index": (lambda B: f(B, 2)[2], ShapeError, "index 2 is out of range"),
    "index -3": (lambda B: f(B, 2)[-3], ShapeError, "out of range"),
    "too many indices": (lambda B: f(B, 2)[0, 0], ShapeError, "does not fit the shape"),
    "two ellipses": (lambda B: f(B, 2)[..., ...], ShapeError, "does not fit the shape"),
    "index by a list": (lambda B: f(B, 2)[[0, 1]], ShapeError, "cannot index by list"),
    "index by a float": (lambda B: f(B, 2)[0.5], ShapeError, "cannot index by float"),
    "index by a bool": (lambda B: f(B, 2)[True], ShapeError, "cannot index by bool"),
    "index by a mask": (lambda B: f(B, 2)[b(B, 2)], DTypeError, "int32 or int64 tensors, not bool"),
    "two index tensors": (lambda B: f(B, 2, 2)[i(B), i(B)], ShapeError, "chain two"),
    "take by numbers": (lambda B: f(B, 2).take(f(B)), DTypeError, "indices are int32 or int64"),
    "scatter_add of shapes": (
        lambda B: f(B, 4, 2).scatter_add(i(B, 3), f(B, 2)), ShapeError, "scatter_add"
    ),
    "scatter_add of one": (
        lambda B: f(B, 4).scatter_add(i(B, 3), f(B, 1)), ShapeError, "scatter_add"
    ),
    "write too much": (lambda B: f(B, 2).write(f(B, 3), 0), ShapeError, "write"),
    "write too late": (lambda B: f(B, 4).write(f(B, 3), 2), ShapeError, "at 2 does not fit"),
    "write before": (lambda B: f(B, 4).write(f(B, 3), -1), ShapeError, "at -1 does not fit"),
    "write of shapes": (lambda B: f(B, 4, 2).write(f(B, 1, 3), 0), ShapeError, "write"),
    "write a scalar": (lambda B: f(B, 4).write(f(B), 0), ShapeError, "write"),
    "write at a float": (lambda B: f(B, 4).write(f(B, 1), f(B)), DTypeError, "int32 or int64"),
    "write at 0.5": (
        lambda B: f(B, 4).write(f(B, 1), 0.5),  # type: ignore[arg-type]
        DTypeError, "int32 or int64"
    ),
    "write too much at": (lambda B: f(B, 2).write(f(B, 3), i(B)), ShapeError, "write"),
    "write at two": (lambda B: f(B, 4).write(f(B, 1), i(B, 2)), ShapeError, "write"),
    "concat of shapes": (lambda B: concat([f(B, 2, 3), f(B, 2, 2)]), ShapeError, "concat"),
    "concat of ndims": (lambda B: concat([f(B, 0), f(B, 2, 2)]), ShapeError, "concat"),
    "concat of scalars": (lambda B: concat([f(B), f(B)]), ShapeError, "axis 0"),
    "concat of none": (lambda B: concat([]), ShapeError, "at least one"),
    "stack of shapes": (lambda B: stack([f(B, 2, 3), f(B, 3, 2)]), ShapeError, "stack"),
    "split in unequal parts": (lambda B: split(f(B, 2, 3), 2), ShapeError, "2 parts along axis 1"),
    "split in no parts": (lambda B: split(f(B, 0), 0), ShapeError, "into 0 parts"),
    "split along no axis": (lambda B: split(f(B, 2), 2, 1), ShapeError, "axis 1"),
    "item of two": (lambda B: f(B, 2).item(), ShapeError, r"one element; the shape is \(2,\)"),
    "bool of two": (lambda B: bool(f(B, 2)), ShapeError, "one element"),
    "len of a scalar": (lambda B: len(f(B)), ShapeError, "no length"),
    "iter of a scalar": (lambda B: iter(f(B)), ShapeError, "no length"),
    "a new tensor of text": (lambda B: tensor("a", B), DTypeError, "cannot make"),
    "a new complex tensor": (lambda B: tensor(1j, B), DTypeError, "complex"),
    "uint16": (lambda B: tensor(np.zeros(2, np.uint16), B), DTypeError, "uint16"),
    "gradient of integers": (lambda B: i(B).requires_grad_(), DTypeError, "only floats"),
    "backward of a constant": (lambda B: f(B).backward(), GradientError, "nothing was recorded"),
    "backward of two": (lambda B: (g(B, 2) * 2).backward(), GradientError, "single number"),
    "backward by shapes": (
        lambda B: (g(B, 2) * 2).backward(f(B, 3)), GradientError, r"float32\(3,\)"
    ),
    "backward from elsewhere": (
        lambda B: (g(B, 2) * 2).backward(f(StrictBackend(), 2)), BackendMismatch, "strict"
    ),
    "grad of a constant": (lambda B: setattr(f(B), "grad", None), GradientError, "requires_grad_"),
    "moving the recorded": (lambda B: g(B).to(StrictBackend()), GradientError, "detach"),
    "two backends": (lambda B: f(B) + f(StrictBackend()), BackendMismatch, "moves one"),
    "two backends in where": (
        lambda B: where(b(StrictBackend()), f(B), 0), BackendMismatch, "where"
    ),
}  # fmt: skip


def f(B: Backend, *shape: int) -> Tensor:
    return full(shape, 1.0, B)


def g(B: Backend, *shape: int) -> Tensor:
    return f(B, *shape).requires_grad_()


def i(B: Backend, *shape: int) -> Tensor:
    return full(shape, 0, B, B.index_dtype)


def i8(B: Backend, *shape: int) -> Tensor:
    return full(shape, 0, B, "int8")


def b(B: Backend, *shape: int) -> Tensor:
    return full(shape, True, B, "bool")


@pytest.mark.parametrize(("call", "kind", "words"), ERRORS.values(), ids=ERRORS.keys())
def test_errors(
    call: Callable[[Backend], Any], kind: type[Exception], words: str, backend: Backend
) -> None:
    with pytest.raises(kind, match=words) as caught:
        call(backend)
    assert "\n" not in str(caught.value)


BESIDE: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "@": lambda x, y: x @ y,
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    "==": lambda x, y: x == y,
    "**": lambda x, y: x**y,
}


@pytest.mark.parametrize("operator", BESIDE.values(), ids=BESIDE.keys())
@pytest.mark.parametrize(
    "other", [np.ones(2, np.float32), np.float32(1), [1.0, 1.0], "1", None, 1j], ids=repr
)
def test_only_tensors_and_python_numbers_mix(
    operator: Callable[[Any, Any], Any], other: Any, backend: Backend
) -> None:
    x = full((2,), 1.0, backend)
    for left, right in ((x, other), (other, x)):
        with pytest.raises(TypeError):
            operator(left, right)


def test_numpy_does_not_swallow_a_tensor_one_element_at_a_time(backend: Backend) -> None:
    with pytest.raises(TypeError, match=r"numpy\(\)"):
        np.asarray(full((2,), 1.0, backend))
    with pytest.raises(TypeError):
        tensor(full((2,), 1.0, backend), backend)


def test_what_a_backend_cannot_compute_with_is_refused(backend: Backend) -> None:
    for dtype in sorted(backend.storage_dtypes & FLOATS):
        x = full((2,), 1.0, backend, dtype)
        calls: list[Callable[[Tensor], Any]] = [
            lambda x: x + x,
            lambda x: x == x,
            lambda x: x.sum(),
            lambda x: where(x.cast("float32") < 1, x, x),
            lambda x: x.pad([(0, 1)], 1.0),
            lambda x: x.scatter_add(tensor([0], backend), x[:1]),
            lambda x: x.requires_grad_(),
            lambda x: full((2,), 1.0, backend).requires_grad_().cast(x.dtype),
        ]
        for n, call in enumerate(calls):
            with told(dtype, n), pytest.raises(TfxError, match=r"cast|detach"):
                call(x)
        np.testing.assert_array_equal(x.reshape(2, 1).T[0].take(tensor([1], backend)).numpy(), [1])


@pytest.mark.parametrize(
    ("value", "dtype", "error"),
    [
        ([1.0, None], "float32", DTypeError),
        (1 + 2j, "float32", DTypeError),
        ("text", "float32", DTypeError),
        ([300, -1], "uint8", DTypeError),
        ([1e30, float("nan")], "int32", DTypeError),
        ([1.5], "int64", DTypeError),
        (np.array([16256], np.uint16), "float32", DTypeError),
        ([[1.0], [1.0, 2.0]], "float32", ShapeError),
    ],
)
def test_host_values_are_never_bent(value: Any, dtype: str, error: type, backend: Backend) -> None:
    with pytest.raises(error):
        tensor(value, backend, dtype)


def test_host_values_that_fit(backend: Backend) -> None:
    assert tensor([3.0], backend, "int64").tolist() == [3]
    assert tensor(np.array([50256], np.uint16), backend, "int64").tolist() == [50256]


def test_lengths_are_not_negative(backend: Backend) -> None:
    with pytest.raises(ShapeError, match="must not be negative"):
        full((2, -1), 0.0, backend)
    with pytest.raises(ShapeError, match="must not be negative"):
        arange(-3, backend)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400], ids=["2**63", "-", "10**400"])
def test_integers_of_more_than_64_bits_are_refused(number: int, backend: Backend) -> None:
    x, i = tensor([1.0, 2.0], backend), tensor([1, 2], backend, "int64")
    for call in (
        lambda: x + number,
        lambda: number < x,
        lambda: x.pad([(1, 1)], number),
        lambda: where(x < 1, x, number),
        lambda: full((2,), number, backend),
    ):
        with pytest.raises(DTypeError, match="float32 and an integer of more than 64 bits: write"):
            call()
    for call in (lambda: i * number, lambda: full((2,), number, backend, "int64")):
        with pytest.raises(DTypeError, match="int64"):
            call()
    assert (x + (2**63 - 1)).tolist() == [2.0**63] * 2


@pytest.mark.parametrize("kind", [ValueError, TypeError, IndexError, RuntimeError])
def test_a_library_may_raise_what_it_likes_for_shapes(kind: type[Exception]) -> None:
    class Raises(StrictBackend):
        def add(self, x: Any, y: Any) -> Any:
            raise kind("incompatible shapes")

        matmul = add

        def where(self, condition: Any, x: Any, y: Any) -> Any:
            raise kind("incompatible shapes")

        def mul(self, x: Any, y: Any) -> Any:
            raise kind("of something else")

    backend = Raises()
    x, y = full((2, 3), 1.0, backend), full((4, 5), 1.0, backend)
    for call in (lambda: x + y, lambda: x @ y, lambda: where(x < 1, y, 0.0)):
        with pytest.raises(ShapeError, match=r"the shapes do not fit together$"):
            call()
    with pytest.raises(kind, match="of something else") as caught:
        x * y[:2, :3]
    assert not isinstance(caught.value, TfxError)


def test_what_is_no_misfit_keeps_its_name() -> None:
    """Out of memory, or a function that a library has not for a dtype, is no matter of shapes."""

    class Limited(StrictBackend):
        def add(self, x: Any, y: Any) -> Any:
            raise NotImplementedError("no addition of float32")

        def mul(self, x: Any, y: Any) -> Any:
            raise RuntimeError("out of memory")

    x = full((2,), 1.0, Limited())
    with pytest.raises(NotImplementedError, match="no addition of float32"):
        x + x
    with pytest.raises(RuntimeError, match="out of memory"):
        x * x


def test_what_a_backend_does_not_implement_yet_is_one_line() -> None:
    """Wherever it is asked for: by an operation, by a creation, by a copy to the host."""

    class Begun(Backend):
        name, dtypes = "begun", frozenset({DType.float32, DType.int64})

        def mul(self, x: Any, y: Any) -> Any:
            self._missing("mul")

        def dtype(self, x: Any) -> DType:
            return DType.float32

    begun = Begun()
    x = Tensor(np.zeros(2, np.float32), begun)
    for name, call in {
        "full": lambda: full((2,), 0.0, begun),
        "asarray": lambda: tensor([1.0], begun),
        "to_numpy": lambda: x.tolist(),
        "mul": lambda: x * x,
        "exp": lambda: x.exp(),
    }.items():
        with pytest.raises(MissingPrimitive) as caught:
            call()
        assert isinstance(caught.value, BackendError)
        assert isinstance(caught.value, NotImplementedError)
        assert str(caught.value) == (
            f"backend 'begun' does not implement {name!r} yet; "
            "`tfx conformance begun` lists what is left"
        )


# ---- what the contract says of odd numbers -----------------------------------------------


def test_odd_numbers(backend: Backend) -> None:
    nan, inf = math.nan, math.inf
    odd = tensor([nan, inf, -inf, 0.0, -0.0], backend)
    assert odd.cast("bool").tolist() == [True, True, True, False, False]
    assert tensor([300, -129, 2**40 + 5], backend, "int64").cast("int8").tolist() == [44, 127, 5]
    assert tensor([1.0, nan, 3.0, nan], backend).argmax().item() == 1
    assert (tensor([inf, -8.0, nan, 0.0], backend) ** 0).tolist() == [1, 1, 1, 1]
    roots = (tensor([-8.0, 8.0, inf], backend) ** (1 / 3)).numpy()
    np.testing.assert_allclose(roots, [nan, 2.0, inf], rtol=1e-6)
    nothing = tensor(np.zeros((0, 2), np.float32), backend)
    assert nothing.sum(0).tolist() == [0, 0]
    assert nothing.max(1).shape == nothing.argmax(1).shape == (0,)
