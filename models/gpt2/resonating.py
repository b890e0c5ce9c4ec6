"""`tfx resonate gpt2`: a model that reads one text, under a theta that changes as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import as_dtype
from tfx.core.errors import UsageError
from tfx.core.generation import decoder, room_after
from tfx.core.recipe import Reporter, ResonateSettings, RunSettings
from tfx.core.resonance import Resonance
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.request import eos_ids, options_from, requests_from


class SteeredGPT2:
    """As `Steered` has it, with a cache.

    Args:
        capacity: how many tokens the text may have, the prompt's among them.
    """

    def __init__(self, model: LanguageModel, capacity: int) -> None:
        self._model = model
        self._cache = model.start(1, capacity)

    def read(self, ids: Sequence[int], theta: float) -> npt.NDArray[np.floating[Any]]:
        model, backend = self._model, self._model.backend
        read = tensor(np.array([ids]), backend, backend.index_dtype)
        scores = model.logits(read, self._cache, tensor(theta, backend, model.dtype))
        return np.asarray(scores.widened().numpy()[0])

    def forget(self, count: int) -> None:
        self._cache.rewind([count])


def resonance(
    preset: Preset, settings: ResonateSettings, backend: Backend, report: Reporter
) -> Resonance:
    """A text that begins with the prompt, which was read; to be judged token by token.

    Raises:
        TfxError: the weights, the prompt or the flags will not do.
    """
    dtype = as_dtype(settings.dtype or "float32")
    path = find_weights(preset, settings.weights, report.note)
    model = LanguageModel.load(path, backend, report.note, dtype)
    if model.tokenizer is None:
        raise UsageError("the weights came without a tokenizer; tokens are judged as text")
    asked = RunSettings(prompt=settings.prompt, max_new_tokens=settings.max_new_tokens)
    [request] = requests_from(asked, options_from(asked), model)
    room = min(request.options.max_new_tokens, room_after(model, len(request.ids)))
    return Resonance(
        SteeredGPT2(model, len(request.ids) + room),
        decoder(model.tokenizer),
        request.ids,
        settings.theta,
        settings.bounds,
        eos_ids(model, path),
        room,
    )
