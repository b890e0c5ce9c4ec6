"""What a saved training run needs to go on, read from its checkpoint and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from tfx.core.backend import Backend
from tfx.core.checkpoint import SavedCheckpoint, load_checkpoint, save_checkpoint
from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError, UsageError
from tfx.core.files import shown
from tfx.core.optim import TrainState
from tfx.core.parameters import Parameters
from tfx.core.recipe import TrainSettings, check_autograd, computable, spelled
from tfx.core.runs import BEST, newest_in, run_folder
from tfx.core.weights import StoredTensor
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.options import CHANGEABLE, Options, configured
from tfx.models.gpt2.weights import NAME

T = TypeVar("T")


def run_to_resume(settings: TrainSettings, backend: Backend) -> SavedCheckpoint | None:
    """The run that `--resume` names; None for a new one."""
    check_autograd(settings.autograd, backend)
    if settings.resume is None:
        return None
    for name in ("weights", "tokenizer"):
        if getattr(settings, name) is not None:
            raise UsageError(f"--{name}: the run that --resume continues has its own; leave it out")
    return load_checkpoint(settings.resume, NAME)


def restored_state(
    saved: SavedCheckpoint, tensors: Mapping[str, StoredTensor], options: Options, backend: Backend
) -> TrainState:
    """Parameters and optimizer as the run left them."""
    dtype = computable(NAME, options.dtype, backend, never={DType.float16})
    params = Parameters.from_host(tensors, backend, dtype)
    m, v = (_moment(saved, which, params) for which in "mv")
    return TrainState.resumed(params, m, v, saved.step)


def resumed_options(
    saved: SavedCheckpoint, config: Config, settings: TrainSettings, note: Callable[[str], None]
) -> Options:
    """The options of a run that goes on, few of which may be others than before."""
    before = restored(Options, saved, "options")
    options = before.with_settings(settings, config)
    same = asdict(before) | asdict(config)
    asked = asdict(options) | asdict(configured(config, settings.overrides))
    for name in same.keys() - CHANGEABLE:
        if asked[name] != same[name]:
            flag = spelled(settings.flag(name)) if name in Options.FLAGS else f"--set {name}"
            raise UsageError(
                f"{flag} {asked[name]}: the run that --resume continues keeps its {same[name]}"
            )
    if saved.step > options.steps:
        raise UsageError(
            f"--steps {options.steps}: {shown(saved.path)} has taken {saved.step} already"
        )
    if options.steps != before.steps:
        note(
            f"--steps {options.steps} instead of {before.steps}: "
            "the learning rate follows the new schedule"
        )
    if saved.step == options.steps:
        note(f"{shown(saved.path)} has taken all {saved.step} steps; --steps adds more")
    return options


def take_best_along(resumed: Path | None, done: int, best_step: int, out: Path) -> None:
    """Copy the best checkpoint so far into the folder of a run that goes on elsewhere.

    Args:
        resumed: the checkpoint it goes on from, after `done` steps.
        best_step: after how many steps the best was.
        out: where it goes on.
    """
    if resumed is None:
        return
    kept = run_folder(resumed) / BEST / f"checkpoint-{best_step}"
    best = resumed if best_step == done else kept  # the file of a later best is not of us
    if best.is_dir() and not newest_in(out / BEST):
        save_checkpoint(out / BEST, load_checkpoint(best, NAME), alone=True)


def _moment(saved: SavedCheckpoint, which: str, like: Parameters) -> dict[str, StoredTensor]:
    """One of Adam's moments, by the names of the parameters."""
    names = {name: f"{which}.{name}" for name in like}
    shapes = {theirs: saved.optimizer[theirs].shape for theirs in saved.optimizer}
    if any(shapes.get(theirs) != like.shapes[name] for name, theirs in names.items()):
        raise CheckpointError(
            f"checkpoint {shown(saved.path)} does not fit gpt2: its {which} has other shapes than "
            "its weights"
        )
    return {name: saved.optimizer[theirs] for name, theirs in names.items()}


def noted(saved: SavedCheckpoint, key: str) -> Any:
    """What the run noted under `key`."""
    if key not in saved.state:
        raise CheckpointError(
            f"checkpoint {shown(saved.path)} does not fit gpt2: state.json has no {key!r}"
        )
    return saved.state[key]


def restored(kind: Callable[..., T], saved: SavedCheckpoint, key: str) -> T:
    """What the run noted of a dataclass under `key`."""
    try:
        return kind(**noted(saved, key))
    except TypeError as error:
        raise CheckpointError(
            f"checkpoint {shown(saved.path)} has other {key} than this tfx knows: {error}"
        ) from None
