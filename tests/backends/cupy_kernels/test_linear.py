"""Products on cupy with all that follows them, and rows of stored tables: values, gradients, and
how often the device is called.

The oracles are NumPy's forms in float64, finite differences, and torch.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tfx.core import nn, quantized
from tfx.core.autograd import value_and_grad
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.fused import composed
from tfx.core.nn import linear
from tfx.core.tensor import Tensor
from tfx.core.tolerances import TOLERANCES
from tfx.testing.composed_table import FUSED_OPS
from tfx.testing.trials import check_gradients, check_values

NAMES = [
    "linear", "linear_q8", "linear_q4", "linear_half",
    "embedding_q8", "embedding_q4", "embedding_half",
]  # fmt: skip


@pytest.fixture
def counts(B: Any) -> Any:
    cudasim = pytest.importorskip("cudasim", reason="only a simulated device counts launches")

    def counted(call: Any) -> tuple[int, int]:
        """Launches and library calls of what is called a second time; nothing crosses or waits."""
        call()
        cudasim.counts(reset=True)
        call()
        found = cudasim.counts()
        assert not any(found[x] for x in ("host_to_device", "device_to_host", "syncs"))
        return found["launches"], found["library_calls"]

    return counted


@pytest.fixture(params=[0, 16], ids=["many rows", "few rows"])
def few(request: Any, B: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Up to how many rows count as few."""
    from tfx.backends.cupy.kernels import linear, quantized

    for module in (linear, quantized):
        monkeypatch.setattr(module, "FEW", request.param)
    return int(request.param)


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def put(B: Any, *arrays: Any, dtype: str = "float32") -> list[Tensor]:
    return [tensor(x, B, dtype) for x in arrays]


# ---- values and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [DType.float64, DType.float32, DType.float16])
def test_values_are_the_reference_s(B: Any, few: int, name: str, dtype: DType) -> None:
    (op,) = (op for op in FUSED_OPS if op.name == name)
    check_values(op, B, op.samples, dtype)


def test_gradients_are_slopes(B: Any, few: int) -> None:
    (op,) = (op for op in FUSED_OPS if op.name == "linear")
    for dtype in (DType.float64, DType.float32):
        check_gradients(op, B, op.samples, dtype)


SHAPES = [
    (1, 64, 96),  # read four at a time
    (1, 37, 51),  # one at a time
    (3, 64, 4),
    (9, 128, 40),  # rows in two chunks
    (16, 5, 33),
    (40, 36, 72),  # many
]


