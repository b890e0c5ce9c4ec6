"""Faults around the results: of models as a whole, memory, transfers, threads and chance."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from broken_backends import broken
from broken_gradients import TapeBackend

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.dtypes import DType
from tfx.testing import Level

Array = Any

# ---- models ----------------------------------------------------------------------------------


@broken(Level.MODELS, "layer by layer")
class SavedInOnePlace(NumpyBackend):
    """The kernel of rms_norm keeps what its gradient needs in one place for all of its calls."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        sound = self.fused["rms_norm"]
        saved: list[Any] = [None]

        def forward(*args: Any, **how: Any) -> Any:
            out, saved[0] = sound.forward(*args, **how)
            return out, None

        def vjp(B: Any, g: Array, out: Array, _: None, *args: Any, **how: Any) -> Any:
            return sound.vjp and sound.vjp(B, g, out, saved[0], *args, **how)

        self.fused["rms_norm"] = replace(sound, forward=forward, vjp=vjp)


@broken(Level.MODELS, "layer by layer float32")
class SloppyProducts(NumpyBackend):
    """Each product of float32 is off by as much as one alone may be; in a model, that adds up."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        del self.fused["linear"], self.fused["attention"]

    def matmul(self, x: Array, y: Array) -> Array:
        out = super().matmul(x, y)
        return out * np.float32(1 + 8e-6) if out.dtype == np.float32 and out.size > 1 else out


# ---- transfers -------------------------------------------------------------------------------


@broken(Level.BEHAVIOUR, "no transfers in a training step core")
class ProductsOnTheHost(NumpyBackend):
    """matmul goes to the host and back."""

    def matmul(self, x: Array, y: Array) -> Array:
        dtype = self.dtype(x)
        return self.asarray(super().matmul(self.to_numpy(x), self.to_numpy(y)), dtype=dtype)


@broken(Level.BEHAVIOUR, "no transfers in a training step core")
class BitsFromTheHost(NumpyBackend):
    """random_bits draws on the host, and device_random is True."""

    def random_bits(self, counter: Array, **how: Any) -> Array:
        words = super().random_bits(self.to_numpy(counter), **how)
        return self.asarray(words, dtype=DType.int32)


@broken(Level.BEHAVIOUR, "no transfers in a training step native")
class GradientsByTheHost(TapeBackend):
    """Its own autograd takes the gradients to the host and back."""

    def walk_back(self, value: Any, leaves: Any) -> Any:
        grads = super().walk_back(value, leaves)
        return [None if g is None else self.asarray(self.to_numpy(g), dtype=g.dtype) for g in grads]


@broken(Level.BEHAVIOUR, "no transfers in a decoded token")
class StartByTheHost(NumpyBackend):
    """write fetches a start that is on the device."""

    def write(self, buffer: Array, slab: Array, start: Any, *, axis: int) -> Array:
        at = start if isinstance(start, int) else int(self.to_numpy(start))
        return super().write(buffer, slab, at, axis=axis)


@broken(Level.CONTRACT, "beyond the primitives")
class NeverReady(NumpyBackend):
    """synchronize fails."""

    def synchronize(self) -> None:
        raise RuntimeError("no stream")


# ---- the same again, threads and instances --------------------------------------------------


@broken(Level.BEHAVIOUR, "the same input gives the same bits")
class AnyOrder(NumpyBackend):
    """scatter_add adds in another order each time, and deterministic is True."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self._calls = itertools.count()

    def scatter_add(self, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
        if indices.ndim != 1:
            return super().scatter_add(x, indices, updates, axis=axis)
        order = np.random.default_rng(next(self._calls)).permutation(indices.size)
        return super().scatter_add(x, indices[order], updates.take(order, axis), axis=axis)


@broken(Level.BEHAVIOUR, "threads do not meet in a primitive")
class OneWorkspace(NumpyBackend):
    """matmul lays its arguments out in a workspace that all threads share."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self._workspace: dict[Any, Array] = {}

    def matmul(self, x: Array, y: Array) -> Array:
        return super().matmul(self._laid_out(x, "left"), self._laid_out(y, "right"))

    def _laid_out(self, x: Array, side: str) -> Array:
        place = self._workspace.setdefault((side, x.shape, x.dtype), np.empty_like(x))
        place[...] = x
        return place


@broken(Level.BEHAVIOUR, "two instances do not meet")
class OneArena(NumpyBackend):
    """full takes memory from an arena of the module, at places that each instance counts itself."""

    arena: ClassVar[dict[Any, Array]] = {}

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self._turn = itertools.count()

    def full(self, *, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        place = shape, dtype, next(self._turn)
        out = self.arena.setdefault(place, np.empty(shape, self._native[dtype]))
        out[...] = super().full(shape=shape, value=value, dtype=dtype)
        return out


# ---- memory ----------------------------------------------------------------------------------


@broken(Level.BEHAVIOUR, "write leaves the host and borrowed arrays")
class BorrowedForWriting(NumpyBackend):
    """What is borrowed may be written to."""

    def borrow(self, value: Array, *, dtype: DType) -> Array:
        return np.asarray(value, self._native[dtype])


# ---- random bits -----------------------------------------------------------------------------


@broken(Level.BEHAVIOUR, "random bits are the published ones")
class OtherGenerator(NumpyBackend):
    """random_bits are NumPy's, seeded by key and counter."""

    def random_bits(self, counter: Array, *, key: Any, shape: Any, bits: int) -> Array:
        rng = np.random.default_rng([*key, int(counter)])
        return np.asarray(rng.integers(0, 2**32, shape, np.uint32) >> (32 - bits)).view(np.int32)


@broken(Level.BEHAVIOUR, "random bits are the same everywhere")
class CounterIgnored(NumpyBackend):
    """random_bits takes every counter for 0."""

    def random_bits(self, counter: Array, **how: Any) -> Array:
        return super().random_bits(np.zeros_like(counter), **how)


@broken(Level.BEHAVIOUR, "random bits are the same everywhere")
class OneBitTooFew(NumpyBackend):
    """The lowest of the random bits is always 0."""

    def random_bits(self, counter: Array, **how: Any) -> Array:
        return np.asarray(super().random_bits(counter, **how) & -2)


@broken(Level.BEHAVIOUR, "random bits are the same everywhere")
class SignedShift(NumpyBackend):
    """random_bits shifts signed words, and so half of them are below 0."""

    def random_bits(self, counter: Array, *, key: Any, shape: Any, bits: int) -> Array:
        words = super().random_bits(counter, key=key, shape=shape, bits=32)
        return np.asarray(words >> (32 - bits))


@broken(Level.BEHAVIOUR, "random bits are the same everywhere")
class FirstWordsFirst(NumpyBackend):
    """random_bits gives the first words of all blocks, then the second ones."""

    def random_bits(self, counter: Array, *, key: Any, shape: Any, bits: int) -> Array:
        words = super().random_bits(counter, key=key, shape=(int(np.prod(shape)),), bits=bits)
        return np.concatenate([words[::2], words[1::2]]).reshape(shape)


@broken(Level.BEHAVIOUR, "a counter on the device draws anew")
class FrozenCounter(NumpyBackend):
    """random_bits keeps what it drew for a key and a shape."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self._drawn: dict[Any, Array] = {}

    def random_bits(self, counter: Array, **how: Any) -> Array:
        drawn = super().random_bits(counter, **how)
        return self._drawn.setdefault(tuple(how.items()), drawn).copy()
