"""The loops against NumPy, by themselves and under tfx's gradients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from tfx_loops.arrays import Array
from tfx_loops.backend import LoopsBackend

import tfx
from tfx.core.backend import PRIMITIVES, Backend
from tfx.core.dtypes import DType
from tfx.testing.contract import CONTRACT, ArrayType

B = LoopsBackend()
NORMAL = np.random.default_rng(0).standard_normal
GRID, ROW, BLOCK = NORMAL((3, 4)), NORMAL(4), NORMAL((2, 3, 4))
ODD = np.array([nan, inf, -inf, 0.0, -0.0, 2.0, -300.0, 800.0])
PAIRS = np.meshgrid(ODD, ODD)
IDS = np.array([[2, 0], [2, 1]])
BYTES = np.array([127, -128, 5], np.int8)
LATE = np.repeat(np.array([0, 1], np.int8), 200)  # the largest stands where no int8 counts to


def raised_to(exponent: float) -> Callable[[Any], Any]:
    return lambda x: np.power(x, exponent)


CASES: list[tuple[str, list[Any], dict[str, Any], Any]] = [
    ("neg", [BYTES], {}, -BYTES),
    ("exp", [ODD], {}, np.exp),
    ("log", [ODD], {}, np.log),
    ("tanh", [ODD], {}, np.tanh),
    ("sqrt", [ODD], {}, np.sqrt),
    ("add", [BLOCK, ROW], {}, np.add),
    ("add", [BYTES, BYTES], {}, np.add),
    ("sub", [1.5, GRID], {}, np.subtract),
    ("mul", [GRID[:, :1], ROW], {}, np.multiply),
    ("mul", [ROW.astype("f4"), 0.1], {}, np.multiply),
    ("div", PAIRS, {}, np.true_divide),
    ("maximum", PAIRS, {}, np.maximum),
    ("less", PAIRS, {}, np.less),
    ("equal", PAIRS, {}, np.equal),
    ("where", [GRID > 0, GRID, 7.0], {}, np.where),
    *(
        ("pow", [ODD], {"exponent": e}, raised_to(e))
        for e in (2, 3, 0.25, -1, -2, -0.25, 400.0, 401.0)
    ),
    ("sum", [BLOCK], {"axis": (0, 2), "keepdims": True}, BLOCK.sum((0, 2), keepdims=True)),
    ("sum", [BLOCK], {"axis": (), "keepdims": False}, BLOCK),
    ("max", [BLOCK], {"axis": (1,), "keepdims": False}, BLOCK.max(1)),
    ("max", [ODD], {"axis": (0,), "keepdims": False}, np.array(nan)),
    ("argmax", [BLOCK], {"axis": 1}, BLOCK.argmax(1)),
    ("argmax", [LATE], {"axis": 0}, np.array(200)),
    ("argmax", [ODD[::-1]], {"axis": 0}, np.array(7)),
    ("matmul", [BLOCK, GRID.T], {}, BLOCK @ GRID.T),
    ("matmul", [NORMAL((2, 0)), NORMAL((5, 0, 3))], {}, np.zeros((5, 2, 3))),
    ("reshape", [GRID.T], {"shape": (2, 6)}, GRID.T.reshape(2, 6)),
    ("transpose", [BLOCK], {"axes": (2, 0, 1)}, BLOCK.transpose(2, 0, 1)),
    (
        "broadcast_to",
        [GRID[:, None]],
        {"shape": (2, 3, 5, 4)},
        np.tile(GRID[:, None], (2, 1, 5, 1)),
    ),
    ("concat", [GRID, GRID[:, 1:]], {"axis": 1}, np.hstack([GRID, GRID[:, 1:]])),
    ("slice", [GRID], {"starts": (1, 0), "stops": (3, 4), "steps": (1, 3)}, GRID[1:3, ::3]),
    ("slice", [ROW], {"starts": (1,), "stops": (3,), "steps": (1,)}, ROW[1:3]),
    ("pad", [ROW], {"widths": ((2, 1),), "value": -inf}, np.pad(ROW, (2, 1), constant_values=-inf)),
    ("take", [BLOCK, IDS], {"axis": 1}, BLOCK.take(IDS, axis=1)),
    ("scatter_add", [ROW, IDS, np.ones((2, 2))], {"axis": 0}, np.add(ROW, [1, 1, 2, 0])),
    (
        "scatter_add",
        [GRID, np.array([3, 3]), np.ones((3, 2))],
        {"axis": 1},
        np.add(GRID, [0, 0, 0, 2]),
    ),
    ("write", [GRID, GRID[:, :1], np.array(3)], {"axis": 1}, GRID[:, [0, 1, 2, 0]]),
    ("cast", [np.array([2.9, -2.9, 300.0])], {"dtype": DType.uint8}, np.array([2, 254, 44])),
    ("cast", [ODD], {"dtype": DType.bool}, ODD != 0),
    ("cast", [np.array([1e39, 0.1])], {"dtype": DType.float32}, np.array([inf, 0.1], "f4")),
]
BELOW = {"asarray", "to_numpy", "full", "arange", "random_bits"}


def raw(x: Any, turned: bool = False) -> Any:
    """An array on the backend; `turned`, its first axis lies closest together in memory."""
    if not isinstance(x, np.ndarray):
        return x
    if turned:
        return B.transpose(raw(x.T), axes=tuple(reversed(range(x.ndim))))
    return B.asarray(x, dtype=DType(x.dtype.name))


def type_of(x: Any) -> Any:
    return ArrayType(B.shape(x), B.dtype(x)) if isinstance(x, Array) else x


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("name", "given", "statics", "expected"), CASES)
def test_a_primitive(
    name: str, given: list[Any], statics: dict[str, Any], expected: Any, turned: bool
) -> None:
    arrays = [raw(x, turned) for x in given]
    out = getattr(B, name)(*arrays, **statics)
    assert type_of(out) == CONTRACT[name](B, *map(type_of, arrays), **statics)
    right = expected(*given) if callable(expected) else expected
    np.testing.assert_allclose(B.to_numpy(out), right, rtol=1e-14, atol=1e-15)
    if name != "write":
        for x, before in zip(arrays, given, strict=True):
            np.testing.assert_array_equal(B.to_numpy(x) if isinstance(x, Array) else x, before)


def test_every_primitive_has_a_case() -> None:
    assert BELOW | {name for name, *_ in CASES} == set(PRIMITIVES)


def test_arrays_of_one_number() -> None:
    ones = B.full(shape=(2, 2), value=0.1, dtype=DType.float32)
    assert B.to_numpy(ones).tolist() == [[np.float32(0.1)] * 2] * 2
    assert B.to_numpy(B.arange(stop=3)).tolist() == [0, 1, 2]


def test_what_is_no_integer_is_cast_without_an_error() -> None:
    assert B.cast(raw(ODD[:3]), dtype=DType.int32).numbers() == [0, 0, 0]


@pytest.mark.parametrize("bits", [1, 24, 32])
def test_random_bits_are_those_of_every_backend(bits: int) -> None:
    counter = B.full(shape=(), value=7, dtype=DType.int64)
    how: dict[str, Any] = {"key": (3, 2**32 - 1), "shape": (3, 5), "bits": bits}
    ours, the_hosts = B.random_bits(counter, **how), Backend.random_bits(B, counter, **how)
    assert ours.numbers() == the_hosts.numbers()


def test_another_view_is_another_rule_over_the_same_cells() -> None:
    x = raw(GRID)
    turned = B.transpose(x, axes=(1, 0))
    corner = B.slice(turned, starts=(1, 1), stops=(4, 3), steps=(2, 1))
    assert turned.cells is corner.cells is x.cells
    assert (turned.strides, corner.strides, corner.offset) == ((1, 4), (2, 4), 5)


def test_a_write_into_repeated_cells_is_not_repeated() -> None:
    rows = B.broadcast_to(raw(np.zeros((1, 2))), shape=(2, 2))
    out = B.write(rows, raw(np.ones((1, 2))), 1, axis=0)
    assert B.to_numpy(out).tolist() == [[0, 0], [1, 1]]


def test_gpt2_writes_what_it_writes_on_numpy() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-m", "tfx", *f"run gpt2-tiny ROMEO: -n 3 --seed 1 -b {name}".split()],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in ("loops", "numpy")
    ]
    assert said[0] == said[1] != ""


def test_a_model_gets_the_loss_and_gradients_that_it_gets_on_numpy() -> None:
    def loss(p: Any) -> Any:
        x = tfx.layer_norm(tfx.embedding(p["table"], ids), p["gain"], p["bias"])
        x = x + tfx.attention(x, x, x, 0.5, heads=2)
        return tfx.cross_entropy(tfx.gelu(x) @ p["table"].T, ids).mean()

    host = {"table": NORMAL((5, 4)), "gain": NORMAL(4), "bias": NORMAL(4)}
    values, gradients = [], []
    for library in (tfx.backend("loops"), tfx.backend("numpy")):
        ids = tfx.tensor([[0, 3, 3], [4, 1, 0]], library)
        value, grads = tfx.value_and_grad(loss)(
            {k: tfx.tensor(x, library) for k, x in host.items()}
        )
        values.append(value.item())
        gradients.append(np.concatenate([grads[name].numpy().ravel() for name in host]))
    assert values[0] == pytest.approx(values[1], abs=1e-12)
    np.testing.assert_allclose(*gradients, atol=1e-12)
