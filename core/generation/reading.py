"""Reading few tokens at a time, over and over: captured, for models that decode."""

from __future__ import annotations

from collections.abc import Callable

from tfx.core.cache import KVCache
from tfx.core.capture import jit
from tfx.core.tensor import Tensor

FEW = 16
"""More tokens at a time than these are read as ever: that is done once for each prompt, and takes
long enough for the calls not to matter."""

_LEAST_ROOM = 64


class Reading:
    """A model's way to read tokens, replayed where it is asked for few of them.

    Args:
        read: `(ids, cache, *more) -> logits`: reads ids (batch, T) after what the cache holds, and
            leaves them in it. What it closes over, the parameters, counts as constant; what may be
            another tensor each time is one of `more`.
    """

    def __init__(self, read: Callable[..., Tensor]) -> None:
        self._read = read
        self._step = jit(self._read_and_keep, donate_argnums=(1,))

    def __call__(self, ids: Tensor, cache: KVCache, *more: Tensor | None) -> Tensor:
        length = cache.length + ids.shape[1]
        if ids.shape[1] > FEW or length > cache.capacity:  # which the cache refuses
            return self._read(ids, cache, *more)
        logits, kept = self._step(ids, cache, *more)
        cache.become(kept, length)
        return logits

    def _read_and_keep(
        self, ids: Tensor, cache: KVCache, *more: Tensor | None
    ) -> tuple[Tensor, KVCache]:
        return self._read(ids, cache, *more), cache

    def explain(self) -> str:
        """What was captured, in words."""
        return self._step.explain()


def room_for(count: int, most: int, least: int = _LEAST_ROOM) -> int:
    """Room for `count` tokens, of which there can be `most`, in a cache or a text that is filled
    up: a power of two from `least` on, since each number of tokens is captured by itself.

    >>> room_for(5, 1024), room_for(100, 1024), room_for(900, 1000), room_for(5, 16)
    (64, 128, 1000, 16)
    """
    room = least
    while room < count:
        room *= 2
    return max(count, min(room, most))
