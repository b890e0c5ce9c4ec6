"""Names from a trained microGPT, drawn as the original draws them."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from tfx.core.cache import KVCache
from tfx.core.creation import tensor
from tfx.core.errors import NonFiniteError
from tfx.models.microgpt.model import Config, Params, forward
from tfx.models.microgpt.vocabulary import Vocabulary


def sample(
    p: Params,
    config: Config,
    vocabulary: Vocabulary,
    rng: random.Random,
    temperature: float = 0.5,
    prompt: str = "",
    max_new_tokens: int | None = None,
) -> str:
    """One document that begins with `prompt`, at most block_size tokens long.

    Each token is drawn by `rng.choices` from softmax(logits / temperature), computed on the host in
    float64; temperature 0 takes the likeliest.
    """
    backend, dtype = p["wte"].backend, p["wte"].dtype
    cache = KVCache(config.n_layer, (config.block_size, config.n_embd), backend, dtype)
    new, text = [vocabulary.bos, *vocabulary.ids(prompt)], vocabulary.ids(prompt)
    room = config.block_size - len(text)
    for _ in range(room if max_new_tokens is None else min(room, max_new_tokens)):
        logits = forward(p, config, tensor(np.array(new), backend, backend.index_dtype), cache)
        cache.advance(len(new))
        token = _draw(logits[-1].numpy().astype(np.float64), temperature, rng)
        if token == vocabulary.bos:
            break
        text.append(token)
        new = [token]
    return vocabulary.text(text)


def _draw(logits: npt.NDArray[np.float64], temperature: float, rng: random.Random) -> int:
    if not np.isfinite(logits).all():
        raise NonFiniteError("the logits are not finite: the model's parameters are too large")
    above = logits - logits.max()
    if temperature == 0:
        return int(above.argmax())
    weights = np.exp(above / temperature)
    return rng.choices(range(len(weights)), weights=list(weights / weights.sum()))[0]
