"""Rounding to 8 and 4 bits: what comes back is near, and as near as it can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optional import torch

from tfx.core import quantization
from tfx.core.backend import HostArray
from tfx.core.dtypes import DType
from tfx.core.errors import WeightsError
from tfx.core.quantization import QuantizedArray, Rounding, packed, quantized, restored, unpacked
from tfx.core.weights import StoredTensor

EXACT = DType.float32  # of scales


def rounded(x: Any, bits: Any = 8, size: int = 8, scales: DType = EXACT, **how: Any) -> Any:
    tensor = StoredTensor(DType.float32, np.asarray(x, np.float32))
    return quantized("w", tensor, Rounding(bits, size, scales), **how)


def drawn(rows: int = 5, length: int = 32, seed: int = 0) -> HostArray:
    return np.random.default_rng(seed).standard_t(3, (rows, length)).astype(np.float32)


def squared_error(x: HostArray, found: QuantizedArray) -> float:
    return float(((x - found.array.astype(np.float64)) ** 2).sum())


NUMBERS = st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30)
"""Not so small that a scale would be subnormal."""


@given(arrays(np.int8, (3, 2, 6), elements=st.integers(-8, 7)))
def test_packing_is_undone(numbers: HostArray) -> None:
    assert packed(numbers).shape == (3, 2, 3)
    np.testing.assert_array_equal(unpacked(packed(numbers)), numbers)


@settings(deadline=None)
@given(
    arrays(np.float32, (2, 16), elements=NUMBERS),
    st.sampled_from([DType.float16, DType.float32]),
)
def test_eight_bits_are_off_by_half_a_scale_at_most(x: HostArray, scales: DType) -> None:
    found = rounded(x, scales=scales)
    by_group = x.reshape(2, 2, 8)
    wide = found.scales.astype(np.float64)[..., None]
    off = np.abs(found.array.reshape(2, 2, 8) - by_group.astype(np.float64))
    cut = np.maximum(np.abs(by_group) - 127 * wide, 0)  # where the scale was rounded down
    assert (off <= 0.5001 * wide + cut + 1e-30).all()


@settings(deadline=None)
@given(arrays(np.float32, (2, 16), elements=NUMBERS))
def test_four_bits_are_no_worse_than_the_plain_way(x: HostArray) -> None:
    by_group = x.reshape(2, 2, 8).astype(np.float64)
    scale = np.abs(by_group).max(-1, keepdims=True) / 7
    plain = np.clip(np.rint(by_group / np.where(scale, scale, 1)), -7, 7) * scale
    error = ((by_group - plain) ** 2).sum()
    assert squared_error(x, rounded(x, 4)) <= (1 + 1e-5) * error + 1e-12 * (by_group**2).sum()


def test_four_bits_are_nearly_the_best_there_are() -> None:
    x = drawn(40, 64)
    found = rounded(x, 4, 32)
    by_group = x.reshape(-1, 32).astype(np.float64)
    best = np.full(len(by_group), np.inf)
    top = np.abs(by_group).max(-1, keepdims=True)
    for divisor in np.concatenate([np.linspace(4, 10, 400), -np.linspace(4, 10, 400)]):
        scale = top / divisor
        off = by_group - np.clip(np.rint(by_group / scale), -8, 7) * scale
        best = np.minimum(best, (off**2).sum(-1))
    assert squared_error(x, found) <= 1.10 * best.sum()
    plain = top / 7
    naive = ((by_group - np.rint(by_group / plain) * plain) ** 2).sum()
    assert squared_error(x, found) < 0.8 * naive


@pytest.mark.parametrize("bits", [8, 4])
def test_what_lies_on_the_grid_comes_back_as_it_was(bits: Any) -> None:
    rng = np.random.default_rng(1)
    most = 127 if bits == 8 else 7
    numbers = rng.integers(-most, most + 1, (6, 4, 8))
    numbers[..., 3] = -most if bits == 8 else -8
    scales = 2.0 ** rng.integers(-6, 3, (6, 4, 1))
    x = (numbers * scales).reshape(6, 32).astype(np.float32)
    np.testing.assert_array_equal(rounded(x, bits).array, x)
    np.testing.assert_array_equal(rounded(x, bits, scales=DType.float16).array, x)


def test_eight_bits_are_those_of_torch() -> None:
    pytest.importorskip("torch")
    x = drawn(7, 16)
    found = rounded(x, size=16)
    scales, zeros = torch.tensor(found.scales[:, 0]), torch.zeros(7, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(torch.tensor(x), scales, zeros, 0, -127, 127)
    np.testing.assert_allclose(found.array, theirs.numpy(), rtol=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scales", [DType.float16, DType.float32])
def test_a_transpose_is_rounded_by_its_columns(bits: Any, scales: DType) -> None:
    x = drawn()
    plain, turned = rounded(x, bits, 16, scales), rounded(x.T, bits, 16, scales, inputs_first=True)
    assert (plain.shape, turned.shape) == ((5, 32), (32, 5))
    np.testing.assert_array_equal(turned.q, plain.q)
    np.testing.assert_array_equal(turned.array, plain.array.T)
    assert plain.scales.dtype == scales
    assert plain.nbytes == 5 * 32 * bits // 8 + 5 * 2 * scales.itemsize


@pytest.mark.parametrize("bits", [8, 4])
def test_parts_do_not_show(bits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(11)
    whole = rounded(x, bits)
    monkeypatch.setattr(quantization, "AT_ONCE", 70)
    parts = rounded(x, bits)
    np.testing.assert_array_equal(parts.q, whole.q)
    np.testing.assert_array_equal(parts.scales, whole.scales)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scales", [DType.float16, DType.float32])
@pytest.mark.filterwarnings("error")
def test_zeros_and_numbers_near_zero(bits: Any, scales: DType) -> None:
    x = np.zeros((3, 8), np.float32)
    x[1] = 1e-30
    x[2, 0] = -2e-8
    found = rounded(x, bits, scales=scales)
    assert np.isfinite(found.scales).all()
    np.testing.assert_allclose(found.array, x, atol=2e-8)
    assert not found.array[0].any()


def test_halves_are_rounded_by_their_values() -> None:
    x = drawn(2, 16)
    words = (x.view(np.uint32) >> 16).astype(np.uint16)
    half = StoredTensor(DType.bfloat16, words)
    found = quantized("w", half, Rounding(8, 8, EXACT))
    np.testing.assert_array_equal(found.array, rounded(half.to_float32()).array)
    wide = quantized("w", StoredTensor(DType.float64, x.astype(np.float64)), Rounding(8, 8, EXACT))
    np.testing.assert_array_equal(wide.array, rounded(x).array)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bits: Any, number: float) -> None:
    x = drawn()
    x[3, 4] = number
    with pytest.raises(WeightsError, match="'w' has numbers that are not finite"):
        rounded(x, bits)


@pytest.mark.parametrize("bits", [8, 4])
def test_scales_that_are_too_large(bits: Any) -> None:
    x = drawn()
    x[3, 4] = 1e8
    assert np.isfinite(rounded(x, bits).array).all()
    with pytest.raises(
        WeightsError, match=r"up to 1e\+08, too large for scales of float16; `tfx quantize` can"
    ):
        rounded(x, bits, scales=DType.float16)


def test_restored_is_what_the_ops_make_of_it() -> None:
    x = rounded(drawn(), 4, 16)
    assert restored(x.q, x.scales).dtype == x.to_float32().dtype == np.float32


@pytest.mark.parametrize(
    ("bits", "size", "length", "divides"),
    [(8, 64, 128, True), (8, 3, 9, True), (4, 3, 9, False), (8, 64, 96, False), (4, 2, 0, False)],
)
def test_groups_have_to_divide(bits: Any, size: int, length: int, divides: bool) -> None:
    assert Rounding(bits, size).divides(length) is divides
