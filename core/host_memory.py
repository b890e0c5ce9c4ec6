"""Large arrays on the host that take over the memory of those that are gone.

The system hands out fresh memory page by page, cleared, as it is first touched: work that a
parameter buffer, new at every training step, need not ask for each time. What is kept for the next
step is no more than a step had in use at its height.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LARGE = 1 << 22
"""Bytes. Below, the C library's allocator does as well."""

SPARE = 4
"""How many pieces are kept: a training step takes a gradient, parameters and two moments."""


class _Lease:
    """Lends out memory: arrays made from it hold it as their base, and with the last of them it
    goes, and gives the memory back."""

    def __init__(self, memory: npt.NDArray[np.uint8]) -> None:
        self._memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        if len(_free) < SPARE:
            _free.append(self._memory)


_free: list[npt.NDArray[np.uint8]] = []
"""What was given back; of one size, that of the latest request."""


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array with whatever is in its memory.

    >>> x = empty((1000, 1000), np.float64)
    >>> where = x.ctypes.data
    >>> del x
    >>> empty((1000000,), np.float64).ctypes.data == where
    True
    """
    fresh = np.empty(shape, dtype)
    size = fresh.nbytes
    if size < LARGE:
        return fresh
    kind = fresh.dtype
    del fresh  # not a page of it was touched
    try:
        memory = _free.pop()
    except IndexError:
        memory = np.empty(size, np.uint8)
    if memory.size != size:
        _free.clear()
        memory = np.empty(size, np.uint8)
    return np.asarray(_Lease(memory)).view(kind).reshape(shape)
