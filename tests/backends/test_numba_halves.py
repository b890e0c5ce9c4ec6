"""Products with weights of float16 and bfloat16 by Numba, against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from tfx.backends.numba import compiling, halves, quantized_floats
from tfx.backends.numba.compiling import Ids, Row, compiled
from tfx.backends.numba.halves import COLUMNS, FEW_ROWS, LINEAR_HALF, TOGETHER
from tfx.backends.numba.quantized_floats import TILE, as_float32
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.capture import jit
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.fused import composed
from tfx.core.quantized import linear_half
from tfx.core.tensor import Tensor

B = NumpyBackend()
KINDS = [np.float16, np.uint16]
EVERY = np.arange(2**16, dtype=np.uint16)


def wide(w: Any) -> Any:
    """As float32; uint16 are bfloat16's words."""
    if w.dtype == np.float16:
        return w.astype(np.float32)
    return (w.astype(np.uint32) << 16).view(np.float32)


def weights(kind: Any, inputs: int, outputs: int, outputs_first: bool, seed: int = 0) -> Any:
    shape = (outputs, inputs) if outputs_first else (inputs, outputs)
    numbers = np.random.default_rng(seed).standard_normal(shape)
    if kind == np.float16:
        return numbers.astype(np.float16)
    return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def run(
    x: Any,
    w: Any,
    b: Any = None,
    residual: Any = None,
    activation: str | None = None,
    outputs_first: bool = False,
) -> Any:
    args = B, x, w, b, residual
    how = {"activation": activation, "outputs_first": outputs_first}
    assert LINEAR_HALF.supports is not None and LINEAR_HALF.supports(*args, **how)
    out, saved = LINEAR_HALF.forward(*args, **how)
    assert saved is None and out.dtype == x.dtype
    return out


def matrix(w: Any, outputs_first: bool) -> Any:
    return wide(w).T if outputs_first else wide(w)


ACTIVATED = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_new": lambda x: x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs_first", [False, True])
@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    rows=st.one_of(st.integers(1, FEW_ROWS + 2), st.just(40)),
    inputs=st.sampled_from([1, 3, 4, 5, 64, 99]),
    outputs=st.sampled_from(
        [1, 2, TILE - 1, TILE, TILE + 1, COLUMNS - 1, COLUMNS + 3, TOGETHER + 5]
    ),
    activation=st.sampled_from(list(ACTIVATED)),
    extras=st.tuples(st.booleans(), st.booleans()),
)
def test_products(
    kind: Any,
    outputs_first: bool,
    rows: int,
    inputs: int,
    outputs: int,
    activation: str | None,
    extras: tuple[bool, bool],
) -> None:
    rng = np.random.default_rng(rows)
    w = weights(kind, inputs, outputs, outputs_first)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    b = rng.standard_normal(outputs).astype(np.float32) if extras[0] else None
    residual = rng.standard_normal((rows, outputs)).astype(np.float32) if extras[1] else None
    found = run(x, w, b, residual, activation, outputs_first)
    factor = matrix(w, outputs_first).astype(np.float64)
    before = x @ factor + (0 if b is None else b)
    expected = ACTIVATED[activation](before) + (0 if residual is None else residual)
    # A rounding for each product, the slopes of activations not being above 1.13.
    size = np.abs(x.astype(np.float64)) @ np.abs(factor) + np.abs(before) + np.abs(expected) + 1
    assert (np.abs(found - expected) <= 2e-6 * size).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, FEW_ROWS + 1])
@pytest.mark.parametrize("outputs_first", [False, True])
def test_every_weight_there_is(kind: Any, rows: int, outputs_first: bool) -> None:
    w = EVERY.view(kind).reshape((-1, 1) if outputs_first else (1, -1))
    found = run(np.ones((rows, 1), np.float32), w, outputs_first=outputs_first)
    np.testing.assert_array_equal(found, np.tile(wide(w).reshape(-1), (rows, 1)))


