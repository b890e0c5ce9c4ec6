"""What a causal model is, and a batch of texts that one is reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from tfx.core.backend import Backend
from tfx.core.cache import HOLES
from tfx.core.checks import check_finite
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
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


@runtime_checkable
class Rewinding(Cache, Protocol):
    """A cache that can forget the last tokens, as speculation needs it to."""

    def rewind(self, counts: Sequence[int]) -> int:
        """Row i forgets the last `counts[i]` of its tokens.

        Returns how much of the capacity is taken then. What one row forgets and another does not
        may stay taken, as padding.
        """


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


@runtime_checkable
class Verifying(CausalModel, Protocol):
    """A causal model that can judge several tokens in one pass; its caches are `Rewinding`."""

    def each_logits(self, ids: Tensor, cache: Any) -> Tensor:
        """Read ids as `logits` does; the logits (batch, T, vocab_size) behind each of them."""


@dataclass
class _Text:
    """One text of a batch, and how much of it the model has read. All counts are from its start.

    Attributes:
        ids: its tokens, and behind them, while they are not contradicted, guesses.
        length: how many of the ids are its tokens.
        limit: how many it may have.
        begin: the cache has what comes from here on,
        held: to here,
        right: and to here it is right.
        read: how long the text was when the model last read.
    """

    ids: Ids
    length: int
    limit: int
    begin: int = 0
    held: int = 0
    right: int = 0
    read: int = 0

    def append(self, token: int) -> None:
        if self.length < self.right and self.ids[self.length] != token:
            self.right = self.length
        self.make_room(1)
        self.ids[self.length] = token
        self.length += 1

    def guess(self, tokens: Sequence[int], count: int) -> None:
        """Have `count` ids behind the tokens: those that are guessed, and any after them."""
        self.make_room(count)
        self.ids[self.length : self.length + count] = [*tokens, *[0] * (count - len(tokens))]

    def make_room(self, count: int) -> None:
        short = self.length + count - len(self.ids)
        if short > 0:
            self.ids = np.pad(self.ids, (0, max(short, len(self.ids))))


class Batch:
    """Texts in progress: prompts read by a model in one pass, going on by a token or by several.

    In the cache all end together: what is shorter is padded on the left. With the tokens that are
    new, guesses may be read at what comes next; what proves wrong is forgotten by the next pass.
    When the model's positions are full, what each text still has in view (`window_start`) is read
    anew.

    Args:
        model: what reads them; one that is `Verifying`, where there will be guesses.
        prompts: ids of each, none of them empty.
        max_new_tokens: how many tokens may be added to each; the last of them is not read.
        guesses: the most that will be read at a time; with any, tokens can be taken back too.

    Attributes:
        chosen: what comes next in each text, ids (texts,) on the backend, where it was chosen
            there: the next pass reads them as they are. They have to be appended all the same.
        guessed: how many guesses the model has read behind each text.
        scores: the logits as the model left them, (texts, vocabulary), behind the last ids; of
            all ids that were read, (texts, ids, vocabulary), where there were guesses.
    """

    scores: Tensor
    guessed: int
    _logits: Row | None

    def __init__(
        self,
        model: CausalModel,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        guesses: int = 0,
    ) -> None:
        self._model = model
        self._guesses = guesses
        room = min(max_new_tokens, ROOM)
        self._texts = [
            _Text(np.pad(np.asarray(ids, np.int64), (0, room)), len(ids), len(ids) + max_new_tokens)
            for ids in prompts
        ]
        self.chosen: Tensor | None = None
        self._begin()

    @property
    def backend(self) -> Backend:
        """What the model computes on."""
        return self._model.backend

    @property
    def takes_guesses(self) -> bool:
        """Whether there may be guesses."""
        return self._guesses > 0

    def ids(self, row: int) -> Ids:
        """The tokens of one text, prompt and all."""
        text = self._texts[row]
        return text.ids[: text.length]

    @property
    def texts(self) -> list[Ids]:
        """The tokens of each text."""
        return [self.ids(row) for row in range(len(self._texts))]

    @property
    def logits(self) -> Row:
        """On the host (texts, 1 + guesses, vocabulary), float32 or float64: behind the last token
        of each text as it was read, and behind each guess. The first look waits for them.

        Raises:
            NonFiniteError: they are not finite.
        """
        if self._logits is None:
            host = self.scores.numpy()
            self._logits = host[:, None] if host.ndim == 2 else host[:, -1 - self.guessed :]
            check_finite("the logits are", self._logits.max(-1))
        return self._logits

    @property
    def room(self) -> int:
        """How many guesses can be right in some text: all that may come before its last token."""
        return max(text.limit - text.length for text in self._texts) - 1

    def has_read(self, row: int) -> bool:
        """Whether the model has read a text to its last token."""
        text = self._texts[row]
        ahead = text.length - text.read
        return ahead <= self.guessed and (not ahead or text.length <= text.right)

    def behind(self, row: int) -> Row | None:
        """The logits behind the last token of a text; None where the model has not read it."""
        if not self.has_read(row):
            return None
        found: Row = self.logits[row, self._texts[row].length - self._texts[row].read]
        return found

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with text `rows[i]` in place i; what is named twice goes on twice."""
        if list(rows) == list(range(len(self._texts))):
            return
        self._cache.reorder(rows)
        self._texts = [replace(self._texts[row], ids=self._texts[row].ids.copy()) for row in rows]
        self.chosen = None
        if self._logits is not None:
            self._logits = self._logits[list(rows)]
        else:
            self.scores = self.scores.take(self._tensor(np.array(rows)))

    def append(self, row: int, token: int) -> None:
        """Add a token to a text; it is read by the next `read`, if it was not guessed."""
        self._texts[row].append(token)

    def cut(self, row: int, length: int) -> None:
        """Take back what a text has beyond `length` tokens."""
        self._texts[row].length = length

    def read(self, guesses: Sequence[Sequence[int]] = ()) -> None:
        """Read what is new in each text, and behind it what is guessed to come next.

        Guesses that there are no positions for are left out.
        """
        texts, positions = self._texts, self._model.max_positions
        new = max([1, *[text.length - text.right for text in texts]])
        views = [text.length - text.begin for text in texts]
        if max(views) > positions or min(views) < new:
            return self._begin()
        wrong = [text.held - text.length + new for text in texts]
        if any(wrong):
            self._taken = self._cache.rewind(wrong)
        count = min(max(map(len, guesses), default=0), positions - max(views))
        if self._taken + new + count > self._capacity:
            return self._begin()
        if count:
            for text, guess in zip(texts, guesses, strict=True):
                text.guess(guess[:count], count)
        if self.chosen is not None and new == 1 and not count:
            return self._read(self.chosen[:, None])
        ids = [text.ids[text.length - new : text.length + count] for text in texts]
        self._read(self._tensor(np.array(ids)), count)

    def _begin(self) -> None:
        """Read what each text has in view, after nothing."""
        positions = self._model.max_positions
        for text in self._texts:
            text.begin = window_start(text.length, positions)
        views = [text.ids[text.begin : text.length] for text in self._texts]
        longest = max(map(len, views))
        to_read = max(text.limit - text.length for text in self._texts) - 1
        self._capacity = min(longest + to_read, positions)
        if self._guesses and len(views) > 1:
            self._capacity += HOLES + self._guesses
        self._taken = 0
        self._cache: Any = self._model.start(len(views), self._capacity)
        self._cache.pad_left([longest - len(view) for view in views])
        ids = np.stack([np.pad(view, (longest - len(view), 0)) for view in views])
        self._read(self._tensor(ids))

    def _tensor(self, ids: Ids) -> Tensor:
        return tensor(ids, self.backend, self.backend.index_dtype)

    def _read(self, ids: Tensor, guesses: int = 0) -> None:
        self._taken += ids.shape[1]
        if guesses:
            logits = cast(Verifying, self._model).each_logits(ids, self._cache)
        else:
            logits = self._model.logits(ids, self._cache)
        if logits.dtype.itemsize < 4:
            logits = logits.cast(DType.float32)
        self.scores = logits
        self._logits = None
        self.chosen = None
        self.guessed = guesses
        for text in self._texts:
            text.read = text.length
            text.held = text.right = text.length + guesses


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
