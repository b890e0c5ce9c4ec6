"""Small products of matrices, in tiles that stay in registers. Large ones are for BLAS."""

from __future__ import annotations

from tfx.backends.numba.compiling import Array
from tfx.backends.numba.rows.code import (
    REGISTER,
    TYPES,
    Code,
    added,
    beside,
    intrinsic,
    lanes_of,
    number,
    overlap,
    splat,
)

SMALL = 1 << 17
"""Multiplications up to which a product is worth no call of its own."""

_ROWS = 4  # of a tile

_SUMS = 8  # registers of a tile: as many as keep a processor busy, which begins the next sum while
# the last ones are on their way


def is_small_product(out: Array, x: Array, w: Array) -> bool:
    """Whether there is code for out = x @ w, all with two axes."""
    return (
        x.ndim == w.ndim == out.ndim == 2
        and out.dtype == x.dtype == w.dtype
        and out.dtype.kind == "f"
        and out.dtype in TYPES
        and 0 < x.shape[0] * x.shape[1] * w.shape[1] <= SMALL
        and beside(out)
        and (beside(w) or _is_worth_turning(x, w) or _is_few_dots(x, w))
        and not overlap(out, x)
        and not overlap(out, w)
    )


def _is_worth_turning(x: Array, w: Array) -> bool:
    """Whether so many rows make up for a copy of the columns."""
    return len(x) >= 16 or (len(x) >= _ROWS and w.size <= 1024)


def _is_few_dots(x: Array, w: Array) -> bool:
    """Whether columns lie side by side, as those of `w.T` do, and meet few rows."""
    return len(x) < _ROWS and w.strides[0] == w.itemsize and beside(x)


def write_product(code: Code, out: Array, x: Array, w: Array) -> None:
    """out = x @ w. Where the columns of `w` lie side by side, rather than its rows, it is copied
    first if there are rows enough in `x` to make up for that."""
    places = code.place(out), code.place(x), code.place(w)
    if beside(w):
        _write_tiles(code, out, x, w, *places, w.strides[0])
    elif _is_few_dots(x, w):
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
            value = code.load(scalar, code.at(source, k, w.strides[0]), w.itemsize)
            to = code.at(target, k, columns * w.itemsize)
            code.store(scalar, value, to, w.itemsize)
    return room


def _write_tiles(
    code: Code, out: Array, x: Array, w: Array, to: str, left: str, right: str, stride: int
) -> None:
    """Tile by tile: all that is left over at the edges is smaller tiles."""
    rows, columns = out.shape
    lanes = REGISTER // out.itemsize
    for first, last, height in _cuts(rows, [_ROWS]):
        with code.loop(first, last, height) as i:
            out_i, x_i = code.at(to, i, out.strides[0]), code.at(left, i, x.strides[0])
            sizes = [lanes * n for n in (8, 4, 2, 1) if n * height <= _SUMS]
            for start, stop, width in _cuts(columns, sizes):
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
    kind = lanes_of(scalar, width)
    zeros = ["zeroinitializer"] * height
    with code.summing(0, x.shape[1], 1, [kind] * height, zeros) as (k, sums, found):
        line = code.load(kind, code.at(right, k, stride), size)
        column = code.at(left, k, x.strides[1])
        for i in range(height):
            one = code.at(column, str(i), x.strides[0])
            factor = splat(code, code.load(scalar, one, size), scalar, width)
            found.append(intrinsic(code, "fmuladd", scalar, width, factor, line, sums[i]))
    for i in range(height):
        target = code.at(to, str(i), out.strides[0])
        code.store(kind, found[i], target, size)


def _write_dots(code: Code, out: Array, x: Array, w: Array, to: str, left: str, right: str) -> None:
    """Few rows with a matrix whose columns lie side by side: a sum for each number of the result,
    four columns at a time."""
    scalar, size = TYPES[out.dtype], out.itemsize
    lanes = REGISTER // size
    kind = lanes_of(scalar, lanes)
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
                    code.store(scalar, total, place, size)


def _dots(
    code: Code, x: Array, columns: list[str], left: str, kind: str, scalar: str, lanes: int
) -> list[str]:
    size, count = x.itemsize, x.shape[1]
    whole = count - count % lanes
    totals = [number(0, scalar)] * len(columns)
    if whole:
        zeros = ["zeroinitializer"] * len(columns)
        with code.summing(0, whole, lanes, [kind] * len(columns), zeros) as (k, sums, found):
            some = code.load(kind, code.at(left, k, size), size)
            for n, column in enumerate(columns):
                line = code.load(kind, code.at(column, k, size), size)
                found.append(intrinsic(code, "fmuladd", scalar, lanes, some, line, sums[n]))
        totals = [added(code, total, scalar, lanes) for total in found]
    for last in range(whole, count):
        one = code.load(scalar, code.at(left, str(last), size), size)
        for n, column in enumerate(columns):
            other = code.load(scalar, code.at(column, str(last), size), size)
            both = code.value(f"fmul {scalar} {one}, {other}")
            totals[n] = code.value(f"fadd {scalar} {totals[n]}, {both}")
    return totals
