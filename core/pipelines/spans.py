"""Answers to questions: the likeliest stretches of a context, from the scores of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.generation.logits import softmax

LONGEST = 64
"""An answer takes at most so many tokens, where nobody says."""

Answer = dict[str, Any]


@dataclass(frozen=True)
class Window:
    """A question with a part of its context: `ids[begins:ends]`, which are tokens `first` and on of
    the whole. The token behind it stands for "no answer"."""

    ids: Sequence[int]
    begins: int
    ends: int
    first: int = 0


def best_answers(
    context: str,
    spans: Sequence[tuple[int, int]],
    windows: Sequence[Window],
    scores: Sequence[Sequence[HostArray]],
    top_k: int = 1,
    longest: int = LONGEST,
    impossible: bool = True,
) -> list[Answer]:
    """The likeliest answers, at most `top_k`: `answer`, `score`, `start`, `end`, in characters of
    the context, half open. White space is none, and what differs in it is one.

    Args:
        spans: the characters of each of the context's tokens.
        windows: how it was read.
        scores: of each window, those of its tokens as the first and as the last of an answer. An
            answer's own is the product of both probabilities among all that may be one there.
        longest: an answer takes at most so many tokens.
        impossible: whether "no answer", an empty text at 0, is one. It is as likely as in the
            window that has the least of it.
    """
    found: dict[tuple[int, int], Answer] = {}
    nothing = 1.0
    for window, rows in zip(windows, scores, strict=True):
        may_be = slice(window.begins, window.ends + impossible)
        first, last = (softmax(row[may_be]) for row in rows)
        count = window.ends - window.begins
        if impossible:
            nothing = min(nothing, float(first[count] * last[count]))
        pairs = np.triu(first[:count, None] * last[None, :count])
        pairs -= np.triu(pairs, longest)
        here: set[tuple[int, int]] = set()
        while len(here) < top_k and pairs.any():
            i, j = divmod(int(pairs.argmax()), count)
            answer = _stretch(context, spans[window.first + i][0], spans[window.first + j][1])
            answer["score"], pairs[i, j] = float(pairs[i, j]), 0
            place = answer["start"], answer["end"]
            if not answer["answer"]:
                continue
            here.add(place)
            if place not in found or found[place]["score"] < answer["score"]:
                found[place] = answer
    answers = list(found.values())
    if impossible:
        answers.append({"answer": "", "score": nothing, "start": 0, "end": 0})
    return sorted(answers, key=lambda answer: -answer["score"])[:top_k]


def _stretch(context: str, start: int, end: int) -> Answer:
    """Characters of the context, without white space around them."""
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    return {"answer": text, "score": 0.0, "start": start, "end": start + len(text)}
