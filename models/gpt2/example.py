"""`tfx compare gpt2`: the loss of a sentence, for holding one backend against another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.errors import UsageError
from tfx.core.files import shown
from tfx.core.recipe import CompareSettings, Example, computable
from tfx.core.stored import Stored
from tfx.core.tensor import Tensor
from tfx.models.gpt2.data import Ids
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Params, loss
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.request import NO_TOKENIZER

SENTENCE = "The sun had set, and in the harbour 27 small boats lay waiting for the tide."


def example(
    preset: Preset, settings: CompareSettings, backend: Backend, note: Callable[[str], None]
) -> Example:
    """The mean loss of each token of a text but the first, without dropout.

    The text is `settings.prompt`, else a sentence; without a tokenizer, the model's first ids.

    Raises:
        TfxError: the weights, the prompt or the dtype will not do.
    """
    settings.refuse_unsupported(preset.name, {"weights", "prompt", "dtype"})
    dtype = computable(preset.name, settings.dtype or "float32", backend)
    path = find_weights(preset, settings.weights, note)
    model = LanguageModel.load(path, backend, note, dtype)
    if any(isinstance(x, Stored) for x in model.params.values()):
        raise UsageError(
            f"{shown(path)} is quantized, and tfx compare takes gradients; give the weights it was "
            "made from"
        )
    ids = _ids(model, settings.prompt)
    read, targets = (
        tensor(part[None], backend, backend.index_dtype) for part in (ids[:-1], ids[1:])
    )

    def mean_loss(p: Params) -> Tensor:
        return loss(p, model.config, read, targets)

    return Example(model.params, mean_loss)


def _ids(model: LanguageModel, prompt: str | None) -> Ids:
    most = model.max_positions + 1  # the last of them is not read
    if prompt is None and model.tokenizer is None:
        return np.arange(min(most, 32)) % model.vocab_size
    if model.tokenizer is None:
        raise UsageError(f"the prompt: it is text, {NO_TOKENIZER}; leave it out")
    ids = model.tokenizer.encode(SENTENCE if prompt is None else prompt)
    if prompt is None:
        ids = ids[:most]
    if not 2 <= len(ids) <= most:
        raise UsageError(f"tokens in the prompt: {len(ids)}; expected from 2 to {most}")
    return np.array(ids)
