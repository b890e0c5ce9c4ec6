"""Going on from a prompt token by token, while somebody says of each whether it is the right one.

Satisfaction raises theta, which sharpens attention; dissatisfaction lowers it. The tokens for a
place are ranked once, when it comes up; what a judgement changes about theta holds for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tfx.core.checks import check_finite
from tfx.core.errors import UsageError
from tfx.core.experiences import Decision
from tfx.core.generation.logits import softmax

START, STEP = 0.75, 0.05
"""Theta where no experience says otherwise, and by how much a judgement moves it."""

RANKED = 100
"""So many of the likeliest tokens are there to choose from at each place."""

SATISFIED, NOT_SATISFIED = "s", "n"


class Steered(Protocol):
    """A model that reads one text on and on, under a theta that may be another each time."""

    def read(self, ids: Sequence[int], theta: float) -> npt.NDArray[np.floating]:
        """Scores (vocabulary,) of what follows these tokens, which follow those read before."""

    def forget(self, count: int) -> None:
        """Go back by so many tokens."""


class Choice(NamedTuple):
    """A token and how likely it is."""

    token_id: int
    probability: float


@dataclass(frozen=True)
class Bounds:
    """What theta keeps to, and by how much a judgement moves it.

    Raises:
        UsageError: `low` is above `high`, or a number is below 0.
    """

    low: float = 0.0
    high: float = 1.0
    step: float = STEP

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or self.step < 0:
            raise UsageError(
                f"theta from {self.low} to {self.high} in steps of {self.step}: expected bounds of "
                "at least 0, the lower first, and a step of at least 0"
            )

    def clamped(self, theta: float) -> float:
        """The theta within the bounds that is nearest; without what rounding adds to sums.

        >>> Bounds().clamped(0.1 + 0.2), Bounds().clamped(1.05), Bounds(0.5, 2).clamped(0)
        (0.3, 1.0, 0.5)
        """
        return round(min(max(theta, self.low), self.high), 9)


class Resonance:
    """One text in the making.

    The model reads when `proposed` or `alternatives` are asked for, and not before: so a decision
    can be kept before what it leads to is computed.

    Args:
        model: has read nothing yet.
        decode: from ids to text.
        prompt: at least one token.
        theta: to begin with; the prompt is read under it.
        ends: the tokens that end a text.
        room: how many tokens there may be.

    Attributes:
        theta: as it is now.
        decisions: those that stand.
    """

    def __init__(
        self,
        model: Steered,
        decode: Callable[[Sequence[int]], str],
        prompt: Sequence[int],
        theta: float = START,
        bounds: Bounds = Bounds(),
        ends: Sequence[int] = (),
        room: int = 100,
    ) -> None:
        self._model, self._decode, self._prompt = model, decode, tuple(prompt)
        self._bounds, self._ends, self._room = bounds, frozenset(ends), room
        self.theta = bounds.clamped(theta)
        self.decisions: list[Decision] = []
        self._ranked: list[list[Choice]] = []  # for each place that was read for

    @property
    def token_ids(self) -> list[int]:
        """The tokens that stand."""
        return [d.token_id for d in self.decisions if d.key == SATISFIED]

    @property
    def response(self) -> str:
        """Their text, without what ended it."""
        return self._decode([token for token in self.token_ids if token not in self._ends])

    @property
    def score(self) -> float | None:
        """The share of the decisions that were satisfied."""
        return len(self.token_ids) / len(self.decisions) if self.decisions else None

    @property
    def finish_reason(self) -> str | None:
        """ "eos" or "length" when there is nothing more to judge; else None."""
        tokens = self.token_ids
        if tokens and tokens[-1] in self._ends:
            return "eos"
        return "length" if len(tokens) == self._room else None

    @property
    def proposed(self) -> Choice:
        """The token to be judged.

        Raises:
            UsageError: there is nothing more to judge.
            NonFiniteError: the model's scores are not finite.
        """
        return self._candidates()[0]

    def alternatives(self, count: int) -> list[Choice]:
        """What would come next in its place, the best first. Raises as `proposed`."""
        return self._candidates()[1 : count + 1]

    def _candidates(self) -> list[Choice]:
        """The ranked tokens for the open place, without those refused there."""
        if self.finish_reason is not None:
            raise UsageError("the text is at its end; undo, or quit")
        tokens = self.token_ids
        if len(self._ranked) == len(tokens):
            self._ranked.append(self._read(tokens[-1:] or self._prompt))
        refused = 0
        for decision in reversed(self.decisions):
            if decision.key == SATISFIED:
                break
            refused += 1
        return self._ranked[-1][refused:]

    def _read(self, ids: Sequence[int]) -> list[Choice]:
        scores = np.asarray(self._model.read(ids, self.theta), np.float64)
        check_finite("the scores are", scores)
        weights = softmax(scores)
        best = np.argsort(-scores, kind="stable")[:RANKED]
        return [Choice(int(i), float(weights[i])) for i in best]

    def text_of(self, choice: Choice) -> str:
        """The text of a token by itself; what is no whole character shows as U+FFFD."""
        return self._decode([choice.token_id])

    def satisfied(self) -> Decision:
        """The proposed token stands, and theta rises. Raises as `proposed`."""
        return self._decide(SATISFIED, self._bounds.step)

    def not_satisfied(self) -> Decision:
        """The proposed token is refused, and theta falls: the next alternative is proposed.

        Raises:
            UsageError: there is no alternative left. And as `proposed`.
        """
        if not self.alternatives(1):
            raise UsageError("no alternative is left; take this token, or undo")
        return self._decide(NOT_SATISFIED, -self._bounds.step)

    def _decide(self, key: str, change: float) -> Decision:
        token = self.proposed
        text = self.text_of(token)
        self.decisions.append(Decision(key, token.token_id, text, token.probability, self.theta))
        self.theta = self._bounds.clamped(self.theta + change)
        return self.decisions[-1]

    def undo(self) -> Decision:
        """Take the last decision back, and theta with it.

        Raises:
            UsageError: there is none.
        """
        if not self.decisions:
            raise UsageError("there is nothing to undo")
        decision = self.decisions.pop()
        self.theta = decision.theta
        if len(self._ranked) > len(self.token_ids) + 1:  # the token taken back was read
            self._ranked.pop()
            self._model.forget(1)
        return decision
