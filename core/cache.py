"""The key/value cache of a decoder: buffers of fixed size, filled through `write`."""

from __future__ import annotations

from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.errors import ShapeError
from tfx.core.tensor import Tensor, arange, full


class KVCache:
    """Keys and values of every layer for the positions seen so far.

    The position is a 0-d tensor, so one recorded decode step serves every position.

    Args:
        layers: how many layers keep keys and values.
        shape: of one layer's keys, and of its values: (..., positions, head size).
    """

    def __init__(self, layers: int, shape: tuple[int, ...], backend: Backend, dtype: DType) -> None:
        self.capacity = shape[-2]
        self.length = 0
        self._buffers = [
            (full(shape, 0.0, backend, dtype), full(shape, 0.0, backend, dtype))
            for _ in range(layers)
        ]
        self._position = full((), 0, backend, backend.index_dtype)

    def positions(self, count: int) -> Tensor:
        """The positions of the next `count` tokens: integers (count,)."""
        if self.length + count > self.capacity:
            raise ShapeError(
                f"{count} more tokens after {self.length} do not fit a cache of {self.capacity}"
            )
        return arange(count, self._position.backend) + self._position

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Append the new tokens' keys and values (..., count, head size) of one layer.

        Returns the whole buffers, whose unwritten rest lies after every query and so is never seen
        by causal attention, and the position of the first new token.
        """
        keys, values = self._buffers[layer]
        axis = k.ndim - 2
        self._buffers[layer] = (
            keys.write(k, self._position, axis),
            values.write(v, self._position, axis),
        )
        return (*self._buffers[layer], self._position)

    def advance(self, count: int) -> None:
        """Move past `count` tokens, once every layer has taken them."""
        self.length += count
        self._position = self._position + count
