"""Small products of matrices, in tiles that stay in registers. Large ones are for BLAS."""

from __future__ import annotations

from tfx.backends.numba.compiling import Array
from tfx.backends.numba.rows.code import TYPES, Code, beside, number, overlap
from tfx.backends.numba.rows.elementwise import REGISTER, added, splat

SMALL = 1 << 17
"""Multiplications up to which a product is worth no call of its own."""

_ROWS = 4  # of a tile; its columns are two registers


def is_small_product(out: Array, x: Array, w: Array) -> bool:
    """Whether there is code for out = x @ w, all with two axes."""
    return (
        x.ndim == w.ndim == out.ndim == 2
        and out.dtype == x.dtype == w.dtype
        and out.dtype.kind == "f"
        and out.dtype in TYPES
        and 0 < x.shape[0] * x.shape[1] * w.shape[1] <= SMALL
        and beside(out)
        and (beside(w) or len(x) >= _ROWS or (w.strides[0] == w.itemsize and beside(x)))
        and not overlap(out, x)
        and not overlap(out, w)
    )


def write_product(code: Code, out: Array, x: Array, w: Array) -> None:
    """out = x @ w. Where the columns of `w` lie side by side, rather than its rows, it is copied
    first if there are rows enough in `x` to make up for that."""
    places = code.place(out), code.place(x), code.place(w)
    if beside(w):
        _write_tiles(code, out, x, w, *places, w.strides[0])
    elif len(x) < _ROWS:
        _write_dots(code, out, x, w, *places)
    else:
        room = _write_turned(code, w, places[2])
        _write_tiles(code, out, x, w, places[0], places[1], room, w.shape[1] * w.itemsize)


def _write_turned(code: Code, w: Array, place: str) -> str:
    """A copy of `w` with the numbers of its rows side by side."""
    scalar, (rows, columns) = TYPES[w.dtype], w.shape
    room = code.scratch(w.nbytes)
    with code.loop(0, columns) as j:
        source = code.at(place, j, w.strides[1])
        target = code.at(room, j, w.itemsize)
        with code.loop(0, rows) as k:
            value = code.value(
                f"load {scalar}, ptr {code.at(source, k, w.strides[0])}, align {w.itemsize}"
            )
            to = code.at(target, k, columns * w.itemsize)
            code.line(f"store {scalar} {value}, ptr {to}, align {w.itemsize}")
    return room


def _write_tiles(
    code: Code, out: Array, x: Array, w: Array, to: str, left: str, right: str, stride: int
) -> None:
    """Tile by tile: all that is left over at the edges is smaller tiles."""
    rows, columns = out.shape
    lanes = REGISTER // out.itemsize
    wide = 2 * lanes
    for first, last, height in _cuts(rows, [_ROWS]):
        with code.loop(first, last, height) as i:
            out_i, x_i = code.at(to, i, out.strides[0]), code.at(left, i, x.strides[0])
            for start, stop, width in _cuts(columns, [wide, lanes]):
                with code.loop(start, stop, width) as j:
                    tile = code.at(out_i, j, out.itemsize), x_i, code.at(right, j, out.itemsize)
                    _write_tile(code, out, x, height, width, stride, *tile)


def _cuts(count: int, sizes: list[int]) -> list[tuple[int, int, int]]:
    """A range in pieces of these sizes, and of one, as few as can be: (start, stop, size)."""
    found = []
    start = 0
    for size in sizes:
        stop = start + (count - start) // size * size
        if stop > start:
            found.append((start, stop, size))
        start = stop
    if start < count:
        found.append((start, count, count - start))
    return found


def _write_tile(
    code: Code,
    out: Array,
    x: Array,
    height: int,
    width: int,
    stride: int,
    to: str,
    left: str,
    right: str,
) -> None:
    scalar, size = TYPES[out.dtype], out.itemsize
    kind = f"<{width} x {scalar}>"
    multiply = f"llvm.fmuladd.v{width}f{8 * size}"
    code.declare(multiply, f"declare {kind} @{multiply}({kind}, {kind}, {kind})")
    zeros = ["zeroinitializer"] * height
    with code.summing(0, x.shape[1], 1, [kind] * height, zeros) as (k, sums, found):
        line = code.value(f"load {kind}, ptr {code.at(right, k, stride)}, align {size}")
        column = code.at(left, k, x.strides[1])
        for i in range(height):
            one = code.at(column, str(i), x.strides[0])
            factor = splat(
                code, code.value(f"load {scalar}, ptr {one}, align {size}"), scalar, width
            )
            found.append(
                code.value(
                    f"call {kind} @{multiply}({kind} {factor}, {kind} {line}, {kind} {sums[i]})"
                )
            )
    for i in range(height):
        target = code.at(to, str(i), out.strides[0])
        code.line(f"store {kind} {found[i]}, ptr {target}, align {size}")


def _write_dots(code: Code, out: Array, x: Array, w: Array, to: str, left: str, right: str) -> None:
    """Few rows with a matrix whose columns lie side by side: a sum for each number of the result,
    four columns at a time."""
    scalar, size = TYPES[out.dtype], out.itemsize
    lanes = REGISTER // size
    kind = f"<{lanes} x {scalar}>"
    for i in range(len(x)):
        x_i, out_i = code.at(left, str(i), x.strides[0]), code.at(to, str(i), out.strides[0])
        for start, stop, some in _cuts(w.shape[1], [4]):
            with code.loop(start, stop, some) as j:
                columns = [
                    code.at(code.at(right, j, w.strides[1]), str(n), w.strides[1])
                    for n in range(some)
                ]
                target = code.at(out_i, j, size)
                for n, total in enumerate(_dots(code, x, columns, x_i, kind, scalar, lanes)):
                    place = code.at(target, str(n), size)
                    code.line(f"store {scalar} {total}, ptr {place}, align {size}")


def _dots(
    code: Code, x: Array, columns: list[str], left: str, kind: str, scalar: str, lanes: int
) -> list[str]:
    size, count = x.itemsize, x.shape[1]
    whole = count - count % lanes
    totals = [number(0, scalar)] * len(columns)
    if whole:
        multiply = f"llvm.fmuladd.v{lanes}f{8 * size}"
        code.declare(multiply, f"declare {kind} @{multiply}({kind}, {kind}, {kind})")
        zeros = ["zeroinitializer"] * len(columns)
        with code.summing(0, whole, lanes, [kind] * len(columns), zeros) as (k, sums, found):
            some = code.value(f"load {kind}, ptr {code.at(left, k, size)}, align {size}")
            for n, column in enumerate(columns):
                line = code.value(f"load {kind}, ptr {code.at(column, k, size)}, align {size}")
                found.append(
                    code.value(
                        f"call {kind} @{multiply}({kind} {some}, {kind} {line}, {kind} {sums[n]})"
                    )
                )
        totals = [added(code, x, scalar, lanes) for x in found]
    for last in range(whole, count):
        one = code.value(f"load {scalar}, ptr {code.at(left, str(last), size)}, align {size}")
        for n, column in enumerate(columns):
            other = code.value(
                f"load {scalar}, ptr {code.at(column, str(last), size)}, align {size}"
            )
            both = code.value(f"fmul {scalar} {one}, {other}")
            totals[n] = code.value(f"fadd {scalar} {totals[n]}, {both}")
    return totals
