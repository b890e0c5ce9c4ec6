"""Vectors of 512 bits for Numba: what the integer products need, each as a few lines of LLVM.

LLVM does not find `vpdpbusd` (four products of bytes and their sum in one instruction) in a loop,
so it is asked for by name. `Sums` is a value that holds sixteen partial sums for each of a few
rows, all in registers; the functions below make one, add to it and store what it comes to.

Arrays are flat, of bytes or float32, and places in them are counted in elements. Nothing is
checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from tfx.backends.numba.compiling import compiles_for

LANES = 16
"""Sums of 32 bits in a vector."""

WIDTH = 64
"""Bytes in a vector."""

INT = ir.IntType(32)
FLOAT = ir.FloatType()
BYTE = ir.IntType(8)
INTS = ir.VectorType(INT, LANES)
FLOATS = ir.VectorType(FLOAT, LANES)
BYTES = ir.VectorType(BYTE, WIDTH)


def available() -> bool:
    """Whether Numba compiles for a processor that has the instructions."""
    return compiles_for("+avx512f", "+avx512bw", "+avx512vl", "+avx512vnni")


class Sums(types.Type):
    """LANES partial sums for each of `rows` rows."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(f"Sums({rows})")


@register_model(Sums)
class _SumsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Sums) -> None:
        super().__init__(manager, kind, ir.ArrayType(FLOATS, kind.rows))


def everywhere(builder: Any, number: Any, vector: Any) -> Any:
    """A vector with one number in all places."""
    none = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(none, number, ir.Constant(INT, 0))
    return builder.shuffle_vector(one, none, ir.Constant(ir.VectorType(INT, vector.count), None))


