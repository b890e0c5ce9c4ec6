"""Faults of primitives whose results have the right shape and dtype, and wrong values."""

from __future__ import annotations

from typing import Any

import numpy as np
from broken_backends import broken

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.dtypes import DType
from tfx.testing import Level

Array = Any


# ---- elementwise ---------------------------------------------------------------------


@broken(Level.VALUES, "exp float64")
class RoughExp(NumpyBackend):
    """exp is good to six digits."""

    def exp(self, x: Array) -> Array:
        return np.asarray(np.exp(x) * (1 + 1e-6))


@broken(Level.VALUES, "full")
class NarrowFull(NumpyBackend):
    """full of float64 goes through float32."""

    def full(self, *, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        narrow = np.float32(value) if dtype is DType.float64 else value
        return super().full(shape=shape, value=float(narrow), dtype=dtype)


@broken(Level.VALUES, "pow float64")
class NarrowExponents(NumpyBackend):
    """pow reads its exponent as a float32."""

    def pow(self, x: Array, *, exponent: float) -> Array:
        return super().pow(x, exponent=float(np.float32(exponent)))


@broken(Level.VALUES, "large integers")
class IntegersAsFloats(NumpyBackend):
    """A number beside integers goes through float64."""

    def mul(self, x: Any, y: Any) -> Array:
        y = int(float(y)) if isinstance(y, int) else y
        return super().mul(x, y)


@broken(Level.VALUES, "matmul of shapes")
class UnfinishedRefusal(NumpyBackend):
    """matmul says of shapes that do not fit that it is not written yet."""

    def matmul(self, x: Array, y: Array) -> Array:
        if x.shape[-1] != y.shape[-2]:
            raise NotImplementedError("matmul")
        return super().matmul(x, y)


@broken(Level.VALUES, "numbers far from one")
class SmallIsNothing(NumpyBackend):
    """div takes what is below 1e-20 for zero."""

    def div(self, x: Any, y: Any) -> Array:
        out = super().div(x, y)
        return np.where(np.abs(out) < 1e-20, 0 * out, out)


@broken(Level.VALUES, "sqrt float64")
class NarrowSqrt(NumpyBackend):
    """sqrt of float64 goes through float32."""

    def sqrt(self, x: Array) -> Array:
        return np.asarray(np.sqrt(x.astype(np.float32)).astype(x.dtype))


@broken(Level.VALUES, "tanh")
class TanhByExp(NumpyBackend):
    """tanh is made of exp, and infinity over infinity for large numbers."""

    def tanh(self, x: Array) -> Array:
        e = np.exp(2 * x)
        return np.asarray((e - 1) / (e + 1))


@broken(Level.VALUES, "neg")
class OddLayoutsForgotten(NumpyBackend):
    """neg reads its argument in the order of memory."""

    def neg(self, x: Array) -> Array:
        return np.negative(np.ravel(x, order="K")).reshape(x.shape)


@broken(Level.VALUES, "exp")
class LostRemainder(NumpyBackend):
    """exp goes by blocks of 64, and forgets what is left after the last whole one."""

    def exp(self, x: Array) -> Array:
        out = np.asarray(np.exp(x))
        if out.size > 64:
            out.reshape(-1)[out.size // 64 * 64 :] = 0
        return out


@broken(Level.VALUES, "pow")
class PowByLog(NumpyBackend):
    """pow goes through log, which negative numbers lack."""

    def pow(self, x: Array, *, exponent: float) -> Array:
        return np.asarray(np.exp(exponent * np.log(x)))


@broken(Level.VALUES, "quotients")
class DivByReciprocal(NumpyBackend):
    """div multiplies with the reciprocal, and so rounds twice."""

    def div(self, x: Array, y: Array) -> Array:
        by_array = isinstance(y, np.ndarray)
        return super().mul(x, super().div(1.0, y)) if by_array else super().div(x, y)


@broken(Level.VALUES, "maximum")
class MaximumWithoutNaN(NumpyBackend):
    """maximum passes over NaN."""

    def maximum(self, x: Array, y: Array) -> Array:
        return np.asarray(np.fmax(x, y))


@broken(Level.VALUES, "less")
class LessWithNaN(NumpyBackend):
    """less is "not greater or equal", and so holds beside NaN."""

    def less(self, x: Array, y: Array) -> Array:
        return np.asarray(np.logical_not(np.greater_equal(x, y)))


@broken(Level.VALUES, "equal")
class NaNIsItself(NumpyBackend):
    """NaN equals NaN."""

    def equal(self, x: Array, y: Array) -> Array:
        return np.asarray(np.equal(x, y) | (np.not_equal(x, x) & np.not_equal(y, y)))


@broken(Level.VALUES, "equal")
class NearlyEqual(NumpyBackend):
    """equal is lenient."""

    def equal(self, x: Array, y: Array) -> Array:
        return np.asarray(np.isclose(x, y, rtol=1e-6, atol=0))


@broken(Level.VALUES, "where")
class WhereByProducts(NumpyBackend):
    """where is a sum of products with 0 and 1, to which NaN and infinity matter everywhere."""

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        dtype = (x if isinstance(x, np.ndarray) else y).dtype
        yes, no = condition.astype(dtype), (~condition).astype(dtype)
        return np.asarray((yes * x + no * y).astype(dtype))


@broken(Level.VALUES, "add of shapes that do not fit")
class ResizesToFit(NumpyBackend):
    """add repeats whatever is too short."""

    def add(self, x: Array, y: Array) -> Array:
        try:
            return super().add(x, y)
        except ValueError:
            return x + np.resize(y, x.shape)


@broken(Level.VALUES, "integers wrap uint8")
class Saturated(NumpyBackend):
    """uint8 stays at 255 instead of going around."""

    def add(self, x: Array, y: Array) -> Array:
        out = super().add(x, y)
        if out.dtype == np.uint8:
            out[np.add(x, y, dtype=np.int64) > 255] = 255
        return out


# ---- between dtypes, and to and from the host ---------------------------------------


@broken(Level.VALUES, "floats to integers truncate")
class CastRounds(NumpyBackend):
    """cast rounds to the nearest integer."""

    def cast(self, x: Array, *, dtype: DType) -> Array:
        rounds = dtype.is_integer and x.dtype.kind == "f"
        return super().cast(np.rint(x) if rounds else x, dtype=dtype)


@broken(Level.VALUES, "to bool ask for zero")
class TruthBySign(NumpyBackend):
    """cast to bool asks for numbers above 0."""

    def cast(self, x: Array, *, dtype: DType) -> Array:
        return np.asarray(x > 0) if dtype is DType.bool else super().cast(x, dtype=dtype)


@broken(Level.VALUES, "overflow to infinity")
class CastSaturates(NumpyBackend):
    """cast to float16 ends at its largest number."""

    def cast(self, x: Array, *, dtype: DType) -> Array:
        narrow = dtype is DType.float16 and x.dtype.kind == "f"
        return super().cast(np.clip(x, -65504, 65504) if narrow else x, dtype=dtype)


@broken(Level.VALUES, "bfloat16 words")
class TruncatedBfloat16(NumpyBackend):
    """cast to bfloat16 cuts the lower half off."""

    def _to_bfloat16(self, x: Array) -> Array:
        return np.asarray((x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16))


@broken(Level.VALUES, "asarray and to numpy copy")
class SharedWithHost(NumpyBackend):
    """asarray shares the memory of what it is given."""

    def asarray(self, value: Array, *, dtype: DType) -> Array:
        return np.asarray(value, dtype=self._native[dtype])


@broken(Level.VALUES, "asarray and to numpy copy")
class WindowOnTheDevice(NumpyBackend):
    """to_numpy gives a view."""

    def to_numpy(self, x: Array) -> Array:
        return x.view()


@broken(Level.VALUES, "host arrays of any layout")
class LittleEndianOnly(NumpyBackend):
    """asarray takes the bytes of big-endian numbers for little-endian ones."""

    def asarray(self, value: Array, *, dtype: DType) -> Array:
        native = self._native[dtype]
        if value.dtype.kind == native.kind and value.dtype.itemsize == native.itemsize:
            return np.array(value, order="C").view(native)
        return super().asarray(value, dtype=dtype)


# ---- reductions and products -------------------------------------------------------


@broken(Level.VALUES, "argmax")
class LastOfEquals(NumpyBackend):
    """argmax gives the last of equals."""

    def argmax(self, x: Array, *, axis: int) -> Array:
        return np.asarray(x.shape[axis] - 1 - np.argmax(np.flip(x, axis), axis=axis))


@broken(Level.VALUES, "argmax finds what stands far out")
class IndexInAByte(NumpyBackend):
    """argmax counts to 255."""

    def argmax(self, x: Array, *, axis: int) -> Array:
        return np.asarray(super().argmax(x, axis=axis) & 255)


@broken(Level.VALUES, "max")
class MaxWithoutNaN(NumpyBackend):
    """max passes over NaN."""

    def max(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(np.fmax.reduce(x, axis=axis, keepdims=keepdims))


@broken(Level.VALUES, "sum")
class FirstBlockSummed(NumpyBackend):
    """sum over the last axis ends after 128 elements."""

    def sum(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        short = x[..., :128] if x.ndim and x.ndim - 1 in axis else x
        return super().sum(short, axis=axis, keepdims=keepdims)


@broken(Level.VALUES, "sums and products of float16")
class HalfSums(NumpyBackend):
    """float16 is added up in float16."""

    def sum(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        if x.dtype == np.float16 and x.size and len(axis) == 1 and not keepdims:
            return np.add.accumulate(x, axis[0]).take(-1, axis[0])
        return super().sum(x, axis=axis, keepdims=keepdims)


@broken(Level.VALUES, "sums and products of float16")
class HalfProducts(NumpyBackend):
    """Products of float16 are rounded after each of their terms."""

    def matmul(self, x: Array, y: Array) -> Array:
        out = super().matmul(x, y)
        if x.dtype == np.float16:
            out = out * np.float16(0)
            for i in range(x.shape[-1]):
                out += x[..., :, i : i + 1] * y[..., i : i + 1, :]
        return out


@broken(Level.VALUES, "products of float32 are true float32")
class TensorFloat32(NumpyBackend):
    """Products of float32 keep ten bits of the fraction."""

    def matmul(self, x: Array, y: Array) -> Array:
        return super().matmul(_ten_bits(x), _ten_bits(y))


def _ten_bits(x: Array) -> Array:
    if x.dtype != np.float32:
        return x
    words = np.array(x, order="C").view(np.uint32)
    return ((words + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


@broken(Level.VALUES, "matmul")
class TransposedInABatch(NumpyBackend):
    """matmul of two batches of square matrices takes the second transposed."""

    def matmul(self, x: Array, y: Array) -> Array:
        square = x.ndim == y.ndim == 3 and x.shape[1:] == y.shape[1:] == y.shape[:0:-1]
        return super().matmul(x, y.swapaxes(1, 2) if square else y)


@broken(Level.VALUES, "matmul")
class FirstOfABatch(NumpyBackend):
    """matmul of a matrix and a batch takes the first of the batch for all."""

    def matmul(self, x: Array, y: Array) -> Array:
        alone = x.ndim == 2 < y.ndim
        return super().matmul(x, np.broadcast_to(y[:1], y.shape) if alone else y)


# ---- shape, index and memory -------------------------------------------------------


@broken(Level.VALUES, "reshape")
class ReshapeInAnyOrder(NumpyBackend):
    """reshape of a transposed array takes the elements column by column."""

    def reshape(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        return x.reshape(shape, order="A")


@broken(Level.VALUES, "slice")
class SliceOnAGrid(NumpyBackend):
    """A slice with a step begins at a multiple of it."""

    def slice(self, x: Array, *, starts: Any, stops: Any, steps: Any) -> Array:
        counts = [len(range(*cut)) for cut in zip(starts, stops, steps, strict=True)]
        begins = [a - a % step for a, step in zip(starts, steps, strict=True)]
        ends = [a + n * step for a, n, step in zip(begins, counts, steps, strict=True)]
        return super().slice(x, starts=begins, stops=ends, steps=steps)  # type: ignore[arg-type]


@broken(Level.VALUES, "pad")
class PadsWithZeros(NumpyBackend):
    """pad does not look at its value."""

    def pad(self, x: Array, *, widths: Any, value: float) -> Array:
        return super().pad(x, widths=widths, value=0)


@broken(Level.VALUES, "take")
class IndicesByColumn(NumpyBackend):
    """take reads a table of indices column by column."""

    def take(self, x: Array, indices: Array, *, axis: int) -> Array:
        return super().take(x, indices.ravel("F").reshape(indices.shape), axis=axis)


@broken(Level.VALUES, "take")
class IndicesOfAByte(NumpyBackend):
    """take looks at the last byte of an index."""

    def take(self, x: Array, indices: Array, *, axis: int) -> Array:
        return super().take(x, indices & 255, axis=axis)


@broken(Level.VALUES, "scatter_add")
class LastUpdateWins(NumpyBackend):
    """scatter_add keeps one of the updates of a repeated index."""

    def scatter_add(self, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
        out = x.copy()
        out[(slice(None),) * axis + (indices,)] += updates
        return out


@broken(Level.VALUES, "concat of one is a new array")
class ConcatOfOne(NumpyBackend):
    """concat of one array is that array."""

    def concat(self, *xs: Array, axis: int) -> Array:
        return xs[0] if len(xs) == 1 else super().concat(*xs, axis=axis)


@broken(Level.VALUES, "write")
class WriteOffByOne(NumpyBackend):
    """write begins one further, where there is room."""

    def write(self, buffer: Array, slab: Array, start: Any, *, axis: int) -> Array:
        room = buffer.shape[axis] - slab.shape[axis]
        return super().write(buffer, slab, min(int(start) + 1, room), axis=axis)


@broken(Level.VALUES, "write")
class StartOnTheHost(NumpyBackend):
    """write takes a start that is an array for 0."""

    def write(self, buffer: Array, slab: Array, start: Any, *, axis: int) -> Array:
        return super().write(buffer, slab, start if isinstance(start, int) else 0, axis=axis)


@broken(Level.VALUES, "write")
class BufferReturned(NumpyBackend):
    """write returns the buffer without the slab."""

    def write(self, buffer: Array, slab: Array, start: Any, *, axis: int) -> Array:
        super().write(buffer.copy(), slab, start, axis=axis)
        return buffer


@broken(Level.VALUES, "write into a repeated row")
class WriteRepeats(NumpyBackend):
    """write into one of several rows that share their memory changes all of them."""

    def broadcast_to(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        strides = super().broadcast_to(x, shape=shape).strides
        return np.lib.stride_tricks.as_strided(x, shape, strides)

    def _can_write(self, x: Array) -> bool:
        return bool(x.flags.writeable)


@broken(Level.VALUES, "results stay")
class OneScratchArray(NumpyBackend):
    """mul gives the same array each time, with new contents."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self._outs: dict[Any, Array] = {}

    def mul(self, x: Array, y: Array) -> Array:
        fresh = super().mul(x, y)
        out = self._outs.setdefault((fresh.shape, fresh.dtype), fresh)
        out[...] = fresh
        return out


@broken(Level.VALUES, "results stay")
class ZerosKept(NumpyBackend):
    """full hands out one array for all calls that are alike, to be written into."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self._made: dict[Any, Array] = {}

    def full(self, *, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        fresh = super().full(shape=shape, value=value, dtype=dtype)
        return self._made.setdefault((shape, str(value), dtype), fresh)
