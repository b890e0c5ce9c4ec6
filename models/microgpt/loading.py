"""`tfx.load` and `tfx.pipeline` of a microGPT: names for Python code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tfx.core.backend import Backend
from tfx.core.checkpoint import SavedCheckpoint
from tfx.core.creation import tensor
from tfx.core.ops import stack
from tfx.core.pipelines.loadable import Loaded, LoadSettings
from tfx.core.tensor import Tensor
from tfx.models.microgpt.model import forward
from tfx.models.microgpt.run import NAME, Model
from tfx.models.microgpt.vocabulary import Vocabulary


def loaded(settings: LoadSettings, saved: SavedCheckpoint, backend: Backend) -> Loaded:
    """The model in a checkpoint. A text begins with BOS, and another one ends it.

    Raises:
        TfxError: the checkpoint or the settings will not do.
    """
    settings.refuse_unsupported(NAME, {"weights", "dtype"})
    model = Model.of(saved, backend, settings.dtype)
    bos, positions = model.vocabulary.bos, model.config.block_size
    codec = Characters(model.vocabulary)
    return Loaded(backend, positions, Rereading(model), codec, eos_ids=(bos,), begin=bos)


@dataclass(frozen=True)
class Characters:
    """A token a character, behind BOS, which stands for no text."""

    vocabulary: Vocabulary

    def encode(self, text: str) -> list[int]:
        return [self.vocabulary.bos, *self.vocabulary.ids(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return self.vocabulary.text([token for token in ids if token != self.vocabulary.bos])

    def piece(self, token: int) -> bytes:
        return self.decode([token]).encode()


class Read:
    """The tokens of texts: all that is remembered of them."""

    def __init__(self, batch: int) -> None:
        self.rows: list[list[int]] = [[] for _ in range(batch)]
        self.padding = [0] * batch

    def pad_left(self, counts: Sequence[int]) -> None:
        self.padding = list(counts)

    def reorder(self, rows: Sequence[int]) -> None:
        self.rows = [list(self.rows[row]) for row in rows]
        self.padding = [self.padding[row] for row in rows]


@dataclass(frozen=True, eq=False)
class Rereading:
    """What `tfx.core.generation` generates with: it reads a text from its first token each time.
    A text is some sixteen characters long, and the network takes one at a time."""

    model: Model

    @property
    def backend(self) -> Backend:
        return self.model.params.flat.backend

    @cached_property
    def vocab_size(self) -> int:
        return self.model.config.vocab_size

    @cached_property
    def max_positions(self) -> int:
        return self.model.config.block_size

    def start(self, batch: int, capacity: int) -> Read:
        return Read(batch)

    def logits(self, ids: Tensor, cache: Read) -> Tensor:
        """Read ids (B, T) after what the cache holds; scores (B, V) of what follows the last."""
        scores, index = [], self.backend.index_dtype
        for number, new in enumerate(ids.numpy().tolist()):
            skipped, cache.padding[number] = cache.padding[number], 0
            cache.rows[number] += new[skipped:]
            text = tensor(np.array(cache.rows[number]), self.backend, index)
            scores.append(forward(self.model.params, self.model.config, text)[-1])
        return stack(scores)
