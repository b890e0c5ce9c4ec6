"""`ArrayBackend`: nearly every primitive, written once for array modules shaped like NumPy."""

from __future__ import annotations

import math
from typing import Any

from tfx.core import threefry
from tfx.core.backend import Array, Backend, HostArray, Operand
from tfx.core.dtypes import DType, as_dtype


class ArrayBackend(Backend):
    """A backend over `xp`, a module with NumPy's functions (NumPy 2 promotion rules).

    A subclass says how an array reaches the host (`to_numpy`), and overrides what its library does
    otherwise. bfloat16 is storage: uint16 words, the upper halves of float32 numbers.
    """

    dtypes = frozenset(set(DType) - {DType.bfloat16})
    storage_dtypes = frozenset({DType.bfloat16})
    device_random = True

    def __init__(self, xp: Any) -> None:
        super().__init__()
        self.xp = xp
        self._ndarray = xp.ndarray
        names = {d: "uint16" if d is DType.bfloat16 else str(d) for d in DType}
        self._native = {d: xp.dtype(name) for d, name in names.items()}
        self._dtype_of = {native: d for d, native in self._native.items()}

    def is_array(self, x: object) -> bool:
        return isinstance(x, self._ndarray)

    def native(self, dtype: DType) -> Any:
        """The library's own name for an element type."""
        return self._native[dtype]

    def shape(self, x: Array) -> tuple[int, ...]:
        return x.shape  # type: ignore[no-any-return]

    def dtype(self, x: Array) -> DType:
        return self._dtype_of[x.dtype]

    def _array(self, x: Any) -> Array:
        """NumPy gives scalars where an array has no axes; primitives never do."""
        return x if type(x) is self._ndarray else self.xp.asarray(x)

    def from_dlpack(self, x: Any) -> Array:
        raw = self.xp.from_dlpack(x)
        as_dtype(raw.dtype.name)  # uint16 is no dtype, although bfloat16's words are kept in it
        return raw

    # ---- arrays ------------------------------------------------------------------------

    def asarray(self, value: HostArray, *, dtype: DType) -> Array:
        if dtype is DType.bfloat16 and value.dtype != "uint16":
            return self.cast(self.xp.asarray(value, dtype="float32"), dtype=dtype)
        return self.xp.array(value, dtype=self._native[dtype], order="C")

    def full(self, *, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        if dtype is DType.bfloat16:
            return self.cast(self.xp.full(shape, value, "float32"), dtype=dtype)
        if value == 0 and math.copysign(1, value) > 0:
            return self.xp.zeros(shape, self._native[dtype])  # no memory before it is written to
        return self.xp.full(shape, value, self._native[dtype])

    def arange(self, *, stop: int) -> Array:
        return self.xp.arange(stop, dtype=self._native[self.index_dtype])

    def cast(self, x: Array, *, dtype: DType) -> Array:
        if x.dtype == self._native[dtype]:
            return x
        if dtype is DType.bfloat16:
            return self._to_bfloat16(x)
        if x.dtype == self._native[DType.bfloat16]:
            wide = self._array(x.astype("uint32") << 16).view("float32")
            return wide.astype(self._native[dtype], copy=False)
        return x.astype(self._native[dtype])

    def _to_bfloat16(self, x: Array) -> Array:
        """Round to nearest, ties to even, by adding half of the last place that stays."""
        words = x.astype("float32").view("uint32")
        rounded = (words + 0x7FFF + ((words >> 16) & 1)) >> 16
        quiet_nan = (words >> 16) | 0x40
        is_nan = (words & 0x7FFFFFFF) > 0x7F800000
        return self._array(self.xp.where(is_nan, quiet_nan, rounded).astype("uint16"))

    # ---- elementwise ---------------------------------------------------------------------

    def neg(self, x: Array) -> Array:
        return self._array(self.xp.negative(x))

    def exp(self, x: Array) -> Array:
        return self._array(self.xp.exp(x))

    def log(self, x: Array) -> Array:
        return self._array(self.xp.log(x))

    def tanh(self, x: Array) -> Array:
        return self._array(self.xp.tanh(x))

    def sqrt(self, x: Array) -> Array:
        return self._array(self.xp.sqrt(x))

    def add(self, x: Operand, y: Operand) -> Array:
        return self._array(self.xp.add(x, y))

    def sub(self, x: Operand, y: Operand) -> Array:
        return self._array(self.xp.subtract(x, y))

    def mul(self, x: Operand, y: Operand) -> Array:
        return self._array(self.xp.multiply(x, y))

    def div(self, x: Operand, y: Operand) -> Array:
        return self._array(self.xp.true_divide(x, y))

    def pow(self, x: Array, *, exponent: float) -> Array:
        return self._array(self.xp.power(x, exponent))

    def maximum(self, x: Operand, y: Operand) -> Array:
        return self._array(self.xp.maximum(x, y))

    def less(self, x: Operand, y: Operand) -> Array:
        return self._array(self.xp.less(x, y))

    def equal(self, x: Operand, y: Operand) -> Array:
        return self._array(self.xp.equal(x, y))

    def where(self, condition: Array, x: Operand, y: Operand) -> Array:
        return self._array(self.xp.where(condition, x, y))

    # ---- reductions and products ------------------------------------------------------------

    def sum(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        if x.dtype == "float16":
            wide = self.xp.sum(x, axis=axis, keepdims=keepdims, dtype="float32")
            return self._array(wide.astype("float16"))
        return self._array(x.sum(axis=axis, keepdims=keepdims, dtype=x.dtype))

    def max(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        return self._array(x.max(axis=axis, keepdims=keepdims))

    def argmax(self, x: Array, *, axis: int) -> Array:
        where = self._array(self.xp.argmax(x, axis=axis))
        return where.astype(self._native[self.index_dtype], copy=False)

    def matmul(self, x: Array, y: Array) -> Array:
        return self.xp.matmul(x, y)

    # ---- shape and index --------------------------------------------------------------------

    def reshape(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        return x.reshape(shape)

    def transpose(self, x: Array, *, axes: tuple[int, ...]) -> Array:
        return x.transpose(axes)

    def broadcast_to(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        return self.xp.broadcast_to(x, shape)

    def concat(self, *xs: Array, axis: int) -> Array:
        return self.xp.concatenate(xs, axis=axis)

    def slice(
        self, x: Array, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
    ) -> Array:
        # The Ellipsis keeps a 0-d result an array.
        return x[(*map(slice, starts, stops, steps), ...)]

    def pad(self, x: Array, *, widths: tuple[tuple[int, int], ...], value: float) -> Array:
        shape = tuple(n + a + b for n, (a, b) in zip(x.shape, widths, strict=True))
        out = self.xp.full(shape, value, x.dtype)
        inside = tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, widths, strict=True))
        out[inside] = x
        return out

    def take(self, x: Array, indices: Array, *, axis: int) -> Array:
        return self._array(x.take(indices, axis=axis))

    def scatter_add(self, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
        out = x.copy()
        self.xp.add.at(out, (slice(None),) * axis + (indices,), updates)
        return out

    def write(self, buffer: Array, slab: Array, start: Operand, *, axis: int) -> Array:
        if not self._can_write(buffer):
            buffer = buffer.copy()
        at = int(start)
        buffer[(slice(None),) * axis + (slice(at, at + slab.shape[axis]),)] = slab
        return buffer

    def _can_write(self, x: Array) -> bool:
        """False for arrays whose cells share memory, or that are not ours to change."""
        return 0 not in x.strides and bool(x.flags.writeable)

    # ---- random -----------------------------------------------------------------------------

    def random_bits(
        self, counter: Array, *, key: tuple[int, int], shape: tuple[int, ...], bits: int
    ) -> Array:
        count = 1
        for n in shape:
            count *= n
        blocks = self.xp.arange((count + 1) // 2, dtype="int64")
        pair = threefry.threefry2x32(key, blocks, counter.astype("int64") + 0 * blocks)
        words = self.xp.stack(pair, axis=-1).reshape(-1)[:count] >> (32 - bits)
        return words.astype("uint32").view("int32").reshape(shape)
