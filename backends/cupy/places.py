"""Places on the device that stay where they are: graphs read and write by address."""

from __future__ import annotations

import weakref
from typing import Any
from weakref import WeakValueDictionary

import cupy

from tfx.core.backend import Array


def alias(x: Any) -> Any:
    """The same places without a claim to their memory; of a nest, all arrays in it."""
    if isinstance(x, cupy.ndarray):
        return _at(x, None)
    if type(x) in (tuple, list):
        return type(x)(map(alias, x))
    return {name: alias(part) for name, part in x.items()} if type(x) is dict else x


def _at(x: Array, owner: object) -> Array:
    low, high = cupy.byte_bounds(x)
    memory = cupy.cuda.UnownedMemory(low, high - low, owner, x.data.device_id)
    start = cupy.cuda.MemoryPointer(memory, x.data.ptr - low)
    return cupy.ndarray(x.shape, x.dtype, memptr=start, strides=x.strides)


def same_place(x: Array, y: Array) -> bool:
    return _at_what(x) == _at_what(y)


def _at_what(x: Array) -> tuple[Any, ...]:
    return x.data.ptr, x.shape, x.strides, x.dtype


def overlap(x: Array, y: Array) -> bool:
    """Whether two arrays may share memory."""
    (first, last), (begin, end) = cupy.byte_bounds(x), cupy.byte_bounds(y)
    return bool(first < end and begin < last)


def copy_to(place: Array, x: Array) -> None:
    """Copy, of the same shape and dtype, on the current stream."""
    if place.flags.c_contiguous and x.flags.c_contiguous:
        place.data.copy_from_device_async(x.data, x.nbytes)
    else:
        place[...] = x


class Home:
    """Where an input that is given up lies from run to run.

    What the caller holds of it is an array without a claim of its own: its guest. While the guest
    comes back as the next input, nothing is copied; while it, or a view of it, is alive elsewhere,
    nobody else may move in.
    """

    __slots__ = ("__weakref__", "_guest", "array")

    def __init__(self, array: Array) -> None:
        self.array = array
        self._guest: weakref.ref[Array] | None = None
        _homes[array.data.ptr] = self

    def _present(self) -> Array | None:
        return None if self._guest is None else self._guest()

    def admits(self, x: Array) -> bool:
        """Bring an input home; False where another still lives there."""
        guest = self._present()
        if guest is not x:
            if guest is not None:
                return False
            if not same_place(self.array, x):
                copy_to(self.array, x)
        return True

    def key(self) -> Array:
        """What the caller gets: the same array as long as it is in use."""
        guest = self._present()
        if guest is None:
            guest = _at(self.array, self)
            self._guest = weakref.ref(guest)
        return guest


_homes: WeakValueDictionary[int, Home] = WeakValueDictionary()
"""By address."""


_CUPYS_OWN = cupy.cuda.memory.PooledMemory, cupy.cuda.Memory, cupy.cuda.MemoryAsync
"""Memory that no other library has given, who may still write to it."""


def home_for(x: Array) -> Home:
    """The home whose guest an array is, or a new one: where the array lies, if all of that memory
    is its own."""
    known = _homes.get(x.data.ptr)
    if known is not None and known._present() is x:
        return known
    is_whole = x.base is None and x.flags.owndata and x.flags.c_contiguous
    can_stay = known is None and is_whole and isinstance(x.data.mem, _CUPYS_OWN)
    return Home(x.view() if can_stay else x.copy())
