"""`tfx bench microgpt`: what is timed of a microGPT."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tfx.core.backend import Backend
from tfx.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tfx.core.dtypes import DType
from tfx.core.optim import TrainState
from tfx.core.recipe import BenchSettings, Part, Work
from tfx.core.schedules import linear
from tfx.core.weights import StoredTensor
from tfx.models.microgpt.data import BUNDLED, Names
from tfx.models.microgpt.model import Config, initial_weights
from tfx.models.microgpt.options import Options
from tfx.models.microgpt.run import NAME, Model, Run, shuffled
from tfx.models.microgpt.sampling import Sampler
from tfx.models.microgpt.training import step_of
from tfx.models.microgpt.vocabulary import Vocabulary

STEPS, DOCUMENTS = 100, 20

Note = Callable[[str], None]


def weights_to_bench(settings: BenchSettings, folder: Path, note: Note) -> Path:
    """As in `Benchable`; the random weights are those that a run begins with."""
    if settings.weights is not None:
        return settings.weights
    note("weights: random ones; --weights names others")
    documents, rng = shuffled(Names.census, Options.seed, note)
    vocabulary = Vocabulary.of(documents)
    config = Config(len(vocabulary))
    drawn = initial_weights(config, rng)
    sizes = {**asdict(config), "characters": list(vocabulary.characters)}
    stored = {name: StoredTensor(DType.float64, array) for name, array in drawn.items()}
    return save_checkpoint(folder, Checkpoint(NAME, 0, sizes, stored, {}, {}))


def work(part: Part, settings: BenchSettings, backend: Backend, note: Note) -> Work:
    """As in `Benchable`.

    Raises:
        TfxError: the weights or the dtype will not do.
    """
    if part == "train":
        settings.refuse_unsupported(NAME, {"dtype", "batch_size"})
        return _train(settings, backend, note)
    settings.refuse_unsupported(NAME, {"weights", "dtype"})
    assert settings.weights is not None
    path = settings.weights

    def load(_: Any = None) -> Model:
        return Model.of(load_checkpoint(path, NAME), backend, settings.dtype)

    model = load()
    dtype = str(model.params.flat.dtype)
    if part == "load":
        return Work("open the weights", dtype, load)
    if part == "prefill":
        return _prefill(model, dtype)
    return _decode(model, dtype)


def _prefill(model: Model, dtype: str) -> Work:
    length = model.config.block_size
    letters = "".join(model.vocabulary.characters)
    prompt = (letters * length)[: length - 1]  # behind the token that begins a document
    sampler = Sampler(model.params, model.config, model.vocabulary)

    def read(_: Any) -> None:
        sampler.sample(random.Random(0), 0.5, prompt, 1)

    return Work(f"{length} tokens", dtype, read, tokens=length)


def _decode(model: Model, dtype: str) -> Work:
    sampler = Sampler(model.params, model.config, model.vocabulary)

    def write(_: Any = None) -> list[str]:
        rng = random.Random(0)
        return [sampler.sample(rng) for _ in range(DOCUMENTS)]

    most = model.config.block_size
    tokens = sum(min(len(name) + 1, most) for name in write())  # a shorter one is ended by a token
    return Work(f"1 token, in {DOCUMENTS} names", dtype, write, steps=tokens, tokens=tokens)


def _train(settings: BenchSettings, backend: Backend, note: Note) -> Work:
    """The first steps as `tfx train` takes them, always from the same parameters."""
    options = replace(Options(), steps=STEPS, batch_size=settings.batch_size or Options.batch_size)
    if settings.dtype is not None:
        options = replace(options, dtype=settings.dtype)
    options.check()
    run = Run.begin(options, BUNDLED, backend, note)
    advance = step_of(run, linear(STEPS, options.lr, options.min_lr))

    def begin() -> TrainState:
        return Run.begin(options, BUNDLED, backend, note).state

    def take_all(state: TrainState) -> None:
        for step in range(STEPS):
            state, loss, _ = advance(state, step)
        loss.item()

    block, at_once = run.model.config.block_size, options.batch_size
    read = [run.documents[turn % len(run.documents)] for turn in range(STEPS * at_once)]
    tokens = sum(min(len(document) + 1, block) for document in read)
    what = f"{at_once} document{'s' * (at_once > 1)}, {STEPS} times"
    return Work(what, options.dtype, take_all, begin, steps=STEPS, tokens=tokens)
