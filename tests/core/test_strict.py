"""The strict backend itself: that it refuses what it should, and lets the rest pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfx.core import nn
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Array
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import BackendError
from tfx.testing import ContractError, StrictBackend

F32, F64, I64, BOOL, BF16 = DType.float32, DType.float64, DType.int64, DType.bool, DType.bfloat16


def full(B: StrictBackend, *shape: int, dtype: DType = F32) -> Array:
    return B.full(shape=shape, value=True if dtype is BOOL else 1, dtype=dtype)


Call = Callable[[Any, Array], Any]

BROKEN: dict[str, Call] = {
    # arguments that are no raw arrays of this instance, nor Python numbers
    "a NumPy scalar": lambda B, x: B.add(x, np.float32(1)),
    "NumPy's float64": lambda B, x: B.mul(x, np.float64(1)),
    "a NumPy array": lambda B, x: B.add(x, np.ones(3, np.float32)),
    "what lies inside": lambda B, x: B.neg(x.values),
    "another instance's": lambda B, x: B.add(x, full(StrictBackend(), 3)),
    "a tensor": lambda B, x: B.neg(tensor([1.0], B)),
    "None": lambda B, x: B.add(x, None),
    "a list for an array": lambda B, x: B.asarray([1.0], dtype=F32),
    "shape of a NumPy array": lambda B, x: B.shape(np.ones(3)),
    "dtype of another instance's": lambda B, x: B.dtype(full(StrictBackend(), 3)),
    # dtypes
    "two dtypes": lambda B, x: B.add(x, full(B, 3, dtype=F64)),
    "a float beside integers": lambda B, x: B.add(full(B, 3, dtype=I64), 0.5),
    "a number beside bool": lambda B, x: B.equal(full(B, 3, dtype=BOOL), 1),
    "arithmetic on bool": lambda B, x: B.sum(full(B, 3, dtype=BOOL), axis=(0,), keepdims=False),
    "arithmetic on storage": lambda B, x: B.add(full(B, 3, dtype=BF16), 1.0),
    "exp of integers": lambda B, x: B.exp(full(B, 3, dtype=I64)),
    "a condition of floats": lambda B, x: B.where(x, x, x),
    "indices of floats": lambda B, x: B.take(x, x, axis=0),
    "a dtype by name": lambda B, x: B.cast(x, dtype="float64"),
    "two numbers": lambda B, x: B.add(1.0, 2.0),
    # keywords
    "axis of a list": lambda B, x: B.sum(x, axis=[0], keepdims=False),
    "axis of an integer": lambda B, x: B.sum(x, axis=0, keepdims=False),
    "axis below zero": lambda B, x: B.sum(x, axis=(-1,), keepdims=False),
    "axis twice": lambda B, x: B.max(x, axis=(0, 0), keepdims=False),
    "axis too large": lambda B, x: B.argmax(x, axis=1),
    "axis of NumPy": lambda B, x: B.argmax(x, axis=np.int64(0)),
    "keepdims of an integer": lambda B, x: B.sum(x, axis=(0,), keepdims=0),
    "a shape with -1": lambda B, x: B.reshape(x, shape=(-1,)),
    "a shape of a list": lambda B, x: B.reshape(x, shape=[3]),
    "a shape of another size": lambda B, x: B.reshape(x, shape=(2, 2)),
    "a length of NumPy": lambda B, x: B.full(shape=(np.int64(3),), value=0.0, dtype=F32),
    "a value of NumPy": lambda B, x: B.full(shape=(3,), value=np.float64(0), dtype=F32),
    "an exponent of NumPy": lambda B, x: B.pow(x, exponent=np.float32(2)),
    "axes that are none": lambda B, x: B.transpose(x, axes=(1,)),
    "too few axes": lambda B, x: B.transpose(full(B, 2, 2), axes=(0,)),
    "concat of nothing": lambda B, x: B.concat(axis=0),
    "concat of shapes": lambda B, x: B.concat(full(B, 2, 2), full(B, 2, 3), axis=0),
    "a cut too long": lambda B, x: B.slice(x, starts=(0,), stops=(4,), steps=(1,)),
    "a cut backwards": lambda B, x: B.slice(x, starts=(2,), stops=(1,), steps=(1,)),
    "a step of 0": lambda B, x: B.slice(x, starts=(0,), stops=(1,), steps=(0,)),
    "a cut of None": lambda B, x: B.slice(x, starts=(None,), stops=(1,), steps=(1,)),
    "pad by a list": lambda B, x: B.pad(x, widths=[(0, 1)], value=0.0),
    "pad by less than nothing": lambda B, x: B.pad(x, widths=((0, -1),), value=0.0),
    "updates of another shape": lambda B, x: B.scatter_add(x, full(B, 2, dtype=I64), x, axis=0),
    "a slab too long": lambda B, x: B.write(x, full(B, 4), 0, axis=0),
    "a start too late": lambda B, x: B.write(x, full(B, 2), 2, axis=0),
    "a start of floats": lambda B, x: B.write(x, full(B, 2), full(B), axis=0),
    "a start of one axis": lambda B, x: B.write(x, full(B, 1), full(B, 1, dtype=I64), axis=0),
    "a key too large": lambda B, x: B.random_bits(
        full(B, dtype=I64), key=(0, 2**32), shape=(), bits=8
    ),
    "no bits": lambda B, x: B.random_bits(full(B, dtype=I64), key=(0, 1), shape=(), bits=0),
    "a counter of one axis": lambda B, x: B.random_bits(
        full(B, 1, dtype=I64), key=(0, 1), shape=(), bits=8
    ),
}


@pytest.mark.parametrize("call", BROKEN.values(), ids=BROKEN.keys())
def test_what_breaks_the_contract_is_refused(call: Call) -> None:
    B = StrictBackend()
    with pytest.raises(ContractError):
        call(B, full(B, 3))


@pytest.mark.parametrize(
    "call",
    [
        lambda B, x: B.sum(x, (0,), False),
        lambda B, x: B.cast(x, F64),
        lambda B, x: B.add(x=x, y=1.0),
        lambda B, x: B.sum(x, axis=(0,)),
        lambda B, x: B.neg(x, out=x),
        lambda B, x: x + x,
        lambda B, x: np.asarray(x) + 1,
        lambda B, x: x[0],
        lambda B, x: len(x),
    ],
)
def test_arrays_by_position_and_the_rest_by_keyword_and_nothing_besides(call: Call) -> None:
    B = StrictBackend()
    with pytest.raises((TypeError, ContractError)):
        call(B, full(B, 3))


def test_shapes_that_do_not_fit_are_refused_as_a_library_does() -> None:
    B = StrictBackend()
    with pytest.raises(ValueError, match="broadcast"):
        B.add(full(B, 2), full(B, 3))
    with pytest.raises(ValueError, match="matmul"):
        B.matmul(full(B, 2, 3), full(B, 2, 3))
    with pytest.raises(ValueError, match="broadcast"):
        B.broadcast_to(full(B, 2), shape=(3,))


# ---- memory ------------------------------------------------------------------------------


def test_arrays_are_read_only_strided_and_surrounded_by_nan() -> None:
    B = StrictBackend()
    patterns = set()
    for _ in range(8):
        x = B.asarray(np.arange(12.0).reshape(3, 4), dtype=F64)
        assert not x.values.flags.writeable and not x.values.flags.c_contiguous
        assert not x.values.flags.f_contiguous and np.isnan(x.values.base).any()
        np.testing.assert_array_equal(B.to_numpy(x), np.arange(12.0).reshape(3, 4))
        with pytest.raises(ValueError, match="read-only"):
            x.values[0, 0] = 1
        patterns.add(x.values.strides)
    assert len(patterns) == 4


VIEWS: dict[str, Callable[[StrictBackend, Array], Array]] = {
    "the buffer": lambda B, x: x,
    "reshape": lambda B, x: B.reshape(x, shape=(6,)),
    "transpose": lambda B, x: B.transpose(x, axes=(1, 0)),
    "slice": lambda B, x: B.slice(x, starts=(0, 0), stops=(1, 1), steps=(1, 1)),
    "broadcast_to": lambda B, x: B.broadcast_to(x, shape=(2, 2, 3)),
    "a view of a view": lambda B, x: B.reshape(B.transpose(x, axes=(1, 0)), shape=(6,)),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_what_write_consumed_is_gone_with_its_views(view: Any) -> None:
    B = StrictBackend()
    buffer, slab = full(B, 2, 3), full(B, 1, 3)
    other, copied = view(B, buffer), B.concat(buffer, axis=0)
    written = B.write(buffer, slab, 1, axis=0)
    with pytest.raises(ContractError, match="consumed"):
        B.neg(other)
    assert B.shape(buffer) == (2, 3) and B.dtype(buffer) is F32
    for alive in (written, slab, copied):
        B.neg(alive)


def test_write_through_a_view_consumes_the_buffer() -> None:
    B = StrictBackend()
    buffer = full(B, 2, 3)
    B.write(B.reshape(buffer, shape=(6,)), full(B, 2), 0, axis=0)
    with pytest.raises(ContractError, match="consumed"):
        B.to_numpy(buffer)


# ---- results and transfers ---------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones(3, np.float64),
        np.ones((3, 1), np.float32),
        np.float32(1),
        [1.0, 1.0, 1.0],
        np.ma.ones(3, np.float32),
    ],
    ids=str,
)
def test_a_library_that_breaks_its_promise_is_caught(
    wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    B = StrictBackend()
    monkeypatch.setattr(B._numpy, "exp", lambda x: wrong)
    with pytest.raises(ContractError, match="exp returned"):
        B.exp(full(B, 3))


def test_a_library_that_writes_into_an_argument_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    B = StrictBackend()
    monkeypatch.setattr(B._numpy, "exp", lambda x: np.exp(x, out=x))
    with pytest.raises(ValueError, match="read-only"):
        B.exp(full(B, 3))


def test_transfers_are_counted() -> None:
    B = StrictBackend()
    w, x = tensor([[1.0, 2.0]], B), tensor([3.0, 4.0], B)
    ids = tensor([1], B)
    assert B.transfers == {"asarray": 3}

    def loss(w: Any) -> Any:
        return nn.cross_entropy(nn.rms_norm(w) * x, ids).mean()

    value, gradient = value_and_grad(loss)(w)
    (w - gradient * 0.1).reshape(2)[0]
    assert B.transfers == {"asarray": 3}
    value.item()
    assert B.transfers == {"asarray": 3, "to_numpy": 1}


def test_it_has_one_device() -> None:
    assert str(StrictBackend("cpu")) == "strict"
    with pytest.raises(BackendError, match="no device 'cuda:0'"):
        StrictBackend("cuda:0")