@pytest.mark.parametrize("outputs_first", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_every_shape_and_activation_as_composed_in_float64(
    B: Any, dtype: str, outputs_first: bool
) -> None:
    activations = itertools.cycle([None, "gelu_new", "gelu", "relu", "silu"])
    for (rows, n, m), activation in zip(SHAPES, activations, strict=False):
        w = random(*((m, n) if outputs_first else (n, m)), seed=1) / n**0.5
        arrays = [random(rows, n), w, random(m, seed=2), random(rows, m, seed=3)]
        how: Any = {"activation": activation, "outputs_first": outputs_first}
        for count in (2, 4):
            given = [x.astype(dtype) for x in arrays[:count]]
            found = linear(*put(B, *given, dtype=dtype), **how).numpy()
            with composed():
                expected = linear(*put(B, *given, dtype="float64"), **how).numpy()
            bound = TOLERANCES[DType(dtype)].bound * max(1, abs(expected).max())
            assert found.dtype == dtype
            assert abs(found - expected).max() <= bound


def test_gradients_are_torch_s(B: Any) -> None:
    torch = pytest.importorskip("torch")
    for rows, outputs_first in itertools.product((3, 40), (False, True)):
        arrays = random(rows, 24), random(24, 56, seed=1), random(56, seed=2), random(rows, 56)
        if outputs_first:
            arrays = (arrays[0], arrays[1].T.copy(), *arrays[2:])
        for name, theirs in {
            "gelu_new": lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
            "gelu": torch.nn.functional.gelu,
            "silu": torch.nn.functional.silu,
            "relu": torch.relu,
        }.items():

            def loss(args: list[Tensor], name: Any = name, first: bool = outputs_first) -> Tensor:
                y = linear(*args, activation=name, outputs_first=first)
                return (y * y).sum()

            _, grads = value_and_grad(loss)(put(B, *arrays, dtype="float64"))
            x, w, b, residual = (torch.tensor(a, requires_grad=True) for a in arrays)
            y = residual + theirs(x @ (w.T if outputs_first else w) + b)
            (y * y).sum().backward()
            for found, expected in zip(grads, (x, w, b, residual), strict=True):
                np.testing.assert_allclose(found.numpy(), expected.grad.numpy(), rtol=1e-9)


def test_a_row_gets_the_same_bits_whatever_stands_beside_it(B: Any) -> None:
    x, w, b = put(B, random(16, 300), random(300, 80, seed=1), random(80))
    q = tensor(np.arange(80 * 320, dtype=np.int64).reshape(80, 320) % 251 - 125, B, "int8")
    (scales, wide) = put(B, abs(random(80, 10)), random(16, 320))
    for form in (
        lambda i: linear(x[i], w, b, activation="gelu"),
        lambda i: linear(x[i], tensor(w.numpy().T.copy(), B), b, outputs_first=True),
        lambda i: quantized.linear_q8(wide[i], q, scales, b),
    ):
        together = form(slice(None)).numpy()
        assert form(slice(None)).numpy().tobytes() == together.tobytes()
        for i in (0, 3, 9, 15):
            assert form(slice(i, i + 1)).numpy()[0].tobytes() == together[i].tobytes()


def test_the_bias_gradient_is_the_same_bits_every_time(B: Any) -> None:
    def step() -> bytes:
        args = put(B, random(700, 8), random(8, 40), random(40))
        _, grads = value_and_grad(lambda p: linear(*p, activation="gelu").sum())(args)
        return bytes(grads[2].numpy().tobytes())

    assert step() == step()


def test_bfloat16_words(B: Any) -> None:
    """As many numbers as are read at once, and not; both ways round; many rows."""
    for n, m, rows in ((64, 48, 1), (37, 21, 2), (32, 16, 30)):
        w = random(m, n)
        (x, b) = put(B, random(rows, n), random(m))
        kept = tensor(w, B, "bfloat16")
        expected = x.numpy() @ kept.cast("float32").numpy().T + b.numpy()
        found = quantized.linear_half(x, kept, b, outputs_first=True)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
        found = quantized.linear_half(x, tensor(w.T.copy(), B, "bfloat16"), b)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
        ids = tensor(np.array([[3, 0], [1, 3]]), B)
        rows_of = quantized.embedding_half(kept, ids, dtype=DType.float32)
        np.testing.assert_array_equal(rows_of.numpy(), kept.cast("float32").numpy()[ids.numpy()])


def test_arguments_at_odd_addresses(B: Any) -> None:
    """What does not begin where four numbers could be read at once is read one by one."""
    x, w = put(B, random(65), random(20 * 64 + 1))
    found = linear(x[1:][None], w[1:].reshape(20, 64), outputs_first=True)
    expected = x.numpy()[1:] @ w.numpy()[1:].reshape(20, 64).T
    np.testing.assert_allclose(found.numpy()[0], expected, atol=1e-4)


# ---- what it costs -------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 9, 16])
def test_few_rows_are_one_launch_and_no_library_call(B: Any, counts: Any, rows: int) -> None:
    x, w, b, residual = put(B, random(rows, 32), random(32, 48), random(48), random(rows, 48))
    ways: list[Any] = [
        lambda: linear(x, w, b, residual, activation="gelu_new"),
        lambda: linear(x, w.T, b, residual, activation="gelu", outputs_first=True),
        lambda: linear(x, w),
    ]
    q, pairs = tensor(np.ones((48, 32)), B, "int8"), tensor(np.ones((48, 16)), B, "uint8")
    (scales,) = put(B, np.ones((48, 2)))
    half, word = tensor(w.numpy(), B, "float16"), tensor(w.numpy(), B, "bfloat16")
    ways += [
        lambda: quantized.linear_q8(x, q, scales, b, residual, activation="silu"),
        lambda: quantized.linear_q4(x, pairs, scales, b, residual, activation="relu"),
        lambda: quantized.linear_half(x, half, b, residual, activation="gelu"),
        lambda: quantized.linear_half(x, word, b, residual, activation="gelu"),
    ]
    for way in ways:
        assert counts(way) == (1, 0)


def test_many_rows_are_a_product_and_one_launch(B: Any, counts: Any) -> None:
    x, w, b, residual = put(B, random(40, 32), random(32, 48), random(48), random(40, 48))
    assert counts(lambda: linear(x, w)) == (0, 1)
    assert counts(lambda: linear(x, w, b)) == (1, 1)
    assert counts(lambda: linear(x, w, b, residual, activation="gelu")) == (1, 1)


def test_backward_is_two_products_and_one_launch(B: Any, counts: Any) -> None:
    x, w, b, g = put(B, random(40, 32), random(32, 48), random(48), random(40, 48))
    record = B.fused["linear"]

    def backward(activation: Any, bias: Any) -> tuple[int, int]:
        how = {"activation": activation, "outputs_first": False}
        args = x.data, w.data, bias, None
        out, saved = record.forward(B, *args, **how)
        found: tuple[int, int] = counts(lambda: record.vjp(B, g.data, out, saved, *args, **how))
        return found

    assert backward("gelu", b.data) == (1, 2)
    assert backward(None, b.data) == (1, 2)
    assert backward("relu", None) == (1, 2)
    assert backward(None, None) == (0, 2)


def test_rows_of_stored_tables_are_one_launch(B: Any, counts: Any) -> None:
    ids = tensor(np.array([[3, 0]]), B)
    q, pairs = tensor(np.ones((4, 32)), B, "int8"), tensor(np.ones((4, 16)), B, "uint8")
    scales, half = put(B, np.ones((4, 2)))[0], tensor(np.ones((4, 32)), B, "float16")
    f32 = DType.float32
    assert counts(lambda: quantized.embedding_q8(q, scales, ids, dtype=f32)) == (1, 0)
    assert counts(lambda: quantized.embedding_q4(pairs, scales, ids, dtype=f32)) == (1, 0)
    assert counts(lambda: quantized.embedding_half(half, ids, dtype=f32)) == (1, 0)


def test_what_a_product_is_not_defined_for_goes_to_the_composed_form(B: Any) -> None:
    stacked = put(B, random(2, 3, 4), random(2, 4, 5))
    assert nn.linear(*stacked).shape == (2, 3, 5)
