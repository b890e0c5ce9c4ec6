"""The pipeline `perplexity`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tfx.core.arguments import whole
from tfx.core.checks import check_finite
from tfx.core.creation import tensor
from tfx.core.errors import UsageError
from tfx.core.nn import cross_entropy
from tfx.core.pipelines.pipeline import Pipeline
from tfx.core.windows import LOGITS_AT_ONCE, windows_over


class Perplexity(Pipeline):
    """How well a text is predicted: `perplexity`, the exponential of `loss`, which is in nats per
    token, the mean over the `num_tokens` that have one before them. A text that is longer than the
    model's positions is read in windows; each token counts once. Texts are read one by one.

    Options:
        stride: how far apart windows are; by default the positions, side by side. Less gives each
            token more before it, and takes longer.
    """

    task = "perplexity"
    defaults: ClassVar = {"stride": None}

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = super().chosen(options)
        stride, most = found["stride"], self.model.max_positions
        if stride is not None and whole("stride", stride) > most:
            raise UsageError(f"stride {stride} would leave tokens out; expected at most {most}")
        return found

    def _check(self) -> None:
        _ = self.model.causal, self.model.codec  # both have something to say where they lack

    def read(self, given: Any, options: Mapping[str, Any]) -> list[int]:
        ids = self.model.encode(given)
        if len(ids) < 2:
            raise UsageError(f"its length in tokens is {len(ids)}; expected a second to predict")
        return ids

    def answer(self, read: Sequence[list[int]], options: Mapping[str, Any]) -> list[Any]:
        return [self._judged(ids, options["stride"] or self.model.max_positions) for ids in read]

    def _judged(self, ids: list[int], stride: int) -> dict[str, Any]:
        count = len(ids) - 1
        total = sum(
            self._losses(ids[window.start : window.stop + 1], window.counted - window.start)
            for window in windows_over(count, self.model.max_positions, stride)
        )
        check_finite("the loss is", np.array(total))
        loss = total / count
        return {
            "perplexity": math.exp(loss) if loss < 700 else math.inf,
            "loss": loss,
            "num_tokens": count,
        }

    def _losses(self, ids: list[int], counted: int) -> float:
        """The sum of the losses of a window's tokens, from the one behind `counted` on."""
        backend, place, total = self.model.backend, 0, 0.0
        at_once = max(1, LOGITS_AT_ONCE // self.model.causal.vocab_size)
        for logits in self.model.each_logits(ids[:-1], at_once):
            targets = np.array(ids[place + 1 : place + 1 + len(logits)])
            losses = cross_entropy(
                logits.widened(), tensor(targets, backend, backend.index_dtype)
            ).numpy()
            total += float(losses[max(0, counted - place) :].astype(np.float64).sum())
            place += len(logits)
        return total
