"""Large arrays on the host that take over the memory of those that are gone.

The system hands out fresh memory page by page, cleared, as it is first touched: work that what is
new at every training step need not ask for each time. `empty` saves it for buffers as large as all
parameters, anywhere; `retained` for whatever any library allocates, where the C library can. What
is kept for the next step is no more than a step had in use at its height.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def give_back() -> None:
    """Let go of what was kept for the next request."""
    _free.clear()


# ---- all that is allocated -----------------------------------------------------------------------

# glibc's malloc.h. What it takes from the system piece by piece (mmap) goes back when it is freed;
# what lies in its heap stays, up to a threshold.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_HEAP_ALONE = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_USUAL = {_MMAP_MAX: 1 << 16, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}
"""Left to itself, glibc adapts the thresholds to what is freed; these are the most it comes to."""

_OF_THE_USER = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")

_lock = threading.Lock()
_retaining = 0


@contextmanager
def retained() -> Iterator[None]:
    """Inside, what anybody in this process frees is there for the next that allocates; at the end
    it goes back to the system.

    So from its second step on, a training loop gets memory that it has touched before. This is for
    Linux's glibc, and unless the user has set up its allocator by environment variables; elsewhere
    nothing changes. May be nested, and entered by several threads at a time.
    """
    global _retaining
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _retaining += 1
        _tune(libc.mallopt, _HEAP_ALONE)
    try:
        yield
    finally:
        with _lock:
            _retaining -= 1
            if not _retaining:
                _tune(libc.mallopt, _USUAL)
                libc.malloc_trim(0)


def _tune(mallopt: Callable[[int, int], Any], options: dict[int, int]) -> None:
    for option, value in options.items():
        mallopt(option, value)


def _glibc() -> Any:
    """The C library, where it is glibc and ours to set up."""
    import ctypes

    if any(name in os.environ for name in _OF_THE_USER):
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if libc.gnu_get_libc_version and libc.mallopt else None
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return None
