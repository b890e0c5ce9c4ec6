"""The key/value cache of a decoder: buffers of fixed size, filled through `write`."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tfx.core.backend import Backend
from tfx.core.creation import arange, full, tensor
from tfx.core.dtypes import HALVES, DType
from tfx.core.errors import ShapeError
from tfx.core.ops import causal_mask, concat
from tfx.core.quantized import Half
from tfx.core.tensor import Tensor

HOLES = 64
"""So many positions may be lost to every row before its tokens are moved together."""


class KVCache:
    """Keys and values of every layer for the positions seen so far.

    The position is a 0-d tensor, so one recorded decode step serves every position.

    A cache of several texts has them along the first axis, its rows. They end together: what is
    shorter begins with padding (`pad_left`), which is no part of the text. Rows may be repeated,
    dropped and exchanged (`reorder`), as a search does that goes on from several texts at once.
    Their last tokens may be forgotten (`rewind`), of each row as many as proved wrong.

    Args:
        layers: how many layers keep keys and values.
        shape: of one layer's keys, and of its values: (..., positions, head size).
        widths: the last axis of each layer, where they have not that of `shape`.
        dtype: what they are kept in: that of the keys which will come, or float16 or bfloat16, of
            which they come back as `Half` tensors.

    Attributes:
        capacity: how many positions there are.
        length: how many of them are taken.
        visible: which positions hold neither padding nor what was forgotten, bool (rows, capacity);
            None where all do.
    """

    def __init__(
        self,
        layers: int,
        shape: tuple[int, ...],
        backend: Backend,
        dtype: DType,
        widths: Sequence[int] | None = None,
    ) -> None:
        self.capacity = shape[-2]
        self.length = 0
        self.visible: Tensor | None = None
        self._rows = shape[0]
        shapes = [(*shape[:-1], width) for width in widths or [shape[-1]] * layers]
        self._buffers = [
            (full(shape, 0.0, backend, dtype), full(shape, 0.0, backend, dtype)) for shape in shapes
        ]
        self._position = full((), 0, backend, backend.index_dtype)
        self._seen: npt.NDArray[np.bool_] | None = None  # `visible` on the host
        self._padding: Tensor | None = None  # how many are not visible before `length`, (rows, 1)

    def tree_leaves(self) -> list[Tensor]:
        """The buffers of all layers, the position, and what padding there is."""
        padding = (self._padding, self.visible)
        buffers = [buffer for layer in self._buffers for buffer in layer]
        return [*buffers, self._position, *(x for x in padding if x is not None)]

    def tree_form(self) -> Hashable:
        """How many positions there are, and whether there is padding."""
        return self.capacity, self._padding is None

    def tree_like(self, values: Iterator[Tensor]) -> KVCache:
        """A cache of other tensors in the order of `tree_leaves`."""
        new = type(self).__new__(type(self))
        new.capacity, new.length, new._rows = self.capacity, self.length, self._rows
        new._buffers = [(next(values), next(values)) for _ in self._buffers]
        new._position = next(values)
        new._padding = None if self._padding is None else next(values)
        new.visible = None if self.visible is None else next(values)
        new._seen = self._seen
        return new

    def become(self, other: KVCache, length: int) -> None:
        """Take over what another cache holds, which is `length` tokens of the same texts."""
        self.length = length
        self._buffers, self._position = other._buffers, other._position
        self._padding, self.visible = other._padding, other.visible

    def pad_left(self, counts: Sequence[int]) -> None:
        """Declare that the first `counts[i]` tokens of row i will be padding.

        To be said before the first token. Positions are counted from behind the padding, so that
        a row that heeds `visible` gives what it gives alone.
        """
        if self.length or len(counts) != self._rows:
            raise ShapeError(
                f"padding of {len(counts)} rows for a cache of {self._rows} rows that holds "
                f"{self.length} tokens: expected one count a row, before the first token"
            )
        if any(counts):
            padding = np.array(counts)[:, None]
            self._see(np.arange(self.capacity) >= padding, padding)

    def positions(self, count: int) -> Tensor:
        """The positions of the next `count` tokens: integers (count,), or (rows, count) where rows
        are padded. Padding itself, which has none, gets 0."""
        self._check_room(count)
        positions = arange(count, self._position.backend) + self._position
        return positions if self._padding is None else (positions - self._padding).maximum(0)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Append the new tokens' keys and values (..., count, head size) of one layer.

        Returns the whole buffers, whose unwritten rest lies after every query and so is never seen
        by causal attention, and the position of the first new token.
        """
        *outside, count, _ = k.shape
        self._check_room(count)
        axis, start = len(outside), self._position
        keys, values = self._buffers[layer]
        dtype, kept = k.dtype, keys.dtype
        if kept in HALVES:
            k, v = k.cast(kept), v.cast(kept)
        keys, values = keys.write(k, start, axis), values.write(v, start, axis)
        self._buffers[layer] = keys, values
        if kept is dtype:
            return keys, values, start
        return Half(keys, dtype), Half(values, dtype), start

    def advance(self, count: int) -> None:
        """Move past `count` tokens, once every layer has taken them."""
        self._check_room(count)
        self.length += count
        self._position = self._position + count

    def rewind(self, counts: Sequence[int]) -> int:
        """Row i forgets the last `counts[i]` of its tokens.

        What all rows forget is overwritten by what comes next. Where a row forgets more than others
        it keeps a hole, which is like padding: seen by none, and without a position. When holes add
        up, what lies behind them is moved.

        Returns how many positions are taken then, the least `capacity` that would do.
        """
        if len(counts) != self._rows or not all(0 <= n <= self.length for n in counts):
            raise ShapeError(
                f"rows of a cache of {self._rows} rows that holds {self.length} tokens cannot "
                f"forget {list(counts)}: expected one count a row, of at most as many tokens"
            )
        if self._seen is None and len(set(counts)) == 1:
            self._go_back(self.length - counts[0])
            return self.length
        if not any(counts):
            return self.length
        seen = np.ones((self._rows, self.capacity), bool) if self._seen is None else self._seen
        seen = seen[:, : self.length]
        seen = seen & (seen[:, ::-1].cumsum(1)[:, ::-1] > np.array(counts)[:, None])
        kept = seen.sum(1)
        until = int(np.flatnonzero(seen.any(0)).max(initial=-1)) + 1
        seen = seen[:, :until]
        if until - kept.max() >= HOLES:
            seen = self._close_holes(seen, int(kept.max()))
        self._go_back(seen.shape[1])
        rest = np.ones((self._rows, self.capacity - self.length), bool)
        self._see(np.concatenate([seen, rest], 1), self.length - kept[:, None])
        return self.length

    def _close_holes(self, seen: npt.NDArray[np.bool_], longest: int) -> npt.NDArray[np.bool_]:
        """Move what each row sees to the end of `longest` positions; gives what is seen then."""
        order = np.argsort(seen, axis=1, kind="stable")[:, seen.shape[1] - longest :]
        backend = self._position.backend
        rows = [tensor(row, backend, backend.index_dtype) for row in order]
        start = full((), 0, backend, backend.index_dtype)
        for layer, buffers in enumerate(self._buffers):
            axis = buffers[0].ndim - 2
            moved = [
                concat([buffer[i : i + 1].take(row, axis) for i, row in enumerate(rows)])
                for buffer in buffers
            ]
            keys, values = (
                buffer.write(slab, start, axis) for buffer, slab in zip(buffers, moved, strict=True)
            )
            self._buffers[layer] = keys, values
        return np.take_along_axis(seen, order, 1)

    def _go_back(self, length: int) -> None:
        if length < self.length:
            self._position = self._position - (self.length - length)
            self.length = length

    def reorder(self, rows: Sequence[int]) -> None:
        """Make row i what row `rows[i]` was: as many rows as are named, a row as often as it is."""
        if not all(0 <= row < self._rows for row in rows):
            raise ShapeError(f"rows {list(rows)} of a cache of {self._rows} rows")
        backend = self._position.backend
        chosen = tensor(np.array(rows, np.int64), backend, backend.index_dtype)
        for layer, (keys, values) in enumerate(self._buffers):  # in turn: one layer is held twice
            self._buffers[layer] = keys.take(chosen), values.take(chosen)
        self._rows = len(rows)
        if self._seen is not None and self._padding is not None and self.visible is not None:
            self._seen = self._seen[list(rows)]
            self._padding, self.visible = self._padding.take(chosen), self.visible.take(chosen)

    def _see(self, seen: npt.NDArray[np.bool_], padding: npt.NDArray[np.integer]) -> None:
        backend = self._position.backend
        self._seen, self.visible = seen, tensor(seen, backend)
        self._padding = tensor(padding, backend, backend.index_dtype)

    def _check_room(self, count: int) -> None:
        if self.length + count > self.capacity:
            raise ShapeError(
                f"{count} more tokens after {self.length} do not fit a cache of {self.capacity}"
            )


def positions_among(visible: Tensor) -> Tensor:
    """Where each visible token stands in its text, counted from the first visible one.

    Args:
        visible: bool (rows, count), False where a row holds padding, on whichever side.

    Returns:
        Integers (rows, count); 0 for padding in front.
    """
    backend, count = visible.backend, visible.shape[-1]
    behind = causal_mask(count, count, full((), 0, backend, backend.index_dtype))
    seen = (visible[:, None, :] & behind).cast(backend.index_dtype)  # (rows, count, count)
    return (seen.sum(-1) - 1).maximum(0)
