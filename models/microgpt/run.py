"""A microGPT run: begun from a seed, kept in a checkpoint, and taken up again."""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfx.core.backend import Backend
from tfx.core.checkpoint import Checkpoint, SavedCheckpoint, restore_random
from tfx.core.creation import tensor
from tfx.core.errors import CheckpointError
from tfx.core.generation.reading import room_for
from tfx.core.optim import TrainState
from tfx.core.parameters import Parameters
from tfx.core.recipe import computable
from tfx.core.tensor import Tensor
from tfx.core.weights import StoredTensor, WeightFile
from tfx.models.microgpt.data import Names, Note, Source, default_names, load_documents
from tfx.models.microgpt.model import Config, initial_weights
from tfx.models.microgpt.options import Options
from tfx.models.microgpt.vocabulary import Vocabulary

NAME = "microgpt"

SHORTEST = 16
"""Positions that a document takes at least, where the model has as many: more of them cost little
as long as calls cost more than numbers."""


@dataclass
class Model:
    """What is needed to use a microGPT."""

    config: Config
    vocabulary: Vocabulary
    params: Parameters

    @classmethod
    def of(cls, saved: SavedCheckpoint, backend: Backend, dtype: str | None = None) -> Model:
        """The model in a checkpoint, as `dtype` or as it was saved."""
        sizes = dict(saved.config)
        try:
            vocabulary = Vocabulary(tuple(sizes.pop("characters")))
            config = Config(**sizes)
            config.shapes()  # sizes that are no numbers come to light here
        except (KeyError, TypeError) as error:
            raise _misfit(saved, f"config.json: {error}") from None
        if config.vocab_size != len(vocabulary):
            raise _misfit(saved, f"{len(vocabulary)} tokens, vocab_size {config.vocab_size}")
        stored = _stored(saved, saved.weights, config)
        chosen = computable(NAME, dtype or stored["wte"].dtype, backend)
        return cls(config, vocabulary, Parameters.from_host(stored, backend, chosen))

    def windows(self, document: str) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens of a document, the tokens that follow them, and the share of each in the mean
        loss: three of (T,), at most block_size. What is behind the end of the document has no
        share.
        """
        ids = self.vocabulary.document(document)[: self.config.block_size + 1]
        count = len(ids) - 1
        room = room_for(count, self.config.block_size, SHORTEST)
        tokens, shares = np.zeros((2, room), np.int64), np.zeros(room)
        tokens[:, :count], shares[:count] = (ids[:-1], ids[1:]), 1 / count
        backend, dtype = self.params.flat.backend, self.params.flat.dtype
        index = backend.index_dtype
        return (
            tensor(tokens[0], backend, index),
            tensor(tokens[1], backend, index),
            tensor(shares, backend, dtype),
        )


@dataclass
class Run:
    """A training run.

    Attributes:
        options: what was chosen.
        data: where the documents are from.
        documents: shuffled.
        rng: Python's generator, which drew the order and the weights and goes on to draw samples.
        model: sizes and vocabulary; its parameters are those the run began or resumed with.
        state: parameters and optimizer as far as the run is.
        done: how many steps that is.
        resumed: the checkpoint it goes on from.
    """

    options: Options
    data: Source
    documents: list[str]
    rng: random.Random
    model: Model
    state: TrainState
    done: int = 0
    resumed: Path | None = None

    @classmethod
    def begin(cls, options: Options, data: Path | None, backend: Backend, note: Note) -> Run:
        """Shuffle the documents and draw the weights, in the original's order."""
        source = data or default_names(note)
        documents, rng = shuffled(source, options.seed, note)
        vocabulary = Vocabulary.of(documents)
        config = Config(
            len(vocabulary), options.n_layer, options.n_embd, options.block_size, options.n_head
        )
        weights = initial_weights(config, rng, options.init_std)
        params = Parameters.from_host(weights, backend, computable(NAME, options.dtype, backend))
        model = Model(config, vocabulary, params)
        return cls(options, source, documents, rng, model, TrainState.start(params))

    @classmethod
    def resume(
        cls,
        saved: SavedCheckpoint,
        options: Options,
        data: Path | None,
        backend: Backend,
        note: Note,
    ) -> Run:
        """Take up a saved run where it stopped, bit for bit."""
        documents, rng = trained_on(saved, data, note)
        restore_random(rng, state_of(saved, "random"))
        model = Model.of(saved, backend, options.dtype)
        m, v = (_stored(saved, saved.optimizer, model.config, f"{which}.") for which in "mv")
        state = TrainState.resumed(model.params, m, v, saved.step)
        source = data or data_of(saved)
        return cls(options, source, documents, rng, model, state, saved.step, saved.path)

    def checkpoint(self, state: TrainState, done: int) -> Checkpoint:
        """All that `resume` needs, after `done` steps."""
        return Checkpoint(
            model=NAME,
            step=done,
            config={
                **asdict(self.model.config),
                "characters": list(self.model.vocabulary.characters),
            },
            weights=state.params.to_host(),
            optimizer=state.moments(),
            state={
                "options": asdict(self.options),
                "data": str(self.data.absolute() if isinstance(self.data, Path) else self.data),
                "documents": _fingerprint(self.documents),
                "random": self.rng.getstate(),
            },
        )


