"""Text that is written by a head mask, and under a theta that may be another at every token."""

from __future__ import annotations

import json

from numpy.typing import ArrayLike

from tfx.core.backend import Backend
from tfx.core.cache import KVCache
from tfx.core.errors import ShapeError, UsageError
from tfx.core.pipelines.inside import Thetas
from tfx.core.recipe import Theta
from tfx.core.tensor import Tensor
from tfx.models.gpt2.language_model import LanguageModel


def under_flag(model: LanguageModel, theta: Theta | None) -> LanguageModel:
    """The model under what `--theta` says; None leaves it as it is.

    Raises:
        UsageError: it is not for this model.
    """
    try:
        return model.under(theta)
    except ShapeError:
        layers, heads = model.config.n_layer, model.config.n_head
        raise UsageError(
            f"--theta {json.dumps(theta):.60}: expected a number, {layers} of them, one for each "
            f"layer, or {layers} rows of {heads}, one for each head"
        ) from None


class Steered:
    """A causal model that goes on from one batch of texts, by a head mask, and under a theta that
    may be another one at each step. To the captured step both are inputs: it serves all of them.

    Args:
        model: what reads.
        theta: numbers for all steps, or what gives them for the number of a step; None for the
            model's own. The prompts are step 0; each step then reads one token of every text.
        head_mask: what the output of each head is multiplied by; None for the model's own.

    Raises:
        UsageError, ShapeError: one is no such thing, or not for this model; what a function gives
            is looked at when it comes.
    """

    def __init__(
        self, model: LanguageModel, theta: Thetas | None, head_mask: ArrayLike | None = None
    ) -> None:
        self._model, self._step = model, 0
        self._theta_at = theta if callable(theta) else None
        self._theta = None if theta is None or callable(theta) else model.theta_of(theta)
        self._head_mask = None if head_mask is None else model.head_mask_of(head_mask)

    @property
    def backend(self) -> Backend:
        return self._model.backend

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size

    @property
    def max_positions(self) -> int:
        return self._model.max_positions

    def start(self, batch: int, capacity: int) -> KVCache:
        return self._model.start(batch, capacity)

    def logits(self, ids: Tensor, cache: KVCache) -> Tensor:
        theta = self._theta
        if self._theta_at is not None:
            theta = self._model.theta_of(self._theta_at(self._step))
        self._step += 1
        return self._model.logits(ids, cache, theta, self._head_mask)
