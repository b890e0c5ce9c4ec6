"""Names from a trained microGPT, drawn as the original draws them."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from tfx.core.backend import Backend
from tfx.core.cache import KVCache
from tfx.core.creation import tensor
from tfx.core.errors import NonFiniteError
from tfx.core.generation.reading import Reading
from tfx.core.tensor import Tensor
from tfx.models.microgpt.model import Config, Params, forward
from tfx.models.microgpt.vocabulary import Vocabulary


class Sampler:
    """Draws documents from a microGPT."""

    def __init__(self, p: Params, config: Config, vocabulary: Vocabulary) -> None:
        self._p, self._config, self._vocabulary = p, config, vocabulary
        self._reading = Reading(self._read)

    def sample(
        self,
        rng: random.Random,
        temperature: float = 0.5,
        prompt: str = "",
        max_new_tokens: int | None = None,
    ) -> str:
        """One document that begins with `prompt`, at most block_size tokens long.

        Each token is drawn by `rng.choices` from softmax(logits / temperature), computed on the
        host in float64; temperature 0 takes the likeliest.
        """
        bos, text = self._vocabulary.bos, self._vocabulary.ids(prompt)
        cache, new = self._cache(), [bos, *text]
        room = self._config.block_size - len(text)
        for _ in range(room if max_new_tokens is None else min(room, max_new_tokens)):
            ids = tensor(np.array([new]), self._backend, self._backend.index_dtype)
            logits = self._reading(ids, cache).numpy()
            token = _draw(logits.astype(np.float64), temperature, rng)
            if token == bos:
                break
            text.append(token)
            new = [token]
        return self._vocabulary.text(text)

    @property
    def _backend(self) -> Backend:
        return self._p["wte"].backend

    def _cache(self) -> KVCache:
        config, wte = self._config, self._p["wte"]
        shape = (config.block_size, config.n_embd)
        return KVCache(config.n_layer, shape, wte.backend, wte.dtype)

    def _read(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Read ids (1, T); the logits (vocab_size,) behind the last of them."""
        logits = forward(self._p, self._config, ids[0], cache)
        cache.advance(ids.shape[1])
        return logits[-1]


def _draw(logits: npt.NDArray[np.float64], temperature: float, rng: random.Random) -> int:
    if not np.isfinite(logits).all():
        raise NonFiniteError("the logits are not finite: the model's parameters are too large")
    above = logits - logits.max()
    if temperature == 0:
        return int(above.argmax())
    weights = np.exp(above / temperature)
    return rng.choices(range(len(weights)), weights=list(weights / weights.sum()))[0]
