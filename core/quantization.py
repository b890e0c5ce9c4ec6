"""Rounding weights to 8 or 4 bits, on the host.

The form is that of `tfx.core.quantized`: groups of neighbours in a row, a scale for each group, no
offset. A scale is rounded to the dtype it is kept in before anything is divided by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tfx.core.backend import HostArray
from tfx.core.dtypes import DType
from tfx.core.errors import WeightsError
from tfx.core.weights import StoredTensor

AT_ONCE = 2**18
"""So many numbers are rounded together: what is needed beside them then stays small."""


@dataclass(frozen=True)
class Rounding:
    """How the rows of a matrix are kept.

    Attributes:
        bits: of a number.
        group_size: how many neighbours in a row have one scale.
        scale_dtype: what a scale is rounded to.
    """

    bits: Literal[4, 8]
    group_size: int = 64
    scale_dtype: DType = DType.float16

    def divides(self, length: int) -> bool:
        """Whether rows of so many numbers fall into groups."""
        even = self.bits == 8 or self.group_size % 2 == 0  # two numbers a byte
        return even and length > 0 and length % self.group_size == 0

    def __str__(self) -> str:
        return f"int{self.bits} in groups of {self.group_size}"


class QuantizedArray(StoredTensor):
    """A matrix on the host as whole numbers and scales, where a file's tensors of floats stand.

    Attributes:
        q: int8 (rows, n), or uint8 (rows, n / 2) with two numbers a byte.
        scales: floats (rows, groups).
        inputs_first: whether it stands for the transpose, (n, rows).
        dtype, array: float32, and the numbers it stands for, made anew at each use.
    """

    q: HostArray
    scales: HostArray
    inputs_first: bool

    def __init__(self, q: HostArray, scales: HostArray, *, inputs_first: bool = False) -> None:
        values = {"dtype": DType.float32, "q": q, "scales": scales, "inputs_first": inputs_first}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        rows, length = self.q.shape
        shape = rows, length if self.q.dtype == np.int8 else 2 * length
        return shape[::-1] if self.inputs_first else shape

    @property
    def array(self) -> NDArray[Any]:
        rows = restored(self.q, self.scales)
        return rows.T if self.inputs_first else rows

    def to_float32(self) -> NDArray[np.float32]:
        return self.array

    @property
    def nbytes(self) -> int:
        return self.q.nbytes + self.scales.nbytes


def quantized(
    name: str, tensor: StoredTensor, rounding: Rounding, *, inputs_first: bool = False
) -> QuantizedArray:
    """A matrix (rows, n) of floats, rounded; (n, rows) where `inputs_first`.

    Of 8 bits, the largest of a group becomes 127 or -127. Of 4, several scales are tried, and each
    is bettered once by least squares; the one with the smallest squared error is kept.

    Raises:
        WeightsError: a number is not finite, or too large for its scale. Groups have to divide n.
    """
    m, n = tensor.shape[::-1] if inputs_first else tensor.shape
    groups, size = n // rounding.group_size, rounding.group_size
    scales = np.empty((m, groups), rounding.scale_dtype.value)
    q = np.empty((m, n), np.int8) if rounding.bits == 8 else np.empty((m, n // 2), np.uint8)
    for start, rows in _in_parts(tensor, inputs_first):
        if not np.isfinite(rows).all():
            raise WeightsError(f"{name!r} has numbers that are not finite; they have no rounding")
        by_group = rows.reshape(len(rows), groups, size)
        round_, part = (_to_8 if rounding.bits == 8 else _to_4), slice(start, start + len(rows))
        with np.errstate(over="ignore", invalid="ignore"):
            numbers, found = round_(by_group, _rounded_to(scales.dtype))
        if not np.isfinite(found).all():
            raise WeightsError(
                f"{name!r} has numbers up to {np.abs(rows).max():.3g}, too large for scales of "
                f"{rounding.scale_dtype}; `tfx quantize` can keep scales in float32"
            )
        scales[part] = found[..., 0]
        q[part] = (numbers if rounding.bits == 8 else packed(numbers)).reshape(len(rows), -1)
    return QuantizedArray(q, scales, inputs_first=inputs_first)


def restored(q: HostArray, scales: HostArray) -> NDArray[np.float32]:
    """What whole numbers with scales stand for: (rows, n).

    >>> restored(np.array([[1, -3]], np.int8), np.array([[2.0]])).tolist()
    [[2.0, -6.0]]
    """
    by_group = q.reshape(*scales.shape, q.shape[1] // scales.shape[1])
    numbers = by_group if q.dtype == np.int8 else unpacked(by_group)
    wide: NDArray[np.float32] = numbers.astype(np.float32)
    wide *= scales.astype(np.float32)[..., None]
    return wide.reshape(len(q), -1)


def packed(numbers: HostArray) -> NDArray[np.uint8]:
    """Numbers -8 to 7, (..., G), as bytes (..., G / 2): the second half of them in upper halves.

    >>> packed(np.array([-8, -7, 7, 0])).tolist()
    [240, 129]
    """
    lower, upper = np.split((numbers + 8).astype(np.uint8), 2, axis=-1)
    upper <<= 4
    pairs: NDArray[np.uint8] = lower | upper
    return pairs


def unpacked(pairs: HostArray) -> NDArray[np.int8]:
    """The inverse of `packed`.

    >>> unpacked(packed(np.array([-8, -7, 7, 0]))).tolist()
    [-8, -7, 7, 0]
    """
    return np.concatenate([pairs & 15, pairs >> 4], axis=-1).astype(np.int8) - np.int8(8)


# ---- a few rows, (rows, groups, G) ---------------------------------------------------------------

Groups = NDArray[np.float32]
Scales = NDArray[np.float32]
"""(rows, groups, 1)."""

Kept = Callable[[Scales], Scales]
"""What becomes of scales when they are kept."""

_DIVISORS = (-8.0, -8.5, -7.5, -7.0, -6.5, -6.0)
"""What the most extreme number of a group becomes, of 4 bits. There is a -8 and no 8, so a scale
has the opposite sign; at -8.5 that number is cut off in favour of the others."""


def _to_8(x: Groups, kept: Kept) -> tuple[Groups, Scales]:
    scale = kept(np.abs(x).max(-1, keepdims=True) / 127)
    return _whole(x, scale, -127, 127), scale


def _to_4(x: Groups, kept: Kept) -> tuple[Groups, Scales]:
    where = np.abs(x).argmax(-1)[..., None]
    extreme = np.take_along_axis(x, where, -1)
    numbers, scale = _fitted(x, kept(extreme / _DIVISORS[0]), kept)
    least = _squared_error(x, numbers, scale)
    for divisor in _DIVISORS[1:]:
        others, other = _fitted(x, kept(extreme / divisor), kept)
        error = _squared_error(x, others, other)
        better = error < least
        least, scale = np.where(better, error, least), np.where(better, other, scale)
        np.copyto(numbers, others, where=better)
    return numbers, scale


def _fitted(x: Groups, scale: Scales, kept: Kept) -> tuple[Groups, Scales]:
    """Numbers by a scale, and the scale that suits these numbers best."""
    numbers = _whole(x, scale, -8, 7)
    squares = np.einsum("rgi,rgi->rg", numbers, numbers)[..., None]
    products = np.einsum("rgi,rgi->rg", x, numbers)[..., None]
    return numbers, np.where(squares > 0, kept(products / np.maximum(squares, 1)), scale)


def _whole(x: Groups, scale: Scales, low: int, high: int) -> Groups:
    numbers = x / np.where(scale == 0, np.float32(1), scale)  # a scale of 0 is one of zeros
    return np.clip(np.rint(numbers, out=numbers), low, high).astype(np.float32, copy=False)


def _squared_error(x: Groups, numbers: Groups, scale: Scales) -> NDArray[np.float32]:
    off = x - numbers * scale
    errors: NDArray[np.float32] = np.einsum("rgi,rgi->rg", off, off)
    return errors[..., None]


def _rounded_to(dtype: np.dtype[Any]) -> Kept:
    """Scales as they are kept; one that would vanish becomes the smallest there is instead."""
    tiny = np.finfo(dtype).smallest_subnormal

    def kept(scale: Scales) -> Scales:
        rounded = scale.astype(dtype)
        vanished = (rounded == 0) & (scale != 0)
        return np.where(vanished, np.copysign(tiny, scale), rounded).astype(np.float32)

    return kept


def _in_parts(tensor: StoredTensor, inputs_first: bool) -> Iterator[tuple[int, Groups]]:
    """A matrix by some rows at a time, each with the number of its first row."""
    array = tensor.array.T if inputs_first else tensor.array
    count = max(1, AT_ONCE // array.shape[1])
    for start in range(0, len(array), count):
        part = StoredTensor(tensor.dtype, np.ascontiguousarray(array[start : start + count]))
        if tensor.dtype is DType.float64:
            yield start, part.array.astype(np.float32)
        else:
            yield start, part.to_float32()
