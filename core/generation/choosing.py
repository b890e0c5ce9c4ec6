"""Where the next tokens are chosen: on the host, or by the backend where their logits lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.fused import is_overridden
from tfx.core.generation.causal import Batch
from tfx.core.generation.logits import Chooser, uniforms
from tfx.core.generation.sampling import sample_token
from tfx.core.tensor import Tensor

_STEPS = 1024  # uniform numbers for so many steps go to the device at once


class Choosing(Protocol):
    """Chooses the tokens of a batch of texts."""

    def token(self, row: int) -> int | None:
        """What follows a text; None where the model has to read it first."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with text `rows[i]` in place i."""


def choosing_for(batch: Batch, choosers: Sequence[Chooser]) -> Choosing:
    """How the tokens of a batch are chosen: where nobody needs the logits on the host, and the
    backend has a kernel that chooses, there."""
    options = choosers[0].options
    takes_logits = (
        options.repetition_penalty != 1
        or options.no_repeat_ngram_size
        or options.min_new_tokens
        or options.logprobs is not None
        or batch.takes_guesses
    )
    if takes_logits or not is_overridden("sample_token", batch.backend):
        return OnHost(batch, choosers)
    return OnDevice(batch, choosers)


class OnHost:
    """By the logits behind each text, which the batch copies once a pass."""

    def __init__(self, batch: Batch, choosers: Sequence[Chooser]) -> None:
        self._batch = batch
        self._choosers = list(choosers)

    def token(self, row: int) -> int | None:
        logits = self._batch.behind(row)
        return None if logits is None else self._choosers[row](logits, self._batch.ids(row))

    def keep(self, rows: Sequence[int]) -> None:
        self._choosers = [self._choosers[row] for row in rows]


class OnDevice:
    """For all texts at once by `sample_token`, which gives what `OnHost` does. The ids alone are
    copied, and the next pass reads them where they are."""

    def __init__(self, batch: Batch, choosers: Sequence[Chooser]) -> None:
        self._batch = batch
        self._choosers = list(choosers)
        self._ids: list[int] = []
        self._steps = range(0)
        self._numbers: Tensor | None = None  # that draw at these steps: (steps, texts)

    def token(self, row: int) -> int | None:
        batch = self._batch
        if not batch.has_read(row):
            return None
        if batch.chosen is None:  # since it read
            drawn = self._draw()
            self._ids = drawn.numpy().tolist()
            batch.chosen = drawn if min(self._ids) >= 0 else self._by_host(drawn.dtype)
        return self._ids[row]

    def _by_host(self, dtype: DType) -> Tensor:
        """The ids, with those that the device did not find. The host says why there are none; or
        finds them, since it computes with smaller numbers."""
        host = OnHost(self._batch, self._choosers)
        for row, id in enumerate(self._ids):
            if id < 0 and (found := host.token(row)) is not None:
                self._ids[row] = found
        return tensor(np.array(self._ids), self._batch.backend, dtype)

    def keep(self, rows: Sequence[int]) -> None:
        self._choosers = [self._choosers[row] for row in rows]
        self._steps = range(0)

    def _draw(self) -> Tensor:
        options, scores = self._choosers[0].options, self._batch.scores
        if not options.temperature:
            return sample_token(scores)
        return sample_token(
            scores,
            self._uniforms(),
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
        )

    def _uniforms(self) -> Tensor:
        """The numbers that draw now, one for each text: all are at the same step."""
        step = len(self._batch.ids(0)) - self._choosers[0].prompt
        if self._numbers is None or step not in self._steps:
            most = self._choosers[0].options.max_new_tokens
            self._steps = range(step, min(step + _STEPS, most))
            numbers = [uniforms(c.seed, c.sample, self._steps) for c in self._choosers]
            self._numbers = tensor(np.stack(numbers, axis=1), self._batch.backend)
        return self._numbers[step - self._steps.start]
