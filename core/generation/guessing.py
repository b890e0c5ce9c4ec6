"""What may come next in texts: looked up in them, or written by a smaller model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tfx.core.errors import OptionError
from tfx.core.generation.causal import Batch, CausalModel
from tfx.core.generation.logits import Chooser, Ids
from tfx.core.generation.pace import Offer

LONGEST = 3
"""So many last tokens of a text, or fewer, are looked for in what is before them."""

Decide = Callable[[Sequence[Offer]], int]
"""How many tokens to verify, of what there is for each text."""


@dataclass(frozen=True)
class Guess:
    """What may come next in a text.

    Attributes:
        tokens: one after the other.
        found_by: how many of the text's last tokens stood before them where they were found; 0
            where nothing was, or they were written.
    """

    tokens: Sequence[int] = ()
    found_by: int = 0


class Guesser(Protocol):
    """Guesses the next tokens of the texts of a batch.

    Attributes:
        is_work: it takes time for each token.
    """

    is_work: bool

    def guess(self, texts: Sequence[Ids], most: int, decide: Decide) -> tuple[list[Guess], int]:
        """At most `most` tokens that may follow each text, and how many of them to verify."""

    def keep(self, rows: Sequence[int]) -> None:
        """What was text `rows[i]` is text i from now on."""


class Lookup:
    """Prompt lookup decoding (Saxena 2023): texts are taken to repeat themselves."""

    is_work = False

    def guess(self, texts: Sequence[Ids], most: int, decide: Decide) -> tuple[list[Guess], int]:
        guesses = [looked_up(ids, most) if most else Guess() for ids in texts]
        return guesses, decide([Offer(len(guess.tokens), guess.found_by) for guess in guesses])

    def keep(self, rows: Sequence[int]) -> None:
        """It remembers nothing."""


def looked_up(ids: Ids, count: int) -> Guess:
    """The `count` tokens that followed when the text stood last where it ends now.

    The end is as many as LONGEST tokens, or fewer if those were not there before; none follow where
    not even the last was. What was found may reach the end of the text, and is taken to go on
    there as it began.

    >>> looked_up(np.array([1, 2, 3, 9, 1, 2, 4, 8, 1, 2]), 3)
    Guess(tokens=[4, 8, 1], found_by=2)
    >>> looked_up(np.array([5, 6, 5]), 5)
    Guess(tokens=[6, 5, 6, 5, 6], found_by=1)
    """
    found_by = 1
    places = np.flatnonzero(ids[:-1] == ids[-1])
    if not places.size:
        return Guess()
    while found_by < LONGEST:
        longer = places[places >= found_by]
        longer = longer[ids[longer - found_by] == ids[-1 - found_by]]
        if not longer.size:
            break
        places = longer
        found_by += 1
    following: list[int] = ids[places[-1] + 1 :][:count].tolist()
    return Guess((following * -(-count // len(following)))[:count], found_by)


class Draft:
    """Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192): a smaller model writes on.

    It draws each token by the number that the token itself will be drawn by, so that it guesses
    right as often as the two models agree.

    Args:
        model: with the tokens of the one that verifies.
        prompts: text i goes on from `prompts[rows[i]]`.
        choosers: of each text.
        most: how many tokens it will be asked for at a time.
    """

    is_work = True

    def __init__(
        self,
        model: CausalModel,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[int],
        choosers: Sequence[Chooser],
        most: int,
    ) -> None:
        self._batch = Batch(model, prompts, choosers[0].options.max_new_tokens, most)
        self._batch.keep(rows)
        self._choosers = list(choosers)
        self._lengths = [chooser.prompt for chooser in choosers]

    def guess(self, texts: Sequence[Ids], most: int, decide: Decide) -> tuple[list[Guess], int]:
        count = decide([Offer(most)] * len(texts))
        guesses: list[list[int]] = [[] for _ in texts]
        if count:
            self._learn(texts)
        for _ in range(count):
            self._batch.read()
            for row, guess in enumerate(guesses):
                guess.append(self._next(row))
                self._batch.append(row, guess[-1])
        return [Guess(tokens) for tokens in guesses], count

    def keep(self, rows: Sequence[int]) -> None:
        self._batch.keep(rows)
        self._choosers = [self._choosers[row] for row in rows]
        self._lengths = [self._lengths[row] for row in rows]

    def _learn(self, texts: Sequence[Ids]) -> None:
        """Have what the texts have become in place of what it guessed they would."""
        for row, ids in enumerate(texts):
            self._batch.cut(row, self._lengths[row])
            for token in ids[self._lengths[row] :].tolist():
                self._batch.append(row, token)
            self._lengths[row] = len(ids)

    def _next(self, row: int) -> int:
        logits = self._batch.behind(row)
        assert logits is not None
        try:
            return self._choosers[row](logits, self._batch.ids(row))
        except OptionError:  # no token is left after what it guessed, which may be wrong
            return 0
