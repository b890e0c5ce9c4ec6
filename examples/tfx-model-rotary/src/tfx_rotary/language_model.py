"""A rotary model that is ready to use: its characters, its size, its parameters on a backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.cache import KVCache
from tfx.core.checkpoint import SavedCheckpoint
from tfx.core.dtypes import DType, as_dtype
from tfx.core.errors import CheckpointError, UsageError
from tfx.core.parameters import Parameters
from tfx.core.tensor import Tensor
from tfx.core.weights import StoredTensor, WeightFile
from tfx_rotary.model import Config, Rotation, logits

NAME = "rotary"


@dataclass(eq=False)
class LanguageModel:
    """What `tfx.core.generation` generates with. Token i is `characters[i]`."""

    config: Config
    characters: str
    params: Parameters

    @classmethod
    def of(
        cls, saved: SavedCheckpoint, backend: Backend, dtype: str | None = None
    ) -> LanguageModel:
        """The model in a checkpoint, as `dtype` or as it was saved."""
        sizes = dict(saved.config)
        try:
            characters = sizes.pop("characters")
            config = Config(**sizes)
            stored = named(saved.weights, config)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint {saved.path} does not fit {NAME}: {error}") from None
        kind = as_dtype(dtype or stored["embed"].dtype)
        return cls(config, characters, Parameters.from_host(stored, backend, kind))

    # ---- text --------------------------------------------------------------------------------

    def encode(self, text: str) -> HostArray:
        """Ids of a text.

        Raises:
            UsageError: the model knows not all of its characters.
        """
        if unknown := set(text) - set(self.characters):
            raise UsageError(
                f"{min(unknown)!r} is no character that {NAME} was trained on: {self.characters!r}"
            )
        return np.array([self._ids[character] for character in text], np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.characters[token] for token in ids)

    def piece(self, token: int) -> bytes:
        """What a token stands for, in UTF-8."""
        return self.characters[token].encode()

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {character: i for i, character in enumerate(self.characters)}

    # ---- what generation asks ----------------------------------------------------------------

    @property
    def backend(self) -> Backend:
        return self.params.flat.backend

    @property
    def dtype(self) -> DType:
        return self.params.flat.dtype

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def max_positions(self) -> int:
        return self.config.block_size

    @cached_property
    def table(self) -> Rotation:
        return Rotation.table(self.config, self.backend, self.dtype)

    def start(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` texts of at most `capacity` tokens."""
        shape = (batch, capacity, self.config.n_embd)
        return KVCache(self.config.n_layer, shape, self.backend, self.dtype)

    def logits(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Read ids (B, T) after what the cache holds; scores (B, V) of what follows the last."""
        return logits(self.params, self.config, self.table, ids, cache)[:, -1]


def named(tensors: WeightFile, config: Config, prefix: str = "") -> dict[str, StoredTensor]:
    """The tensors of a file that the parameters are called after."""
    return {name: tensors[prefix + name] for name in config.shapes()}
