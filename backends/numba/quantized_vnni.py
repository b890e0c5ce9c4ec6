"""Products with int8 and int4 weights, in integers, reading the weights once for all rows.

Each row of x is cut into blocks of 64 numbers and every block made int8 with a scale of its own.
Sums over a block are exact; blocks are added in float32, always in the same order: what a row
comes to does not depend on how many others there are.

The instruction multiplies unsigned with signed bytes. Weights are the unsigned ones, raised by 128
(int8) or 8 (int4); what that adds, the sum of a block times its scales, is taken away beforehand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numba.extending import overload

from tfx.backends.numba.arithmetic import row as row_of
from tfx.backends.numba.compiling import (
    Bytes,
    Compiled,
    Count,
    Ids,
    Row,
    Rows,
    exact_apart,
    shared,
)
from tfx.backends.numba.quantized_epilogue import finish
from tfx.backends.numba.quantized_floats import TILE, as_float32, cut
from tfx.backends.numba.vnni import (
    LANES,
    add_bytes,
    add_nibbles,
    add_scaled,
    joined,
    largest_magnitude,
    no_sums,
    round_to_bytes,
    scale,
    store_totals,
)

BLOCK = 64
"""Numbers of x that share a scale; groups of weights are whole multiples of it."""

TOGETHER = 8
"""Rows whose sums fit into the registers."""

_LARGEST = np.float32(127)
_INFINITE = np.float32(np.inf)
# Below, the inverse of a scale would be out of range.
_TINY = np.float32(127 / 2.0**126)
_LARGEST_INVERSE = np.float32(2.0**126)
_SMALLEST_SCALE = np.float32(2.0**-126)


# ---- x in int8 -----------------------------------------------------------------------------------


@exact_apart
def _padded(blocks: int) -> int:
    return (blocks + LANES - 1) // LANES * LANES


@exact_apart
def _bytes_each(blocks: int, nibbles: bool) -> int:
    """What a row of x takes as int8."""
    return (blocks + 1) // 2 * 2 * BLOCK if nibbles else blocks * BLOCK


@exact_apart
def _factors_each(blocks: int, nibbles: bool) -> int:
    """How many scales a row of x takes."""
    return (blocks + 1) // 2 * LANES if nibbles else _padded(blocks)


@exact_apart
def _together(left: int) -> int:
    """How many of the rows that are left are taken at once."""
    return 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1


@exact_apart
def _start(row: int, rows: int) -> int:
    """The first of the rows that this one is taken together with."""
    start = 0
    while start + _together(rows - start) <= row:
        start += _together(rows - start)
    return start


@exact_apart
def _units(largest: Any) -> Any:
    """The scale of a block and what its numbers are multiplied by, from the largest magnitude.

    Where anything is not finite, the scale is NaN, and so is whatever is multiplied by it.
    """
    if not largest < _INFINITE:
        return np.float32(np.nan), np.float32(0)
    if largest < _TINY:
        return _SMALLEST_SCALE, _LARGEST_INVERSE
    return largest / _LARGEST, _LARGEST / largest


@exact_apart
def _quantize_row(
    x: Any, nibbles: bool, group: int, row: int, rows: int, numbers: Any, factors: Any, offsets: Any
) -> None:
    """A row of x as the products want it: interleaved, as number `row` of `rows`."""
    blocks = len(x) // BLOCK
    half = BLOCK // 2
    for block in range(blocks, _padded(blocks)):
        offsets[(block // LANES * rows + row) * LANES + block % LANES] = 0
    if nibbles and blocks % 2:  # beside the last block, nothing
        at = (blocks // 2 * rows + row) * LANES
        factors[at + LANES // 2 : at + LANES] = 0
        at = (blocks // 2 * rows + row) * 2 * BLOCK
        numbers[at : at + 2 * BLOCK] = 0
    for block in range(blocks):
        if nibbles:  # bytes 32 * block on, whose low nibbles come first
            inside = block * half % (group // 2)
            first = block * half // (group // 2) * group + inside
            second = first + group // 2
            at = (block // 2 * rows + row) * 2 * BLOCK + block % 2 * half
            to = at + BLOCK
        else:
            first = block * BLOCK
            second = first + half
            at = (block * rows + row) * BLOCK
            to = at + half
        unit, inverse = _units(largest_magnitude(x, first, second))
        total = unit * np.float32(round_to_bytes(x, first, second, inverse, numbers, at, to))
        if nibbles:
            at = (block // 2 * rows + row) * LANES + block % 2 * (LANES // 2)
            for i in range(LANES // 2):
                factors[at + i] = unit
            total *= np.float32(-8)
        else:
            factors[block * rows + row] = unit
            total *= np.float32(-128)
        offsets[(block // LANES * rows + row) * LANES + block % LANES] = total


# ---- the products --------------------------------------------------------------------------------


@exact_apart
def _spread(scales: Any, each: int, spread: Any) -> None:
    """Scales of weights as float32, one for each block of x."""
    if each == 1:
        for i in range(scales.size):
            spread[i] = as_float32(scales[i])
    else:
        for g in range(scales.size):
            unit = as_float32(scales[g])
            part = spread[g * each : g * each + each]
            for i in range(each):
                part[i] = unit


# Rows of weights are read one after the other: of two at a time, the processor foresees neither.
# Two sums take turns, so that the next addition need not wait for the last.


def _bytes_against(rows: int) -> Any:
    """The products of int8 weights, `outputs` rows of them, with `rows` rows of x."""

    @exact_apart
    def products(
        q: Any, at: int, outputs: int, blocks: int, spread: Any, x: Any, factors: Any,
        offsets: Any, scaled: Any, found: Any,
    ) -> None:  # fmt: skip
        for o in range(outputs):
            start, first = at + o * blocks * BLOCK, o * blocks
            for step in range((blocks * rows + LANES - 1) // LANES):
                scale(rows, spread, first, factors, scaled, step)
            sums, more = no_sums(rows), no_sums(rows)
            for step in range((blocks + LANES - 1) // LANES):
                sums = add_scaled(sums, spread, first, offsets, step)
            for step in range(0, blocks - 1, 2):
                sums = add_bytes(sums, q, start, x, scaled, step)
                more = add_bytes(more, q, start, x, scaled, step + 1)
            if blocks % 2:
                sums = add_bytes(sums, q, start, x, scaled, blocks - 1)
            store_totals(joined(sums, more), found, o, TILE)

    return products


def _nibbles_against(rows: int) -> Any:
    """The products of int4 weights, `outputs` rows of them, with `rows` rows of x."""

    @exact_apart
    def products(
        q: Any, at: int, outputs: int, blocks: int, spread: Any, x: Any, factors: Any,
        offsets: Any, scaled: Any, found: Any,
    ) -> None:  # fmt: skip
        pairs = blocks // 2
        for o in range(outputs):
            start, first = at + o * blocks * BLOCK // 2, o * blocks
            sums, more = no_sums(rows), no_sums(rows)
            for step in range((blocks + LANES - 1) // LANES):
                sums = add_scaled(sums, spread, first, offsets, step)
            for step in range(0, pairs - 1, 2):
                sums = add_nibbles(sums, q, start, x, spread, first, factors, step, True)
                more = add_nibbles(more, q, start, x, spread, first, factors, step + 1, True)
            if pairs % 2:
                sums = add_nibbles(sums, q, start, x, spread, first, factors, pairs - 1, True)
            if blocks % 2:
                more = add_nibbles(more, q, start, x, spread, first, factors, pairs, False)
            store_totals(joined(sums, more), found, o, TILE)

    return products


def _outputs(nibbles: bool) -> Any:
    """The products of some rows of weights with all rows of x, and what follows."""
    against = _nibbles_against if nibbles else _bytes_against
    by_one, by_two, by_four, by_eight = (against(rows) for rows in (1, 2, 4, 8))

    @exact_apart
    def outputs(
        low: int, high: int, q: Any, scales: Any, groups: int, blocks: int, numbers: Any,
        factors: Any, offsets: Any, memory: Any, b: Any, activation: int, residual: Any, y: Any,
    ) -> None:  # fmt: skip
        padded = _padded(blocks)
        length = blocks * BLOCK // 2 if nibbles else blocks * BLOCK
        found = memory[: TOGETHER * TILE]
        scaled = memory[TOGETHER * TILE : TOGETHER * (TILE + padded)]
        spread = memory[TOGETHER * (TILE + padded) :]
        spread[:] = 0  # what follows the scales is multiplied by zeros
        for start in range(low, high, TILE):
            count = min(TILE, high - start)
            _spread(scales[start * groups : (start + count) * groups], blocks // groups, spread)
            row = 0
            while row < len(y):
                rows = _together(len(y) - row)
                args = (
                    q, start * length, count, blocks, spread,
                    numbers[row * _bytes_each(blocks, nibbles) :],
                    factors[row * _factors_each(blocks, nibbles) :],
                    offsets[row * padded :], scaled, found,
                )  # fmt: skip
                if rows == 8:
                    by_eight(*args)
                elif rows == 4:
                    by_four(*args)
                elif rows == 2:
                    by_two(*args)
                else:
                    by_one(*args)
                part = found[: rows * TILE].reshape(rows, TILE)[:, :count]
                finish(part, start, b, activation, residual, row, y)
                row += rows

    return outputs


_OUTPUTS = {"q8": _outputs(nibbles=False), "q4": _outputs(nibbles=True)}


def outputs_of(kind: str, *args: Any) -> None:
    """`outputs` for weights of that kind, a constant where this is compiled."""
    raise NotImplementedError("for compiled functions")


@overload(outputs_of, strict=False, prefer_literal=True)  # type: ignore[untyped-decorator]
def _outputs_of(kind: Any, *args: Any) -> Any:
    found = _OUTPUTS[kind.literal_value]
    return lambda kind, *args: found(*args)


def _linear(kind: str) -> Compiled:
    @shared
    def linear(
        x: Rows,
        q: Bytes,
        scales: Ids,
        b: Row,
        activation: Count,
        residual: Rows,
        y: Rows,
        numbers: Bytes,
        factors: Row,
        offsets: Row,
        memory: Rows,
    ) -> None:
        nibbles = kind == "q4"
        rows, count = y.shape
        blocks, groups = x.shape[1] // BLOCK, len(scales) // count
        for i in range(rows):
            start = _start(i, rows)
            _quantize_row(
                row_of(x, i), nibbles, blocks * BLOCK // groups, i - start,
                _together(rows - start), numbers[start * _bytes_each(blocks, nibbles) :],
                factors[start * _factors_each(blocks, nibbles) :],
                offsets[start * _padded(blocks) :],
            )  # fmt: skip
        pieces = len(memory)
        for piece in prange(pieces):
            low, high = cut(piece, pieces, count), cut(piece + 1, pieces, count)
            outputs_of(
                kind, low, high, q, scales, groups, blocks, numbers, factors, offsets,
                row_of(memory, piece), b, activation, residual, y,
            )  # fmt: skip

    return linear


LINEAR = {kind: _linear(kind) for kind in _OUTPUTS}
"""y = residual + activation(x @ w.T + b): the last four arguments are as `scratch` says."""


def scratch(
    nibbles: bool, blocks: int, rows: int, pieces: int
) -> list[tuple[tuple[int, ...], type]]:
    """Shapes and dtypes of what a product needs beside its arguments: x in int8, its scales, what
    they take away beforehand; and for each piece of the outputs, room of its own. All begin at
    multiples of 64 bytes."""
    padded = -(-blocks // LANES) * LANES
    numbers = -(-blocks // 2) * 2 if nibbles else blocks
    factors = -(-blocks // 2) * LANES if nibbles else padded
    own = TOGETHER * (TILE + padded) + TILE * blocks + LANES
    return [
        ((rows * numbers * BLOCK,), np.uint8),
        ((rows * factors,), np.float32),
        ((rows * padded,), np.float32),
        ((pieces, -(-own // LANES) * LANES), np.float32),
    ]
