"""Tensors kept in fewer bits: every operation gets their numbers, fused ops what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import tree
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend, Fused, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import DTypeError, GradientError
from tfx.core.nn import embedding, layer_norm, linear
from tfx.core.quantized import Half, Quantized
from tfx.core.tensor import Tensor
from tfx.testing.nearness import assert_close

M, N, GROUPS = 6, 12, 3


def stored(bits: int) -> tuple[HostArray, HostArray, HostArray]:
    """Numbers as they are kept, scales, and one by one what they stand for."""
    rng = np.random.default_rng(bits)
    scales = rng.uniform(0.5, 1.5, (M, GROUPS)).astype(np.float32)
    size, meant = N // GROUPS, np.empty((M, N))
    q = rng.integers(-128, 128, (M, N)).astype(np.int8)
    if bits == 4:
        q = rng.integers(0, 256, (M, N // 2)).astype(np.uint8)
    for row in range(M):
        for column in range(N):
            group, i = divmod(column, size)
            number = int(q[row, column]) if bits == 8 else _nibble(q[row], group, i, size)
            meant[row, column] = number * float(scales[row, group])
    return q, scales, meant


def _nibble(row: HostArray, group: int, i: int, size: int) -> int:
    byte = int(row[group * size // 2 + i % (size // 2)])
    return (byte & 15 if i < size // 2 else byte >> 4) - 8


def weight(B: Backend, bits: int, dtype: str = "float32", **how: Any) -> tuple[Quantized, Any]:
    q, scales, meant = stored(bits)
    return Quantized(tensor(q, B), tensor(scales, B), DType(dtype), **how), meant


def drawn(B: Backend, *shape: int, dtype: str = "float32") -> tuple[Tensor, HostArray]:
    numbers = np.random.default_rng(7).standard_normal(shape).astype(dtype)
    return tensor(numbers, B), numbers.astype(np.float64)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("inputs_first", [False, True])
def test_a_product_with_it(backend: Backend, bits: int, dtype: str, inputs_first: bool) -> None:
    w, meant = weight(backend, bits, dtype, inputs_first=inputs_first)
    x, x_host = drawn(backend, 2, 3, N, dtype=dtype)
    b, b_host = drawn(backend, M, dtype=dtype)
    y = linear(x, w, b, activation="relu", outputs_first=not inputs_first)
    assert w.shape == ((N, M) if inputs_first else (M, N))
    assert y.dtype == w.dtype == dtype
    assert_close(y.numpy(), np.maximum(x_host @ meant.T + b_host, 0), DType(dtype))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_product_with_its_transpose(backend: Backend, bits: int) -> None:
    w, meant = weight(backend, bits)
    x, x_host = drawn(backend, 5, M)
    assert_close(linear(x, w).numpy(), x_host @ meant, DType.float32)


@pytest.mark.parametrize("bits", [8, 4])
def test_its_rows(backend: Backend, bits: int) -> None:
    w, meant = weight(backend, bits, "float64")
    ids = tensor([[5, 0], [3, 3]], backend)
    np.testing.assert_allclose(embedding(w, ids).numpy(), meant[[[5, 0], [3, 3]]], rtol=1e-15)
    turned, _ = weight(backend, bits, "float64", inputs_first=True)
    np.testing.assert_allclose(embedding(turned, ids).numpy(), meant.T[[[5, 0], [3, 3]]])


@pytest.mark.parametrize("bits", [8, 4])
def test_other_operations_get_its_numbers(backend: Backend, bits: int) -> None:
    w, meant = weight(backend, bits, "float64")
    assert (len(w), w.ndim, w.size, w.dtype) == (M, 2, M * N, "float64")
    np.testing.assert_allclose(w.numpy(), meant, rtol=1e-15)
    np.testing.assert_allclose((w * 2.0).numpy(), meant * 2, rtol=1e-15)
    np.testing.assert_allclose(w.T.numpy(), meant.T, rtol=1e-15)
    ones = tensor(np.ones(N), backend)
    plain = tensor(meant, backend)
    np.testing.assert_allclose(
        layer_norm(w, ones, ones).numpy(), layer_norm(plain, ones, ones).numpy(), rtol=1e-9
    )


def test_dtypes_are_not_mixed(backend: Backend) -> None:
    w, _ = weight(backend, 8)
    x, _ = drawn(backend, 2, N, dtype="float64")
    with pytest.raises(DTypeError, match="linear of float64 and float32: dtypes are never mixed"):
        linear(x, w, outputs_first=True)
    with pytest.raises(DTypeError, match="never mixed"):
        linear(x, Half(tensor(np.ones((M, N)), backend, "float16"), DType.float32))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_kernel_gets_it_as_it_is_kept(bits: int) -> None:
    B = NumpyBackend()
    calls: list[Any] = []

    def forward(B: Backend, *raw: Any, **how: Any) -> Any:
        calls.append([x if x is None else (str(x.dtype), x.shape) for x in raw])
        return np.zeros((2, M), np.float32), None

    B.fused[f"linear_q{bits}"] = Fused(f"linear_q{bits}", forward)
    w, _ = weight(B, bits)
    x, _ = drawn(B, 2, N)
    linear(x, w, outputs_first=True)
    kept = ("int8", (M, N)) if bits == 8 else ("uint8", (M, N // 2))
    assert calls == [[("float32", (2, N)), kept, ("float32", (M, GROUPS)), None, None]]


@pytest.mark.parametrize("autograd", ["core", "native"])
def test_gradients_pass_through_a_product(backend: Backend, autograd: Any) -> None:
    if autograd == "native" and not backend.native_autograd:
        pytest.skip("no autograd of its own")
    x, _ = drawn(backend, 2, N)
    for w, meant in (weight(backend, 8), weight(backend, 4)):
        _, slope = value_and_grad(
            lambda x, w=w: linear(x, w, outputs_first=True).sum(), autograd=autograd
        )(x)
        assert_close(slope.numpy(), np.broadcast_to(meant.sum(0), (2, N)), DType.float32)


def test_it_is_not_trained(backend: Backend) -> None:
    w, _ = weight(backend, 8)
    x, _ = drawn(backend, 2, N)
    with pytest.raises(GradientError, match="kept as int8 and float32 has no gradients; train"):
        w.requires_grad_()
    with pytest.raises((DTypeError, GradientError), match="int8"):
        value_and_grad(lambda p: linear(x, p["w"], outputs_first=True).sum())({"w": w})


def test_its_parts_are_leaves(backend: Backend) -> None:
    w, meant = weight(backend, 4)
    nest = {"w": w, "b": tensor([1.0], backend)}
    found = tree.leaves(nest)
    assert [x.dtype for x in found] == ["uint8", "float32", "float32"]

    def doubled() -> Iterator[Tensor]:
        q, scales, b = found
        yield from (q, scales * 2.0, b)

    again = tree.like(nest, doubled())["w"]
    assert isinstance(again, Quantized) and again.shape == w.shape
    assert_close(again.numpy(), 2 * meant, DType.float32)


def test_it_moves_as_it_is_kept() -> None:
    here, there = NumpyBackend(), NumpyBackend()
    w, meant = weight(here, 4)
    moved = w.to(there)
    assert isinstance(moved, Quantized) and moved.backend is there
    assert moved.nbytes == w.nbytes == M * N // 2 + M * GROUPS * 4
    assert_close(moved.numpy(), meant, DType.float32)


# ---- halves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["float16", "bfloat16"])
@pytest.mark.parametrize("outputs_first", [False, True])
def test_a_product_with_halves(backend: Backend, kept: str, outputs_first: bool) -> None:
    numbers = np.random.default_rng(0).integers(-64, 64, (N, M)) / 32  # which both of them hold
    host = (numbers.T if outputs_first else numbers).astype(np.float32)
    w = Half(tensor(host, backend, kept), DType.float32)
    x, x_host = drawn(backend, 2, N)
    y = linear(x, w, outputs_first=outputs_first)
    assert (w.dtype, y.dtype, w.nbytes) == ("float32", "float32", N * M * 2)
    assert_close(y.numpy(), x_host @ numbers, DType.float32)
    ids = tensor([[2, 0]], backend)
    np.testing.assert_array_equal(embedding(w, ids).numpy(), host[[[2, 0]]])
    np.testing.assert_array_equal((w + 0.0).numpy(), host)
