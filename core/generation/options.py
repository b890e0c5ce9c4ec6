"""What can be chosen about a generation, and what goes together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from tfx.core.errors import OptionError, UsageError

MOST_TOKENS = 2**31 - 1
"""What is longer has no place in memory."""


@dataclass(frozen=True)
class GenerationOptions:
    """How tokens are chosen and when a text ends; the defaults take the likeliest token.

    What applies to the logits does so in this order: repetition_penalty, no_repeat_ngram_size,
    min_new_tokens; then, where tokens are drawn, temperature, top_k, top_p, min_p.

    Attributes:
        max_new_tokens: a text ends after so many tokens.
        min_new_tokens: no token of `eos_ids` before so many others.
        temperature: what logits are divided by before a token is drawn; 0 takes the likeliest.
        top_k: draw from the k likeliest tokens, and what is as likely as the last of them; 0: all.
        top_p: draw from the smallest set of likeliest tokens that together reach p; 1: all.
        min_p: draw from the tokens at least min_p times as likely as the likeliest; 0: all.
        repetition_penalty: what the logits of tokens seen before are divided by (multiplied, where
            they are negative); 1: none (Keskar et al. 2019, arXiv:1909.05858).
        no_repeat_ngram_size: no sequence of so many tokens twice, the prompt included; 0: any.
        num_beams: how many texts a beam search follows at once; 1: no search.
        length_penalty: a search compares sums of log-probabilities over length ** length_penalty.
        early_stopping: True: a search ends when it has num_beams texts; False: when the best of
            those it follows, scored at its length, is behind all of them; "never": when it will be,
            whatever comes.
        num_samples: texts for each prompt: as many draws, or the best of a search.
        eos_ids: tokens that end a text.
        stop: strings that end a text; they need a decoder.
        seed: of the draws, from 0 up to 2**64.
        logprobs: also give each token's log-probability, and those of so many of the likeliest in
            its place; None: neither.
        window: a text may grow past the model's positions. Whenever they are full the model goes
            on from their later half, read anew from position 0, and forgets what was before.

    Raises:
        OptionError: a value is out of range, or two exclude each other; names the field.
    """

    max_new_tokens: int = 50
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_samples: int = 1
    eos_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: int | None = None
    window: bool = False

    def __post_init__(self) -> None:
        self._whole("min_new_tokens", 0, MOST_TOKENS)
        self._whole("max_new_tokens", 1, MOST_TOKENS)
        self._number("temperature", 0)
        self._whole("top_k", 0)
        self._number("top_p", 0, 1)
        self._number("min_p", 0, 1)
        self._number("repetition_penalty", 0)
        self._whole("no_repeat_ngram_size", 0)
        self._whole("num_beams", 1)
        self._number("length_penalty", -10, 10)
        self._whole("num_samples", 1)
        self._whole("seed", 0, 2**64 - 1)
        if self.logprobs is not None:
            self._whole("logprobs", 0)
        self._check_kinds()
        self._check_together()

    def _check_kinds(self) -> None:
        if self.repetition_penalty == 0:
            raise self._wrong("repetition_penalty", "a number above 0; 1 is no penalty")
        if not isinstance(self.window, bool):
            raise self._wrong("window", "True or False")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise self._wrong("early_stopping", "True, False or 'never'")
        if not _is_tuple_of(Integral, self.eos_ids) or min(self.eos_ids, default=0) < 0:
            raise self._wrong("eos_ids", "a tuple of token ids")
        if not _is_tuple_of(str, self.stop):
            raise self._wrong("stop", "a tuple of strings")
        if "" in self.stop:
            raise OptionError("{stop} '' would end every text at once; expected some text, or none")

    def _check_together(self) -> None:
        if self.min_new_tokens > self.max_new_tokens:
            most = self.max_new_tokens
            raise self._wrong("min_new_tokens", "at most {max_new_tokens}, {most}", most=most)
        if self.num_beams > 1:
            if self.temperature:
                raise self._wrong("temperature", "0 with {num_beams}: a search draws no tokens")
            if self.num_samples > self.num_beams:
                raise self._wrong("num_samples", "at most {num_beams}, {most}", most=self.num_beams)
        elif self.num_samples > 1 and not self.temperature:
            raise self._wrong("num_samples", "1 at {temperature} 0, where every text is the same")

    def _whole(self, field: str, low: int, high: float = math.inf) -> None:
        value = getattr(self, field)
        if not _is_a(Integral, value) or not low <= int(value) <= high:
            raise self._wrong(field, f"a whole number {_range(low, high)}")

    def _number(self, field: str, low: float, high: float = math.inf) -> None:
        value = getattr(self, field)
        if not _is_a(Real, value) or not low <= float(value) <= high or math.isinf(value):
            raise self._wrong(field, f"a number {_range(low, high)}")

    def _wrong(self, field: str, expected: str, **values: object) -> UsageError:
        message = f"{{{field}}} {{given!r}}: expected {expected}"
        return OptionError(message, given=getattr(self, field), **values)


def _range(low: float, high: float) -> str:
    return f"from {low} up" if high == math.inf else f"from {low} to {high}"


def _is_a(kind: type, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_tuple_of(kind: type, value: object) -> bool:
    return isinstance(value, tuple) and all(_is_a(kind, x) for x in value)
