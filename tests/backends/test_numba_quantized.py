"""Products with int8 and int4 weights by Numba, against NumPy in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from tfx.backends.numba import quantized, vnni
from tfx.backends.numba.compiling import MANY
from tfx.backends.numba.quantized_floats import WIDEN
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Fused

B = NumpyBackend()
KERNELS = {8: quantized.LINEAR_Q8, 4: quantized.LINEAR_Q4}
BLOCK = 64
NAMES = [None, "gelu_new", "gelu", "relu", "silu"]

KINDS = [
    pytest.param(8, np.float16, id="int8-float16"),
    pytest.param(4, np.float32, id="int4-float32"),
    pytest.param(8, np.float32, id="int8-float32", marks=pytest.mark.slow),
    pytest.param(4, np.float16, id="int4-float16", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=["integers", "floats"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each of the two ways that a product is made."""
    if request.param == "integers" and not vnni.available():
        pytest.skip("this processor has no vpdpbusd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vnni, "available", lambda: request.param == "integers")
        yield request.param


# ---- the oracle ----------------------------------------------------------------------------------


def weights(bits: int, m: int, n: int, groups: int, scale_dtype: Any, seed: int) -> list[Any]:
    """q, scales, and what they stand for in float64, with the most extreme numbers among them."""
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.001, 0.1, (m, groups)).astype(scale_dtype)
    numbers = rng.integers(-127, 128, (m, n)) if bits == 8 else rng.integers(-8, 8, (m, n))
    numbers[rng.random((m, n)) < 0.1] = -127 if bits == 8 else -8
    numbers[rng.random((m, n)) < 0.1] = 127 if bits == 8 else 7
    wide = numbers * np.repeat(scales.astype(np.float64), n // groups, 1)
    if bits == 8:
        return [numbers.astype(np.int8), scales, wide]
    low, high = np.split(numbers.reshape(m, groups, n // groups) + 8, 2, -1)
    return [(low | high << 4).reshape(m, n // 2).astype(np.uint8), scales, wide]


def activated(x: Any, name: str | None) -> Any:
    with np.errstate(over="ignore"):
        match name:
            case "gelu_new":
                return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
            case "gelu":
                return x * 0.5 * np.vectorize(math.erfc, otypes=[float])(-x / math.sqrt(2))
            case "relu":
                return np.maximum(x, 0)
            case "silu":
                return x / (1 + np.exp(-x))
    return x


def in_blocks(x: Any, bits: int, groups: int) -> Any:
    """Rows (m, n) as (m, blocks, 64): what shares a scale when x is rounded. With int4, that is two
    runs of 32 numbers, half a group apart."""
    if bits == 4:
        x = x.reshape(len(x), groups, 2, -1, BLOCK // 2).swapaxes(2, 3)
    return x.reshape(len(x), -1, BLOCK)


def bound(x: Any, w: Any, way: str, bits: int, groups: int) -> Any:
    """How far an output may be off, before the activation: a 254th of the largest number in a
    block for every number of it, and float32 for every product."""
    rounding = 3e-6 * (np.abs(x) @ np.abs(w).T) + 1e-30
    if way == "floats" or x.shape[1] // groups % BLOCK:
        return rounding
    numbers, factors = (in_blocks(np.abs(a), bits, groups) for a in (x, w))
    steps = numbers.max(-1) / 254 + 2.0**-127
    return rounding + 1.001 * steps @ factors.sum(-1).T


def run(
    kernel: Fused, x: Any, q: Any, scales: Any, b: Any = None, residual: Any = None, **how: Any
) -> Any:
    args, activation = (x, q, scales, b, residual), how.get("activation")
    assert kernel.supports is not None
    assert kernel.supports(B, *args, activation=activation)
    out, saved = kernel.forward(B, *args, activation=activation)
    assert saved is None and out.dtype == np.float32
    return out


# ---- what comes out ------------------------------------------------------------------------------


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Rows, outputs, groups and their size; mostly such as are multiplied in integers."""
    size = draw(st.sampled_from([64, 64, 128, 192, 2, 6, 32, 100]))
    return (
        draw(st.integers(1, 20)),
        draw(st.sampled_from([1, 2, 63, 64, 65, 131])),
        draw(st.integers(1, 18)),
        size,
    )


@pytest.mark.parametrize(("bits", "scale_dtype"), KINDS)
@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    shape=shapes(),
    activation=st.sampled_from(NAMES),
    extras=st.tuples(st.booleans(), st.booleans()),
    magnitude=st.sampled_from([0.0, 1e-44, 1e-39, 1e-3, 1.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_products(
    way: str,
    bits: int,
    scale_dtype: Any,
    shape: tuple[int, int, int, int],
    activation: str | None,
    extras: tuple[bool, bool],
    magnitude: float,
    seed: int,
) -> None:
    rows, m, groups, size = shape
    rng = np.random.default_rng(seed)
    q, scales, w = weights(bits, m, groups * size, groups, scale_dtype, seed)
    x = (magnitude * rng.standard_normal((rows, groups * size))).astype(np.float32)
    b = rng.standard_normal(m).astype(np.float32) if extras[0] else None
    residual = rng.standard_normal((rows, m)).astype(np.float32) if extras[1] else None
    found = run(KERNELS[bits], x, q, scales, b, residual, activation=activation)
    before = x.astype(np.float64) @ w.T + (0 if b is None else b)
    expected = activated(before, activation) + (0 if residual is None else residual)
    slack = 1.13 * bound(x.astype(np.float64), w, way, bits, groups)  # no slope is above that
    slack += 1e-6 * (1 + np.abs(before) + np.abs(expected))
    assert (np.abs(found - expected) <= slack).all()


@pytest.mark.parametrize(("bits", "scale_dtype"), KINDS[:2])
def test_threads_and_one_thread_give_the_same(way: str, bits: int, scale_dtype: Any) -> None:
    m, n = -(-MANY // 768) * 2 + 1, 768
    q, scales, w = weights(bits, m, n, n // 64, scale_dtype, 0)
    x = np.random.default_rng(1).standard_normal((3, n)).astype(np.float32)
    found = run(KERNELS[bits], x, q, scales, None, None)
    assert (np.abs(found - x @ w.T) <= bound(x.astype(np.float64), w, way, bits, n // 64)).all()
    parts = [
        run(KERNELS[bits], x, q[some], scales[some], None, None)
        for some in (slice(0, 100), slice(100, 200))
    ]
    np.testing.assert_array_equal(found[:, :200], np.concatenate(parts, 1))


@pytest.mark.parametrize(("bits", "scale_dtype"), KINDS[:2])
def test_a_row_is_the_same_among_any_others(way: str, bits: int, scale_dtype: Any) -> None:
    q, scales, _ = weights(bits, 70, 448, 7, scale_dtype, 2)
    x = np.random.default_rng(3).standard_normal((16, 448)).astype(np.float32)
    alone = np.concatenate([run(KERNELS[bits], x[i : i + 1], q, scales, None) for i in range(16)])
    for rows in range(2, 17):
        np.testing.assert_array_equal(run(KERNELS[bits], x[:rows], q, scales, None), alone[:rows])


@pytest.mark.parametrize("activation", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(way: str, bad: float, activation: str | None) -> None:
    q, scales, _ = weights(8, 65, 192, 3, np.float16, 4)
    x = np.random.default_rng(5).standard_normal((3, 192)).astype(np.float32)
    clean = run(KERNELS[8], x, q, scales, None, None, activation=activation)
    x[1, 77] = bad
    found = run(KERNELS[8], x, q, scales, None, None, activation=activation)
    np.testing.assert_array_equal(found[[0, 2]], clean[[0, 2]])
    # -inf, where it is known to be that, is 0 to some activations.
    assert not np.isfinite(found[1]).any() or (way == "floats" and np.isinf(bad))


def test_huge_numbers_do_not_overflow_on_the_way(way: str) -> None:
    q, _, _ = weights(8, 5, 128, 2, np.float32, 6)
    scales = np.full((5, 2), 1e-4, np.float32)
    x = np.full((2, 128), 1e34, np.float32)
    w = q.astype(np.float64) * np.float32(1e-4)
    found = run(KERNELS[8], x, q, scales, None, None)
    wide = x.astype(np.float64)
    assert (np.abs(found - wide @ w.T) <= bound(wide, w, way, 8, 2)).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_every_float16_as_a_scale(bits: int) -> None:
    every = np.arange(2**16, dtype=np.uint16)
    q = np.full((2**16, 2), 1 if bits == 8 else 0x99, np.uint8)
    wide = np.empty((2**16, 2 if bits == 8 else 4), np.float32)
    kernel = WIDEN[f"q{bits}"].of(np.dtype(np.float32), np.dtype(np.uint16))
    kernel(q.reshape(-1), every, wide)
    np.testing.assert_array_equal(wide[:, 0], every.view(np.float16).astype(np.float32))


def test_axes_and_strides_of_x(way: str) -> None:
    q, scales, w = weights(8, 9, 128, 2, np.float32, 7)
    x = np.random.default_rng(8).standard_normal((2, 4, 3, 256)).astype(np.float32)
    for part in (
        x[0, 0, 0, :128],
        x[:, -1, :, :128],
        x[..., ::2],
        np.asfortranarray(x[..., 64:192]),
    ):
        found = run(KERNELS[8], part, q, scales, None, None)
        flat = np.ascontiguousarray(part).reshape(-1, 128)
        assert found.shape == (*part.shape[:-1], 9)
        most = bound(flat.astype(np.float64), w, way, 8, 2)
        assert (np.abs(found.reshape(-1, 9) - flat @ w.T) <= most).all()
        np.testing.assert_array_equal(found.reshape(-1, 9), run(KERNELS[8], flat, q, scales))


def test_what_is_declined() -> None:
    q, scales, _ = weights(8, 4, 128, 2, np.float32, 9)
    x, b, residual = (
        np.ones((2, 128), np.float32),
        np.ones(4, np.float32),
        np.ones((2, 4), np.float32),
    )

    def takes(*args: Any, activation: str | None = None, bits: int = 8) -> bool:
        supports = KERNELS[bits].supports
        assert supports is not None
        return supports(B, *args, activation=activation)

    assert takes(x, q, scales, b, residual)
    assert not takes(x.astype(np.float64), q, scales, None, None)
    assert not takes(x, q.view(np.uint8), scales, None, None)
    assert not takes(x, q, scales, None, None, bits=4)
    assert not takes(x, q, scales.astype(np.float64), None, None)
    assert not takes(x, q, scales.view(np.uint32).astype(np.uint16), None, None)
    assert not takes(x[:, :64], q, scales, None, None)
    assert not takes(x[:0], q, scales, None, None)
    assert not takes(x, np.asfortranarray(q), scales, None, None)
    assert not takes(x, q[::2], scales[:2], None, None)
    assert not takes(x, q, np.asfortranarray(scales), None, None)
    assert not takes(x, q, scales[:2], None, None)
    assert not takes(x, q, np.ones((4, 3), np.float32), None, None)
    assert not takes(x, q, scales, b[:3], None)
    assert not takes(x, q, scales, b.astype(np.float64), None)
    assert not takes(x, q, scales, None, residual[:1])
    assert not takes(x, q, scales, None, None, activation="tanh")
    pairs = np.zeros((4, 64), np.uint8)
    assert takes(x, pairs, scales, None, None, bits=4)
    assert not takes(x, pairs, np.ones((4, 128), np.float32), None, None, bits=4)
