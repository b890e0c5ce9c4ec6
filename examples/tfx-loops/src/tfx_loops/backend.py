"""tfx's primitives as loops over Python numbers.

NumPy appears in `asarray` and `to_numpy` alone, since arrays of the host are NumPy's.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from itertools import chain, islice, repeat
from math import prod

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.dtypes import DType
from tfx.core.threefry import threefry2x32
from tfx_loops import scalars
from tfx_loops.arrays import CODES, Array, Number, Shape, broadcast_shape, places, row_major

Operand = Array | Number


def elementwise(fn: Callable[..., Number], gives: DType | None = None) -> Callable[..., Array]:
    """A primitive: `fn` of the elements that meet where the operands are repeated to one shape.

    A Python number takes the dtype of the array beside it, and so does what comes out, unless the
    primitive `gives` another.
    """

    def primitive(self: LoopsBackend, *operands: Operand) -> Array:
        arrays = [x for x in operands if isinstance(x, Array)]
        shape = broadcast_shape(x.shape for x in arrays)
        dtype = arrays[-1].dtype  # what comes first may be the bools of `where`
        given = (x if isinstance(x, Array) else Array.of([x], (), dtype) for x in operands)
        columns = (self.broadcast_to(x, shape=shape).numbers() for x in given)
        return Array.of(map(fn, *columns), shape, gives or dtype)

    return primitive


class LoopsBackend(Backend):
    """Tensors over `tfx_loops.arrays.Array`.

    float32 is computed in float64, and rounded when the result is put into its cell.
    """

    name = "loops"
    api = 1
    dtypes = frozenset(CODES)
    device_random = True  # the loops are the device

    def __init__(self, device: None = None) -> None:
        super().__init__()

    def is_array(self, x: object) -> bool:
        return isinstance(x, Array)

    def dtype(self, x: Array) -> DType:
        return x.dtype

    # ---- arrays ------------------------------------------------------------------------------

    def asarray(self, value: HostArray, *, dtype: DType) -> Array:
        cells = array(CODES[dtype], value.astype(str(dtype)).tobytes())
        return Array(cells, dtype, value.shape, row_major(value.shape))

    def to_numpy(self, x: Array) -> HostArray:
        return np.array(x.numbers(), str(x.dtype)).reshape(x.shape)

    def full(self, *, shape: Shape, value: Number, dtype: DType) -> Array:
        return Array.of(repeat(value, prod(shape)), shape, dtype)

    def arange(self, *, stop: int) -> Array:
        return Array.of(range(stop), (stop,), self.index_dtype)

    def cast(self, x: Array, *, dtype: DType) -> Array:
        kind = bool if dtype is DType.bool else float if dtype.is_float else scalars.whole
        return Array.of(map(kind, x.numbers()), x.shape, dtype)

    # ---- elementwise -------------------------------------------------------------------------

    neg = elementwise(operator.neg)
    exp = elementwise(scalars.exp)
    log = elementwise(scalars.log)
    tanh = elementwise(math.tanh)
    sqrt = elementwise(scalars.sqrt)
    add = elementwise(operator.add)
    sub = elementwise(operator.sub)
    mul = elementwise(operator.mul)
    div = elementwise(scalars.divide)
    maximum = elementwise(scalars.maximum)
    less = elementwise(operator.lt, gives=DType.bool)
    equal = elementwise(operator.eq, gives=DType.bool)
    where = elementwise(scalars.choose)

    def pow(self, x: Array, *, exponent: float) -> Array:
        numbers = (scalars.power(number, exponent) for number in x.numbers())
        return Array.of(numbers, x.shape, x.dtype)

    # ---- reductions and products -------------------------------------------------------------

    def sum(self, x: Array, *, axis: Shape, keepdims: bool) -> Array:
        return Array.of(map(sum, self._lines(x, axis)), left(x.shape, axis, keepdims), x.dtype)

    def max(self, x: Array, *, axis: Shape, keepdims: bool) -> Array:
        largest = (reduce(scalars.maximum, line) for line in self._lines(x, axis))
        return Array.of(largest, left(x.shape, axis, keepdims), x.dtype)

    def argmax(self, x: Array, *, axis: int) -> Array:
        where = map(scalars.place_of_largest, self._lines(x, (axis,)))
        return Array.of(where, left(x.shape, (axis,), keepdims=False), self.index_dtype)

    def matmul(self, x: Array, y: Array) -> Array:
        (*xs, n, k), (*ys, also_k, m) = x.shape, y.shape
        if k != also_k:
            raise ValueError(f"rows of {k} numbers do not meet columns of {also_k}")
        batch = broadcast_shape([tuple(xs), tuple(ys)])
        rows = self._lines(self.broadcast_to(x, shape=(*batch, n, k)), (len(batch) + 1,))
        columns = self._lines(self.broadcast_to(y, shape=(*batch, k, m)), (len(batch),))
        products = (
            sum(map(operator.mul, row, column))
            for i in range(prod(batch))
            for row in rows[i * n : (i + 1) * n]
            for column in columns[i * m : (i + 1) * m]
        )
        return Array.of(products, (*batch, n, m), x.dtype)

    def _lines(self, x: Array, axis: Shape) -> list[list[Number]]:
        """The elements that differ along `axis` alone, together: a list for each other index."""
        others = tuple(i for i in range(len(x.shape)) if i not in axis)
        numbers = self.transpose(x, axes=others + axis).numbers()
        length = prod(x.shape[i] for i in axis)
        count = prod(x.shape[i] for i in others)
        return [numbers[i * length : (i + 1) * length] for i in range(count)]

    # ---- shape: another rule over the same cells, where one will do --------------------------

    def reshape(self, x: Array, *, shape: Shape) -> Array:
        if not x.in_order:
            x = Array.of(x.numbers(), x.shape, x.dtype)
        return replace(x, shape=shape, strides=row_major(shape))

    def transpose(self, x: Array, *, axes: Shape) -> Array:
        return replace(
            x,
            shape=tuple(x.shape[axis] for axis in axes),
            strides=tuple(x.strides[axis] for axis in axes),
        )

    def broadcast_to(self, x: Array, *, shape: Shape) -> Array:
        new = len(shape) - len(x.shape)
        if broadcast_shape([x.shape, shape]) != shape:
            raise ValueError(f"{x.shape} cannot be repeated to {shape}")
        repeated = zip(x.strides, x.shape, shape[new:], strict=True)
        strides = (stride if before == after else 0 for stride, before, after in repeated)
        return replace(x, shape=shape, strides=(0,) * new + tuple(strides))

    def slice(self, x: Array, *, starts: Shape, stops: Shape, steps: Shape) -> Array:
        return replace(
            x,
            shape=tuple(len(range(*cut)) for cut in zip(starts, stops, steps, strict=True)),
            strides=tuple(map(operator.mul, x.strides, steps)),
            offset=x.offset + sum(map(operator.mul, x.strides, starts)),
        )

    def concat(self, *xs: Array, axis: int) -> Array:
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        out, start = self.full(shape=tuple(shape), value=0, dtype=xs[0].dtype), 0
        for x in xs:
            out = self.write(out, x, start, axis=axis)
            start += x.shape[axis]
        return out

    def pad(self, x: Array, *, widths: tuple[tuple[int, int], ...], value: Number) -> Array:
        before = tuple(a for a, _ in widths)
        shape = tuple(a + n + b for n, (a, b) in zip(x.shape, widths, strict=True))
        out = self.full(shape=shape, value=value, dtype=x.dtype)
        self._at(out, before, x.shape).assign(x.numbers())
        return out

    # ---- index -------------------------------------------------------------------------------

    def take(self, x: Array, indices: Array, *, axis: int) -> Array:
        shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
        picked = self._picked(x, indices, axis)
        return Array.of([x.cells[place] for place in picked], shape, x.dtype)

    def scatter_add(self, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
        sums = x.numbers()
        in_order = replace(x, strides=row_major(x.shape), offset=0)
        picked = self._picked(in_order, indices, axis)
        for place, update in zip(picked, updates.numbers(), strict=True):
            sums[place] += update
        return Array.of(sums, x.shape, x.dtype)

    def _picked(self, x: Array, indices: Array, axis: int) -> list[int]:
        """The places of what stands at `indices` along an axis."""
        steps = x.steps
        steps[axis] = [index * x.strides[axis] for index in indices.numbers()]
        return places(x.offset, steps)

    def write(self, buffer: Array, slab: Array, start: Array | int, *, axis: int) -> Array:
        if 0 in buffer.strides:  # cells that stand for several elements
            buffer = Array.of(buffer.numbers(), buffer.shape, buffer.dtype)
        first: int = start.numbers()[0] if isinstance(start, Array) else start
        starts = tuple(first if i == axis else 0 for i in range(len(buffer.shape)))
        self._at(buffer, starts, slab.shape).assign(slab.numbers())
        return buffer

    def _at(self, x: Array, starts: Shape, shape: Shape) -> Array:
        """The part of `x` that has this shape and begins there."""
        stops = tuple(map(operator.add, starts, shape))
        return self.slice(x, starts=starts, stops=stops, steps=(1,) * len(shape))

    # ---- random ------------------------------------------------------------------------------

    def random_bits(
        self, counter: Array, *, key: tuple[int, int], shape: Shape, bits: int
    ) -> Array:
        count, [draw] = prod(shape), counter.numbers()
        pairs = (threefry2x32(key, block, draw) for block in range((count + 1) // 2))
        words = islice(chain.from_iterable(pairs), count)
        return Array.of((word >> (32 - bits) for word in words), shape, DType.int32)


def left(shape: Shape, axis: Shape, keepdims: bool) -> Shape:
    """What is left of a shape when these axes are reduced."""
    lengths = (1 if i in axis else length for i, length in enumerate(shape))
    return tuple(n for i, n in enumerate(lengths) if keepdims or i not in axis)
