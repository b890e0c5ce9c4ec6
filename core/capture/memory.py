"""The memory of captured programs: pieces that are lent out, given back and lent out again."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import count
from typing import Any

import numpy as np

from tfx.core.backend import HostArray

_ALIGNED = 64  # bytes: what a vector register or cache line holds


class Arena:
    """Hands out pieces of memory, and takes back those that are released."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int, HostArray]] = []  # by size, then by turn: the same calls
        self._turns = count()  # find the same pieces in every process

    def piece(self, size: int) -> HostArray:
        """So many bytes: the smallest free piece that has room and is not much larger, or new
        memory."""
        place = bisect_left(self._free, (size,))
        if place < len(self._free) and self._free[place][0] <= 2 * size + 4096:
            return self._free.pop(place)[2]
        rounded = -(-max(size, 1) // _ALIGNED) * _ALIGNED
        memory = np.empty(rounded + _ALIGNED, np.uint8)
        start = -memory.ctypes.data % _ALIGNED
        return np.frombuffer(memory.data, np.uint8, rounded, start)

    def release(self, piece: HostArray) -> None:
        """Have a piece for others. What was made of it keeps its place, and loses its numbers."""
        entry = (piece.size, next(self._turns), piece)
        self._free.insert(bisect_left(self._free, entry[:2]), entry)

    def release_all(self, pieces: list[HostArray]) -> None:
        for piece in pieces:
            self.release(piece)


def as_array(piece: HostArray, shape: tuple[int, ...], dtype: Any) -> HostArray:
    """An array at the beginning of a piece."""
    kind = np.dtype(dtype)
    array: HostArray = piece[: math.prod(shape) * kind.itemsize].view(kind).reshape(shape)
    return array


def owner(array: HostArray) -> int:
    """What tells the memory of an array from that of all others alive."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return id(array)
