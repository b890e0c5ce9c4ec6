"""Products of small matrices, whose sums stay in registers: a call of BLAS takes as long to prepare
as they take, and cannot be joined with its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

from tfx.backends.numba.arithmetic import row
from tfx.backends.numba.compiling import Array, Compiled, Matrix, Rows, compiled
from tfx.backends.numba.vnni import everywhere
from tfx.core.planning import Call, Workspace

_SMALL = 1 << 16  # multiplications
_TURNED = 16  # rows that make up for a copy of the other matrix, unless that is no larger than
_TURNED_AT_ONCE = 1024  # numbers


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _tile(typingctx: Any, out: Any, x: Any, w: Any, i: Any, j: Any, rows: Any, columns: Any) -> Any:
    """Writes out[i:i+rows, j:j+columns] of x @ w, where the numbers of a row of `w` lie side by
    side, and those of `out`: a register of sums, or some, for each row.

    One function for all sizes, rather than one made for each: those would have another identity in
    every process, and what Numba keeps of their callers would never be found again.
    """
    height, width = rows.literal_value, columns.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, left, right = (
            make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:3], args[:3], strict=True)
        )
        real = context.get_value_type(out.dtype)
        size = context.get_abi_sizeof(real)
        several = ir.VectorType(real, width)
        strides = [cgutils.unpack_tuple(builder, a.strides, 2) for a in (to, left, right)]
        inner = cgutils.unpack_tuple(builder, left.shape, 2)[1]

        def place(base: Any, kind: Any, *moves: tuple[Any, Any]) -> Any:
            offset = ir.Constant(ir.IntType(64), 0)
            for index, stride in moves:
                offset = builder.add(offset, builder.mul(index, stride))
            return cgutils.pointer_add(builder, base, offset, kind.as_pointer())

        bytes_ = ir.Constant(ir.IntType(64), size)
        starts = [builder.add(args[3], ir.Constant(ir.IntType(64), r)) for r in range(height)]
        zeros = ir.Constant(several, [0.0] * width)
        sums = [cgutils.alloca_once_value(builder, zeros) for _ in starts]
        kind = ir.FunctionType(several, [several] * 3)
        name = f"llvm.fmuladd.v{width}f{8 * size}"
        multiply_add = cgutils.get_or_insert_function(builder.module, kind, name)
        with cgutils.for_range(builder, inner) as loop:
            k = loop.index
            source = place(right.data, several, (k, strides[2][0]), (args[4], bytes_))
            line = builder.load(source, align=size)
            for r, total in zip(starts, sums, strict=True):
                one = place(left.data, real, (r, strides[1][0]), (k, strides[1][1]))
                factor = everywhere(builder, builder.load(one), several)
                value = builder.call(multiply_add, [factor, line, builder.load(total)])
                builder.store(value, total)
        for r, total in zip(starts, sums, strict=True):
            target = place(to.data, several, (r, strides[0][0]), (args[4], bytes_))
            builder.store(builder.load(total), target, align=size)
        return context.get_dummy_value()

    return types.none(out, x, w, i, j, rows, columns), codegen


def _across(out: Any, x: Any, w: Any, i: Any, rows: Any, wide: Any, lanes: Any) -> None:
    """Some rows of x @ w from row i on: tiles of the wide size, then of one register, then of one
    column."""
    raise NotImplementedError("for compiled functions")


@overload(_across, strict=False, prefer_literal=True)  # type: ignore[untyped-decorator]
def _tiles_across(out: Any, x: Any, w: Any, i: Any, rows: Any, wide: Any, lanes: Any) -> Any:
    height, most, some = rows.literal_value, wide.literal_value, lanes.literal_value

    def across(out: Any, x: Any, w: Any, i: Any, rows: Any, wide: Any, lanes: Any) -> None:
        columns = out.shape[1]
        j = 0
        while j + most <= columns:
            _tile(out, x, w, i, j, height, most)
            j += most
        while j + some <= columns:
            _tile(out, x, w, i, j, height, some)
            j += some
        while j < columns:
            _tile(out, x, w, i, j, height, 1)
            j += 1

    return across


def _product_by(lanes: int) -> Compiled:
    """x @ w with so many numbers in a register. A tile has eight registers of sums: with fewer,
    each addition would wait for the one before it."""
    twice, by_eight = 2 * lanes, 8 * lanes

    @compiled
    def product(out: Rows, x: Matrix, w: Rows) -> None:
        count = out.shape[0]
        by_fours = count - count % 4
        for i in range(0, by_fours, 4):
            _across(out, x, w, i, 4, twice, lanes)
        for i in range(by_fours, count):
            _across(out, x, w, i, 1, by_eight, lanes)

    return product


_PRODUCTS = {np.dtype(t): _product_by(64 // np.dtype(t).itemsize) for t in ("f4", "f8")}
"""For registers of 64 bytes, which the compiler cuts into what the processor has."""


@compiled
def _turn(out: Rows, x: Rows) -> None:
    """out = x.T"""
    for i in range(x.shape[0]):
        source = row(x, i)
        for j in range(len(source)):
            out[j, i] = source[j]


def small(x: Array, w: Array, out: Array, space: Workspace) -> list[Call] | None:
    """The calls for x @ w into `out`, where they are quicker than one of BLAS; else None."""
    if not 0 < len(x) * w.size <= _SMALL or not _side_by_side(out):
        return None
    of, product = x.dtype, _PRODUCTS[x.dtype].of(x.dtype)
    if _side_by_side(w):
        return [(product, (out, x, w))]
    worth = len(x) >= _TURNED or (len(x) >= 4 and w.size <= _TURNED_AT_ONCE)
    if not worth or not _side_by_side(w.T):
        return None
    turned = space.scratch(w.shape, of)
    return [(_turn.of(of), (turned, w.T)), (product, (out, x, turned))]


def _side_by_side(x: Array) -> bool:
    return x.strides[1] == x.itemsize or x.shape[1] == 1
