"""What a causal model is, and a batch of texts that one is reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import NonFiniteError
from tfx.core.generation.logits import Ids, Row
from tfx.core.tensor import Tensor

ROOM = 1024
"""For so many new tokens there is room from the start; it doubles when they fill it."""


class Cache(Protocol):
    """What a model remembers of the texts it has read, one in each row; `KVCache` is one."""

    def pad_left(self, counts: Sequence[int]) -> None:
        """Before the first token: the first `counts[i]` tokens of row i will be padding."""

    def reorder(self, rows: Sequence[int]) -> None:
        """Make row i what row `rows[i]` was, with as many rows as are named."""


class CausalModel(Protocol):
    """A model that gives logits for the next token. What are properties here may be attributes."""

    @property
    def backend(self) -> Backend:
        """What it computes on."""

    @property
    def vocab_size(self) -> int:
        """Its ids are in [0, vocab_size)."""

    @property
    def max_positions(self) -> int:
        """How many tokens of a text it can read."""

    def start(self, batch: int, capacity: int) -> Cache:
        """An empty cache for `batch` texts of at most `capacity` tokens."""

    def logits(self, ids: Tensor, cache: Any) -> Tensor:
        """Read ids (batch, T) after what the cache holds, and leave them in it.

        Returns the logits (batch, vocab_size) behind each row's last id. A row that was padded on
        the left gives what it gives alone: padding has no position, and is seen by no token.
        """


class Batch:
    """Texts in progress: prompts read by a model in one pass, going on token by token.

    Prompts of different lengths are padded on the left, so that all end together. When the model's
    positions are full, what each text still has in view (`window_start`) is read anew.

    Args:
        model: what reads them.
        prompts: ids of each, none of them empty.
        max_new_tokens: how many tokens may be added to each; the last of them is not read.

    Attributes:
        logits: for the next token of each text, float32 or float64 (texts, vocabulary).
    """

    logits: Row

    def __init__(
        self, model: CausalModel, prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> None:
        self._model = model
        self._length = longest = max(map(len, prompts))
        self._padding = [longest - len(prompt) for prompt in prompts]
        self._longest = longest + max_new_tokens
        self._ids = np.zeros((len(prompts), longest + min(max_new_tokens, ROOM)), np.int64)
        for row, padding, prompt in zip(self._ids, self._padding, prompts, strict=True):
            row[padding:longest] = prompt
        self._begin()

    def ids(self, row: int) -> Ids:
        """The tokens of one text, prompt and all."""
        return self._ids[row, self._padding[row] : self._length]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with text `rows[i]` in place i; what is named twice goes on twice."""
        if list(rows) == list(range(len(self._padding))):
            return
        self._cache.reorder(rows)
        self._padding = [self._padding[row] for row in rows]
        self._ids = self._ids[list(rows)]
        self.logits = self.logits[list(rows)]

    def append(self, tokens: Sequence[int]) -> None:
        """Add one token to each text, and read them."""
        if self._length == self._ids.shape[1]:
            self._ids = np.pad(self._ids, [(0, 0), (0, self._length)])
        self._ids[:, self._length] = tokens
        self._length += 1
        if self._taken < self._model.max_positions:
            self._read(self._ids[:, self._length - 1 : self._length])
        else:
            self._begin()

    def _begin(self) -> None:
        """Read what each text has in view, after nothing."""
        texts = [self.ids(row) for row in range(len(self._padding))]
        positions = self._model.max_positions
        views = [text[window_start(len(text), positions) :] for text in texts]
        longest = max(map(len, views))
        to_read = self._longest - self._length - 1
        self._cache = self._model.start(len(views), min(longest + to_read, positions))
        self._cache.pad_left([longest - len(view) for view in views])
        self._taken = 0
        self._read(np.stack([np.pad(view, (longest - len(view), 0)) for view in views]))

    def _read(self, ids: Ids) -> None:
        backend = self._model.backend
        self._taken += ids.shape[1]
        logits = self._model.logits(tensor(ids, backend, backend.index_dtype), self._cache)
        if logits.dtype.itemsize < 4:
            logits = logits.cast(DType.float32)
        self.logits = logits.numpy()
        if not np.isfinite(self.logits.max(-1)).all():
            raise NonFiniteError("the logits are not finite: the model's parameters are too large")


def window_start(length: int, positions: int) -> int:
    """Where in a text of `length` tokens a model with so many positions begins to read.

    At 0 while it fits. With the token after that, the earlier half leaves the view, and the like
    each time that the view is full again. It depends on the length alone, so that a text is read
    as if all of it had been generated.

    >>> [window_start(length, 4) for length in range(1, 10)]
    [0, 0, 0, 0, 2, 2, 4, 4, 6]
    """
    step = positions - positions // 2
    return -(-max(length - positions, 0) // step) * step
