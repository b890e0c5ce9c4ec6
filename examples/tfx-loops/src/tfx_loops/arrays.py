"""What an array is: a row of cells, and a rule for where in the row each element lies.

Element [i, j] of a matrix is `cells[offset + i * strides[0] + j * strides[1]]`, and so on for any
number of axes. To transpose, to cut out or to repeat is another rule over the same cells; nothing
is copied. To read an array is to walk its places in order.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tfx.core.dtypes import DType

Number = int | float
Shape = tuple[int, ...]

CODES = {
    DType.bool: "b",  # 0 and 1
    DType.uint8: "B",
    DType.int8: "b",
    DType.int32: "i",
    DType.int64: "q",
    DType.float32: "f",
    DType.float64: "d",
}
"""The type code that Python's `array` module has for cells of each dtype."""


@dataclass(frozen=True, eq=False, slots=True)
class Array:
    """Numbers of one dtype. `strides[i]` is how many cells lie between neighbours along axis i."""

    cells: array[Any]
    dtype: DType
    shape: Shape
    strides: Shape
    offset: int = 0

    @classmethod
    def of(cls, numbers: Iterable[Number], shape: Shape, dtype: DType) -> Array:
        """A new array of these numbers, given in C order. Floats are rounded, integers wrap."""
        if dtype.is_integer:
            numbers = wrapped(numbers, dtype)
        return cls(array(CODES[dtype], numbers), dtype, shape, row_major(shape))

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def in_order(self) -> bool:
        """Whether the elements lie side by side, in C order."""
        return self.strides == row_major(self.shape)

    @property
    def steps(self) -> list[Sequence[int]]:
        """For each axis, how far each index lies from the first."""
        return [
            [index * stride for index in range(length)]
            for length, stride in zip(self.shape, self.strides, strict=True)
        ]

    def numbers(self) -> list[Any]:
        """The elements in C order, which turns the last index fastest: ints or floats."""
        if self.in_order:
            return self.cells[self.offset : self.offset + self.size].tolist()
        if not any(self.strides):  # one cell stands for all of them
            return [self.cells[self.offset]] * self.size
        return [self.cells[place] for place in places(self.offset, self.steps)]

    def assign(self, numbers: Iterable[Number]) -> None:
        """Put other numbers, in C order, in place of the elements."""
        for place, number in zip(places(self.offset, self.steps), numbers, strict=True):
            self.cells[place] = number


def places(offset: int, steps: Iterable[Sequence[int]]) -> list[int]:
    """The offset plus one step of each axis, in every combination, the last axis turning fastest.

    >>> places(100, [[0, 10], [0, 1, 2]])
    [100, 101, 102, 110, 111, 112]
    """
    found = [offset]
    for axis in steps:
        found = [place + step for place in found for step in axis]
    return found


def row_major(shape: Shape) -> Shape:
    """The strides of an array that lies in C order.

    >>> row_major((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def broadcast_shape(shapes: Iterable[Shape]) -> Shape:
    """The shape that all of these can be repeated to; ValueError where there is none.

    >>> broadcast_shape([(4, 1), (2, 1, 3)])
    (2, 4, 3)
    """
    together: Shape = ()
    for shape in shapes:
        rank = max(len(together), len(shape))
        pairs = zip(_at_rank(together, rank), _at_rank(shape, rank), strict=True)
        together = tuple(_common_length(*pair) for pair in pairs)
    return together


def _at_rank(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


def _common_length(one: int, other: int) -> int:
    if one != other and 1 not in (one, other):
        raise ValueError(f"lengths {one} and {other} do not broadcast")
    return other if one == 1 else one


def wrapped(numbers: Iterable[Number], dtype: DType) -> Iterable[Number]:
    """Integers modulo 2**bits, as those of `dtype`.

    >>> list(wrapped([127, 128, -129], DType.int8))
    [127, -128, 127]
    """
    count = 1 << 8 * dtype.itemsize
    lowest = 0 if dtype is DType.uint8 else -count // 2
    return ((number - lowest) % count + lowest for number in numbers)
