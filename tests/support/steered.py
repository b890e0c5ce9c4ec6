"""A model to be steered of which one knows what it will say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LETTERS = "abcdefgh"


class Alphabet:
    """Likes best the letter behind the last, then those behind that one, whatever theta is.

    Attributes:
        text: what it has read and not forgotten.
        thetas: under which it read each.
    """

    def __init__(self, vocabulary: int = len(LETTERS)) -> None:
        self.vocabulary = vocabulary
        self.text: list[int] = []
        self.thetas: list[float] = []

    def read(self, ids: Sequence[int], theta: float) -> Any:
        self.text += ids
        self.thetas += [theta] * len(ids)
        behind = (np.arange(self.vocabulary) - self.text[-1] - 1) % self.vocabulary
        return -np.log(2.0) * behind

    def forget(self, count: int) -> None:
        del self.text[-count:], self.thetas[-count:]


def spelled(ids: Sequence[int]) -> str:
    return "".join(LETTERS[i] for i in ids)
