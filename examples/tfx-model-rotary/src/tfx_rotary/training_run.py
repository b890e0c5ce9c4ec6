"""A training run: begun from a seed, kept in a checkpoint, and taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from tfx.core.autograd import Autograd
from tfx.core.backend import Backend, HostArray
from tfx.core.checkpoint import Checkpoint, load_checkpoint
from tfx.core.creation import tensor
from tfx.core.data import read_documents
from tfx.core.dtypes import as_dtype
from tfx.core.errors import DataError, UsageError
from tfx.core.optim import TrainState
from tfx.core.parameters import Parameters
from tfx.core.recipe import TrainSettings
from tfx.core.seeds import host_generator
from tfx.core.tensor import Tensor
from tfx_rotary.language_model import NAME, LanguageModel, named
from tfx_rotary.model import Config, initial_weights


@dataclass(frozen=True)
class Options:
    """What can be chosen about training, by flags of these names."""

    dtype: str = "float32"
    autograd: Autograd = "auto"
    steps: int = 300
    batch_size: int = 8
    lr: float = 5e-3
    seed: int = 42
    save_every: int = 0


_FLAGS = {f.name for f in fields(Options)}
_SIZES = [f.name for f in fields(Config) if f.name != "vocab_size"]


@dataclass
class Run:
    """A training run as far as it is.

    Attributes:
        options: what was chosen.
        data: the file of the text.
        ids: the text, as the model has it.
        model: its parameters are those the run began or resumed with.
        state: parameters and optimizer.
        done: how many steps were taken.
        resumed: the checkpoint it goes on from.
    """

    options: Options
    data: Path
    ids: HostArray
    model: LanguageModel
    state: TrainState
    done: int = 0
    resumed: Path | None = None

    def __post_init__(self) -> None:
        if len(self.ids) <= (block := self.model.config.block_size):
            raise DataError(
                f"{self.data} has {len(self.ids)} characters; expected more than the "
                f"block_size of {block}; give a longer text, or a lower --set block_size="
            )

    @classmethod
    def begin(cls, settings: TrainSettings, backend: Backend) -> Run:
        """A new run, the same on every backend."""
        settings.refuse_unsupported(NAME, _FLAGS | {"data", "out", "overrides"})
        options = Options(**{k: v for k, v in settings.given().items() if k in _FLAGS})
        data, text = read_text(settings.data)
        characters = "".join(sorted(set(text)))
        config = _sized(Config(len(characters)), settings.overrides)
        dtype = as_dtype(options.dtype)
        params = Parameters.from_host(initial_weights(config, options.seed), backend, dtype)
        model = LanguageModel(config, characters, params)
        return cls(options, data, model.encode(text), model, TrainState.start(params))

    @classmethod
    def resume(cls, folder: Path, settings: TrainSettings, backend: Backend) -> Run:
        """The run in a folder, where it stopped; its options stay, but for the number of steps."""
        settings.refuse_unsupported(f"{NAME} --resume", {"resume", "steps", "data", "out"})
        saved = load_checkpoint(folder, NAME)
        options = Options(**saved.state["options"])
        if settings.steps is not None:
            options = replace(options, steps=settings.steps)
        data, text = read_text(settings.data or Path(saved.state["data"]))
        model = LanguageModel.of(saved, backend)
        m, v = (named(saved.optimizer, model.config, f"{which}.") for which in "mv")
        state = TrainState.resumed(model.params, m, v, saved.step)
        return cls(options, data, model.encode(text), model, state, saved.step, saved.path)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """What a step learns from: ids and the ids that follow them, (batch_size, block_size)."""
        length = self.model.config.block_size + 1
        rng = host_generator(self.options.seed, "batches", step)
        starts = rng.integers(0, len(self.ids) - length + 1, (self.options.batch_size, 1))
        ids = on(self.model.backend, self.ids[starts + np.arange(length)])
        return ids[:, :-1], ids[:, 1:]

    def checkpoint(self, state: TrainState, done: int) -> Checkpoint:
        """All that `resume` needs, after `done` steps."""
        return Checkpoint(
            model=NAME,
            step=done,
            config=asdict(self.model.config) | {"characters": self.model.characters},
            weights=state.params.to_host(),
            optimizer=state.moments(),
            state={"options": asdict(self.options), "data": str(self.data.absolute())},
        )


def read_text(path: Path | None) -> tuple[Path, str]:
    """A file, and its lines that are not empty."""
    if path is None:
        raise UsageError(f"{NAME} has no text of its own; give a file with --data")
    return path, "\n".join(read_documents(path)) + "\n"


def on(backend: Backend, ids: HostArray) -> Tensor:
    """Ids on a backend."""
    return tensor(ids, backend, backend.index_dtype)


def _sized(config: Config, overrides: Mapping[str, str]) -> Config:
    """A configuration with the sizes that `--set` gives."""
    for name, text in overrides.items():
        if name not in _SIZES or not text.isdecimal() or int(text) < 1:
            raise UsageError(
                f"--set {name}={text}: expected a whole number above 0 for one of "
                f"{', '.join(_SIZES)}"
            )
        config = replace(config, **{name: int(text)})
    if config.n_embd % (2 * config.n_head):
        raise UsageError(
            f"n_embd={config.n_embd}: expected a multiple of 2 * n_head, which is "
            f"{2 * config.n_head}; heads are turned by pairs of channels"
        )
    return config