def shuffled(source: Source, seed: int, note: Note) -> tuple[list[str], random.Random]:
    """The documents in the order of a run, and the generator that shuffled them."""
    documents = load_documents(source, note)
    rng = random.Random(seed)
    rng.shuffle(documents)
    return documents, rng


def trained_on(
    saved: SavedCheckpoint, data: Path | None, note: Note
) -> tuple[list[str], random.Random]:
    """What `shuffled` gave the run of a checkpoint; `data` says where the file is now.

    Raises:
        CheckpointError: the file has other documents.
    """
    documents, rng = shuffled(data or data_of(saved), options_of(saved).seed, note)
    if _fingerprint(documents) != state_of(saved, "documents"):
        raise CheckpointError(
            f"the documents are not those {saved.path} was trained on; name them with --data"
        )
    return documents, rng


def data_of(saved: SavedCheckpoint) -> Source:
    """What a checkpoint was trained on."""
    text = state_of(saved, "data")
    if not isinstance(text, str):
        raise _misfit(saved, f"state.json names its data {text!r}")
    return Names(text) if text in set(Names) else Path(text)


def state_of(saved: SavedCheckpoint, key: str) -> Any:
    """What `Run.checkpoint` noted under `key`."""
    if key not in saved.state:
        raise _misfit(saved, f"state.json has no {key!r}")
    return saved.state[key]


def options_of(saved: SavedCheckpoint) -> Options:
    """What was chosen about the run of a checkpoint."""
    try:
        return Options(**state_of(saved, "options"))
    except TypeError as error:
        raise CheckpointError(
            f"checkpoint {saved.path} has other options than this tfx knows: {error}"
        ) from None


def _stored(
    saved: SavedCheckpoint, file: WeightFile, config: Config, prefix: str = ""
) -> dict[str, StoredTensor]:
    """The tensors in a file of a checkpoint that the model's parameters are called after."""
    found = {}
    for name, shape in config.shapes().items():
        if prefix + name not in file:
            raise _misfit(saved, f"{file.path.name} has no {prefix}{name}")
        found[name] = file[prefix + name]
        if found[name].shape != shape:
            raise _misfit(saved, f"{prefix}{name} is {found[name].shape}, expected {shape}")
        if not found[name].dtype.is_float:
            raise _misfit(saved, f"{prefix}{name} is of {found[name].dtype}, expected floats")
    return found


def _misfit(saved: SavedCheckpoint, fault: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {saved.path} does not fit microgpt: {fault}")


def _fingerprint(documents: list[str]) -> str:
    return hashlib.sha256("\n".join(documents).encode()).hexdigest()