class _Writer:
    """Writes LLVM for arguments of the types given."""

    def __init__(self, context: Any, builder: Any, signature: Any) -> None:
        self.context, self.builder, self.types = context, builder, signature.args

    def address(self, array: int, args: Any, place: Any, vector: Any) -> Any:
        """Where the vector at `place` of the array among the arguments lies."""
        kind = self.types[array]
        data = self.context.make_array(kind)(self.context, self.builder, args[array]).data
        return self.builder.bitcast(self.builder.gep(data, [place]), vector.as_pointer())

    def load(self, array: int, args: Any, place: Any, vector: Any) -> Any:
        return self.builder.load(self.address(array, args, place, vector), align=1)

    def constant(self, vector: Any, number: int) -> Any:
        return ir.Constant(vector, [number] * vector.count)

    def shuffled(self, x: Any, y: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(INT, len(lanes)), lanes)
        return self.builder.shuffle_vector(x, y, mask)

    def half(self, array: int, args: Any, place: Any) -> Any:
        """Half a vector of bytes, and zeros."""
        kind = ir.VectorType(BYTE, WIDTH // 2)
        bytes_ = self.load(array, args, place, kind)
        return self.shuffled(bytes_, ir.Constant(kind, None), list(range(WIDTH)))

    def place(self, step: Any, row: int, rows: int, size: int) -> Any:
        """`(step * rows + row) * size`: where rows lie interleaved."""
        index = self.builder.mul(step, ir.Constant(step.type, rows * size))
        return self.builder.add(index, ir.Constant(step.type, row * size))

    def larger(self, x: Any, y: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed(">", x, y), x, y)

    def folded(self, x: Any, combine: Callable[[Any, Any], Any]) -> Any:
        """All elements of a vector in one, halves first."""
        count = x.type.count
        while count > 1:
            count //= 2
            none = ir.Constant(x.type, ir.Undefined)
            lower = self.shuffled(x, none, list(range(count)))
            upper = self.shuffled(x, none, list(range(count, 2 * count)))
            x = combine(lower, upper)
        return self.builder.extract_element(x, ir.Constant(INT, 0))

    def products(self, sums: Any, unsigned: Any, signed: Any) -> Any:
        """`sums`, and to each the products of its four bytes."""
        kind = ir.FunctionType(INTS, [INTS, INTS, INTS])
        name = "llvm.x86.avx512.vpdpbusd.512"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        bits = [self.builder.bitcast(x, INTS) for x in (unsigned, signed)]
        return self.builder.call(function, [sums, *bits])

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.fma.v16f32")
        return self.builder.call(function, [x, y, z])

    def each_row(self, sums: Any, change: Callable[[int, Any], Any]) -> Any:
        for row in range(sums.type.count):
            changed = change(row, self.builder.extract_value(sums, row))
            sums = self.builder.insert_value(sums, changed, row)
        return sums


@intrinsic  # type: ignore[untyped-decorator]
def no_sums(typing: Any, rows: Any) -> Any:
    """Zeros for `rows` rows, a constant."""
    if not isinstance(rows, types.IntegerLiteral):
        return None

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(ir.ArrayType(FLOATS, rows.literal_value), None)

    return Sums(rows.literal_value)(rows), write


@intrinsic  # type: ignore[untyped-decorator]
def add_scaled(typing: Any, sums: Any, scales: Any, at: Any, offsets: Any, step: Any) -> Any:
    """To each row's sums, the next 16 scales times as many offsets of its own.

    scales[at + step * 16 :] and offsets[(step * rows + row) * 16 :], float32.
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature)
        factor = w.load(1, args, builder.add(args[2], w.place(args[4], 0, 1, LANES)), FLOATS)

        def change(row: int, total: Any) -> Any:
            place = w.place(args[4], row, sums.rows, LANES)
            return w.multiply_add(factor, w.load(3, args, place, FLOATS), total)

        return w.each_row(args[0], change)

    return sums(sums, scales, types.intp, offsets, types.intp), write


@intrinsic  # type: ignore[untyped-decorator]
def scale(
    typing: Any, rows: Any, scales: Any, at: Any, factors: Any, scaled: Any, step: Any
) -> Any:
    """scaled[i] = scales[at + i // rows] * factors[i] for i in step * 16 + [0, 16).

    `rows` is a constant, and a power of two.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature)
        count = LANES // rows.literal_value
        place = builder.add(args[2], w.place(args[5], 0, 1, count))
        few = w.load(1, args, place, ir.VectorType(FLOAT, count))
        spread = w.shuffled(few, few, [i // rows.literal_value for i in range(LANES)])
        place = w.place(args[5], 0, 1, LANES)
        product = builder.fmul(spread, w.load(3, args, place, FLOATS))
        builder.store(product, w.address(4, args, place, FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(rows, scales, types.intp, factors, scaled, types.intp), write


@intrinsic  # type: ignore[untyped-decorator]
def add_bytes(typing: Any, sums: Any, q: Any, at: Any, numbers: Any, scales: Any, step: Any) -> Any:
    """To each row's sums, the products of the next 64 weights and numbers, times a scale.

    Weights are q[at + step * 64 :] + 128, numbers those at (step * rows + row) * 64, the scale
    scales[step * rows + row].
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature)
        weights = w.load(1, args, builder.add(args[2], w.place(args[5], 0, 1, WIDTH)), BYTES)
        weights = builder.xor(weights, w.constant(BYTES, -128))

        def change(row: int, total: Any) -> Any:
            place = w.place(args[5], row, sums.rows, WIDTH)
            found = w.products(w.constant(INTS, 0), weights, w.load(3, args, place, BYTES))
            scale = builder.load(w.address(4, args, w.place(args[5], row, sums.rows, 1), FLOAT))
            return w.multiply_add(
                builder.sitofp(found, FLOATS), everywhere(w.builder, scale, FLOATS), total
            )

        return w.each_row(args[0], change)

    return sums(sums, q, types.intp, numbers, scales, types.intp), write


@intrinsic  # type: ignore[untyped-decorator]
def add_nibbles(
    typing: Any,
    sums: Any,
    q: Any,
    at: Any,
    numbers: Any,
    scales: Any,
    s_at: Any,
    factors: Any,
    step: Any,
    whole: Any,
) -> Any:
    """To each row's sums, the products of the next 128 weights and numbers, times scales.

    Weights are the low and the high nibbles of the 64 bytes q[at + step * 64 :], or of 32 where
    `whole`, a constant, is False; numbers those at (step * rows + row) * 128, which meet the low
    nibbles, and then those for the high; scales[s_at + 2 * step] is for the first half of the
    bytes and the next one for the other, each times factors[(step * rows + row) * 16 :], 8 for
    either half.
    """
    if not isinstance(whole, types.BooleanLiteral):
        return None

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature)
        place = builder.add(args[2], w.place(args[7], 0, 1, WIDTH))
        weights = w.load(1, args, place, BYTES) if whole.literal_value else w.half(1, args, place)
        low = builder.and_(weights, w.constant(BYTES, 15))
        high = builder.lshr(weights, w.constant(BYTES, 4))
        place = builder.add(args[5], w.place(args[7], 0, 1, 2))
        pair = w.load(4, args, place, ir.VectorType(FLOAT, 2))
        scale = w.shuffled(pair, pair, [i // (LANES // 2) for i in range(LANES)])

        def change(row: int, total: Any) -> Any:
            place = w.place(args[7], row, sums.rows, 2 * WIDTH)
            found = w.products(w.constant(INTS, 0), low, w.load(3, args, place, BYTES))
            place = builder.add(place, ir.Constant(place.type, WIDTH))
            found = w.products(found, high, w.load(3, args, place, BYTES))
            factor = w.load(6, args, w.place(args[7], row, sums.rows, LANES), FLOATS)
            return w.multiply_add(builder.sitofp(found, FLOATS), builder.fmul(scale, factor), total)

        return w.each_row(args[0], change)

    count = types.intp
    return sums(sums, q, count, numbers, scales, count, factors, count, whole), write


@intrinsic  # type: ignore[untyped-decorator]
def largest_magnitude(typing: Any, x: Any, first: Any, second: Any) -> Any:
    """The largest magnitude among x[first:][:32] and x[second:][:32]; NaN where one of them is.

    Found by bits, which are in the order of magnitudes, with NaN above all others.
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature)
        largest = w.constant(INTS, 0)
        for start in args[1:]:
            for part in range(2):
                place = builder.add(start, ir.Constant(start.type, part * LANES))
                bits = builder.and_(w.load(0, args, place, INTS), w.constant(INTS, 0x7FFFFFFF))
                largest = w.larger(largest, bits)
        return builder.bitcast(w.folded(largest, w.larger), FLOAT)

    return types.float32(x, types.intp, types.intp), write


@intrinsic  # type: ignore[untyped-decorator]
def round_to_bytes(
    typing: Any,
    x: Any,
    first: Any,
    second: Any,
    factor: Any,
    numbers: Any,
    to_first: Any,
    to_second: Any,
) -> Any:
    """Write x[first:][:32] times `factor`, rounded, to numbers[to_first:], the other 32 likewise.

    Returns their sum, int32. Products are below 2**22.
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature)
        factors = everywhere(w.builder, args[3], FLOATS)
        # Added to a number, it leaves the nearest integer in the last bits of the sum.
        shift = ir.Constant(FLOATS, [1.5 * 2**23] * LANES)
        shift_bits = w.constant(INTS, 0x4B400000)
        total = w.constant(INTS, 0)
        for start, to in ((args[1], args[5]), (args[2], args[6])):
            for part in range(2):
                step = ir.Constant(start.type, part * LANES)
                product = builder.fmul(w.load(0, args, builder.add(start, step), FLOATS), factors)
                bits = builder.bitcast(builder.fadd(product, shift), INTS)
                rounded = builder.sub(bits, shift_bits)
                few = ir.VectorType(BYTE, LANES)
                place = w.address(4, args, builder.add(to, step), few)
                builder.store(builder.trunc(rounded, few), place, align=1)
                total = builder.add(total, rounded)
        return w.folded(total, builder.add)

    count = types.intp
    return types.int32(x, count, count, types.float32, numbers, count, count), write


@intrinsic  # type: ignore[untyped-decorator]
def joined(typing: Any, sums: Any, more: Any) -> Any:
    """To each row's sums, the others."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature)
        return w.each_row(
            args[0], lambda row, total: builder.fadd(total, builder.extract_value(args[1], row))
        )

    return sums(sums, sums), write


@intrinsic  # type: ignore[untyped-decorator]
def store_totals(typing: Any, sums: Any, y: Any, at: Any, step: Any) -> Any:
    """y[at + row * step] = the sum of sums[row], always added up in the same order."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature)
        place = args[2]
        for row in range(sums.rows):
            total = w.folded(builder.extract_value(args[0], row), builder.fadd)
            builder.store(total, w.address(1, args, place, FLOAT))
            place = builder.add(place, args[3])
        return context.get_dummy_value()

    return types.void(sums, y, types.intp, types.intp), write