def test_float16_without_an_instruction_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized_floats, "compiles_for", lambda *features: False)

    @compiled
    def by_integers(out: Row, words: Ids) -> None:
        for i in range(len(out)):
            out[i] = as_float32(words[i])

    found = np.empty(2**16, np.float32)
    by_integers.of(found.dtype, EVERY.dtype)(found, EVERY)
    np.testing.assert_array_equal(found, wide(EVERY.view(np.float16)))


@pytest.mark.parametrize("outputs_first", [False, True])
def test_threads_and_one_thread_give_the_same(
    outputs_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numba

    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba is held to one thread")
    w = weights(np.uint16, 37, COLUMNS + 77, outputs_first)
    x = np.random.default_rng(1).standard_normal((FEW_ROWS + 3, 37)).astype(np.float32)
    counts = 1, 3, FEW_ROWS, len(x)
    alone = [run(x[:count], w, activation="silu", outputs_first=outputs_first) for count in counts]
    for module in (compiling, halves):
        monkeypatch.setattr(module, "MANY", 1)
        monkeypatch.setattr(module, "threads", lambda: 2)
    for count, expected in zip(counts, alone, strict=True):
        found = run(x[:count], w, activation="silu", outputs_first=outputs_first)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("outputs_first", [False, True])
def test_axes_and_strides(outputs_first: bool) -> None:
    w = weights(np.uint16, 12, 70, outputs_first)
    x = np.random.default_rng(8).standard_normal((2, 4, 3, 24)).astype(np.float32)
    factor = matrix(w, outputs_first)
    turned = np.asfortranarray(w)
    spaced = np.zeros((len(w), w.shape[1] + 5), np.uint16)
    spaced[:, 2:-3] = w
    for part in (x[0, 0, 0, :12], x[:, -1, :, :12], x[..., ::2], np.asfortranarray(x[..., 3:15])):
        for same in (w, turned, spaced[:, 2:-3]):
            found = run(part, same, outputs_first=outputs_first)
            np.testing.assert_allclose(found, part @ factor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [DType.float16, DType.bfloat16])
@pytest.mark.parametrize("rows", [1, FEW_ROWS + 1])
def test_a_program_reads_what_is_there_when_it_runs(kind: DType, rows: int) -> None:
    backend = NumpyBackend()
    backend.fused["linear_half"] = LINEAR_HALF
    rng = np.random.default_rng(2)
    w = tensor(rng.standard_normal((9, 70)).astype(np.float32), backend).cast(kind)
    b = tensor(rng.standard_normal(70).astype(np.float32), backend)

    def layer(x: Tensor) -> Tensor:
        return linear_half(x, w, b, activation="gelu")

    captured = jit(layer)
    for _ in range(4):
        x = tensor(rng.standard_normal((rows, 9)).astype(np.float32), backend)
        with composed():
            expected = layer(x).numpy()
        np.testing.assert_allclose(captured(x).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_what_is_declined() -> None:
    x, w = np.ones((2, 6), np.float32), np.ones((6, 4), np.float16)
    b, residual = np.ones(4, np.float32), np.ones((2, 4), np.float32)

    def takes(*args: Any, activation: str | None = None, outputs_first: bool = False) -> bool:
        assert LINEAR_HALF.supports is not None
        return LINEAR_HALF.supports(B, *args, activation=activation, outputs_first=outputs_first)

    assert takes(x, w, b, residual)
    assert takes(x, w.T, b, residual, outputs_first=True)
    assert not takes(x.astype(np.float16), w, None, None)
    assert not takes(x, w.astype(np.float32), None, None)
    assert not takes(x, w, None, None, outputs_first=True)
    assert not takes(x[:0], w, None, None)
    assert not takes(x, np.ones((12, 8), np.float16)[::2, ::2], None, None)
    assert not takes(x, w, b[:3], None)
    assert not takes(x, w, b.astype(np.float64), None)
    assert not takes(x, w, None, residual[:1])
    assert not takes(x, w, None, residual.astype(np.float64))
    assert not takes(x, w, None, None, activation="tanh")
    assert not takes(x, w[None], None, None)
