"""Checkpoints: all that a training run needs to go on, in a folder that is whole or absent.

A run folder holds `checkpoint-STEP` folders, each with

    model.safetensors      the parameters
    optimizer.safetensors  the optimizer's tensors
    config.json            {"model": NAME, ...the model's configuration}
    state.json             {"step": STEP, ...random state, data position, settings}
    manifest.json          size and sha256 of all the others, written last

and whatever else belongs to the model, such as the files of its tokenizer.

One is written under a hidden name, forced to disk, and renamed into place, so a kill at any
moment leaves the old checkpoints or the new one as well. One process writes to a run folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tfx.core.errors import CheckpointError, WeightsError
from tfx.core.files import (
    is_plain_name,
    make_folder,
    open_regular,
    reason,
    replace_file,
    shown,
    sync_folder,
)
from tfx.core.weights import StoredTensor, WeightFile, encoded_weights, open_weights
from tfx.core.wording import quoted

FORMAT = 1
"""Version of the layout above; a manifest with another one is refused."""

_MODEL, _OPTIMIZER = "model.safetensors", "optimizer.safetensors"
_CONFIG, _STATE, _MANIFEST = "config.json", "state.json", "manifest.json"
_FILES = (_CONFIG, _STATE, _MODEL, _OPTIMIZER)

# A checkpoint that is being replaced by one of the same step bears the second form for a moment.
_NAME = re.compile(r"checkpoint-([0-9]{1,18})(\.old-[0-9a-f]{16})?")
_TEMPORARY = re.compile(r"\.checkpoint-.*\.tmp")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training run after `step` steps.

    Attributes:
        model: the model's name, as after `tfx train`.
        step: how many optimizer steps were made.
        config: the model's configuration, JSON values by name.
        weights: the parameters by name; bfloat16 ones as `StoredTensor`.
        optimizer: the optimizer's tensors by name.
        state: random state, data position, settings: JSON values by name. Tuples come back
            as lists; floats, and the integers of `random.getstate()`, come back exactly.
        files: what else is to lie beside the weights: contents by plain file name.
    """

    model: str
    step: int
    config: Mapping[str, Any]
    weights: Mapping[str, NDArray[Any] | StoredTensor]
    optimizer: Mapping[str, NDArray[Any] | StoredTensor]
    state: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class SavedCheckpoint(Checkpoint):
    """A checkpoint read from `path`; its tensors are maps of the files there."""

    weights: WeightFile
    optimizer: WeightFile
    path: Path


def prepare_run_dir(path: str | os.PathLike[str]) -> Path:
    """Create a run folder and prove, before any training, that a checkpoint can be written there.

    Raises `CheckpointError`.
    """
    run_dir = Path(path)
    try:
        probe = _new_temporary(run_dir, "checkpoint-probe")
        try:
            replace_file(probe / _MANIFEST, [bytes(4096)])
        finally:
            shutil.rmtree(probe, ignore_errors=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot write to the run folder {shown(run_dir)}: {reason(error)}; choose another"
        ) from error
    return run_dir


def save_checkpoint(
    run_dir: str | os.PathLike[str], checkpoint: Checkpoint, keep: int = 2, *, alone: bool = False
) -> Path:
    """Write `run_dir/checkpoint-STEP`, then remove what it makes superfluous.

    At any moment, and after a kill at any moment, `find_checkpoint(run_dir)` finds an older
    checkpoint or this one, whole; that holds for a second save of the same step too. Of this
    one and those of earlier steps the latest `keep` stay; those of later steps are never
    touched. With `alone`, this one stays and every other goes, of later steps too. Leftovers of
    killed runs go as well. What cannot be removed now is tried again at the next save.

    Raises `CheckpointError` when it cannot be written; the older ones can still be read.
    """
    run_dir = Path(run_dir)
    final = run_dir / f"checkpoint-{checkpoint.step}"
    if checkpoint.step < 0 or keep < 1:
        raise CheckpointError(
            f"cannot save step {checkpoint.step} and keep {keep}; expected step >= 0 and keep >= 1"
        )
    try:
        temporary = _new_temporary(run_dir, final.name)
        try:
            _write_contents(temporary, checkpoint)
            if os.path.lexists(final):
                os.rename(final, final.with_name(f"{final.name}.old-{_token()}"))
            os.rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(run_dir)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot save {shown(final)}: {reason(error)}") from error
    except (WeightsError, CheckpointError) as fault:
        raise CheckpointError(f"cannot save {shown(final)}: {fault}") from fault
    with suppress(OSError):
        _tidy(run_dir, checkpoint.step, keep, alone)
    return final


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The checkpoint meant by `path`: that folder, or the one of the highest step in a run folder.

    A folder without a manifest was never complete and is passed over. One that was complete
    and is damaged now is not: to go on from an older state is the user's decision, so
    `load_checkpoint` stops there and names the older one.

    Raises `CheckpointError` where there is none.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            fault = "is a file; give its folder" if path.exists() else "does not exist"
            raise CheckpointError(f"checkpoint {shown(path)} {fault}")
        if (path / _MANIFEST).exists():
            return path
        if _NAME.fullmatch(path.name):
            raise CheckpointError(f"checkpoint {shown(path)} is incomplete: it has no {_MANIFEST}")
        newest = next(iter(_complete(path)), None)
    except OSError as error:
        raise CheckpointError(f"cannot look into {shown(path)}: {reason(error)}") from error
    if newest is None:
        raise CheckpointError(f"{shown(path)} holds no complete checkpoint")
    return newest


def load_checkpoint(
    path: str | os.PathLike[str], model: str | None = None, *, optimizer: bool = True
) -> SavedCheckpoint:
    """Read the checkpoint that `find_checkpoint(path)` finds, every byte of it checked.

    Without `optimizer`, its file is left alone, and the result has an empty one: who only wants
    the weights need not read twice as much again.

    Raises `CheckpointError` when there is none, when it is of another model than `model`, or
    when a file is missing or differs from the manifest.
    """
    folder = find_checkpoint(path)
    try:
        digests = _read_manifest(folder)
        config = _read_json(folder, _CONFIG, digests)
        name = config.pop("model", None)
        if not isinstance(name, str):
            raise _Damage(f"{_CONFIG} names no model")
        if model not in (None, name):
            raise CheckpointError(f"checkpoint {shown(folder)} is of model {name!r}, not {model!r}")
        state = _read_json(folder, _STATE, digests)
        step = state.pop("step", None)
        if not isinstance(step, int):
            raise _Damage(f"{_STATE} names no step")
        weights = _read_weights(folder, _MODEL, digests)
        unread = WeightFile(folder / _OPTIMIZER, {}, {}, memoryview(b""))
        moments = _read_weights(folder, _OPTIMIZER, digests) if optimizer else unread
        others = [name for name in digests if name not in _FILES]
        files = {name: _read_file(folder, name, digests) for name in others}
    except _Damage as damage:
        raise CheckpointError(
            f"checkpoint {shown(folder)} is damaged: {damage}{_hint(folder)}"
        ) from None
    return SavedCheckpoint(
        model=name,
        step=step,
        config=config,
        weights=weights,
        optimizer=moments,
        state=state,
        files=files,
        path=folder,
    )


def restore_random(generator: random.Random, saved: Any) -> None:
    """Set a generator to a `getstate()` that went through JSON; `CheckpointError` if it is none.

    >>> here, there = random.Random(42), random.Random()
    >>> restore_random(there, json.loads(json.dumps(here.getstate())))
    >>> there.random() == here.random()
    True
    """
    try:
        version, words, next_gauss = saved
        generator.setstate((version, tuple(words), next_gauss))
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"the saved random state is not Python's: {error}") from error


# The order of checkpoints in a run folder


def _complete(run_dir: Path) -> list[Path]:
    """The folders with a manifest, latest step first; of one step, the one in place first."""
    named = [folder for folder in run_dir.iterdir() if _NAME.fullmatch(folder.name)]
    return sorted((c for c in named if (c / _MANIFEST).exists()), key=_rank, reverse=True)


def _rank(folder: Path) -> tuple[int, bool]:
    match = _NAME.fullmatch(folder.name)
    return (int(match[1]), match[2] is None) if match else (-1, True)


def _hint(folder: Path) -> str:
    with suppress(OSError):
        for older in _complete(folder.parent):
            if _rank(older) < _rank(folder):
                return f"; the one before it is {shown(older)}"
    return ""


def _tidy(run_dir: Path, step: int, keep: int, alone: bool) -> None:
    for entry in list(run_dir.iterdir()):
        if _rank(entry) == (step, False) or _TEMPORARY.fullmatch(entry.name):
            _discard(entry)
    complete = _complete(run_dir)
    if alone:
        for folder in (c for c in complete if _rank(c)[0] != step):
            _discard(folder)
        return
    kept: set[int] = set()
    for folder in (c for c in complete if _rank(c)[0] <= step):
        its_step = _rank(folder)[0]
        if its_step in kept or len(kept) == keep:
            _discard(folder)
        else:
            kept.add(its_step)


def _discard(folder: Path) -> None:
    # Hidden first: a kill in the middle must not leave half a checkpoint that looks whole.
    hidden = _temporary_name(folder.parent, "checkpoint-discarded")
    with suppress(OSError):
        os.rename(folder, hidden)
        shutil.rmtree(hidden)


def _new_temporary(run_dir: Path, label: str) -> Path:
    make_folder(run_dir)
    folder = _temporary_name(run_dir, label)
    folder.mkdir()
    return folder


def _temporary_name(run_dir: Path, label: str) -> Path:
    return run_dir / f".{label}.{_token()}.tmp"


def _token() -> str:
    return os.urandom(8).hex()


# The files of one checkpoint


class _Damage(Exception):
    """What is wrong with a checkpoint, without its name."""


def _write_contents(folder: Path, checkpoint: Checkpoint) -> None:
    for name, content in checkpoint.files.items():
        if not _is_free(name):
            raise CheckpointError(f"{quoted(name)} cannot be the name of a file in a checkpoint")
        replace_file(folder / name, [content])
    # Without this note in the file, transformers would not load it.
    replace_file(folder / _MODEL, encoded_weights(checkpoint.weights, {"format": "pt"}))
    replace_file(folder / _OPTIMIZER, encoded_weights(checkpoint.optimizer))
    _write_json(folder / _CONFIG, _with("model", checkpoint.model, checkpoint.config))
    _write_json(folder / _STATE, _with("step", checkpoint.step, checkpoint.state))
    files = {name: _digest(folder / name) for name in (*_FILES, *checkpoint.files)}
    _write_json(folder / _MANIFEST, {"format": FORMAT, "files": files})


def _is_free(name: str) -> bool:
    """Whether a file beside a checkpoint's own may be called so."""
    return is_plain_name(name) and not name.startswith(".") and name not in (*_FILES, _MANIFEST)


def _with(key: str, value: object, rest: Mapping[str, Any]) -> dict[str, Any]:
    if key in rest:
        raise CheckpointError(f"the key {key!r} is the checkpoint's own; name yours otherwise")
    return {key: value, **rest}


def _write_json(path: Path, value: object) -> None:
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name}: {error}") from None
    replace_file(path, [text.encode()])


def _digest(path: Path) -> dict[str, object]:
    with open_regular(path) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": sha256}


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest = _parse_json(folder / _MANIFEST)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint {shown(folder)} is of format {manifest.get('format')!r},"
            f" this tfx reads {FORMAT}; use the tfx that wrote it"
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise _Damage(f"{_MANIFEST} lists no files")
    return files


def _read_json(folder: Path, name: str, digests: Mapping[str, Any]) -> dict[str, Any]:
    _check(folder, name, digests)
    return _parse_json(folder / name)


def _read_weights(folder: Path, name: str, digests: Mapping[str, Any]) -> WeightFile:
    _check(folder, name, digests)
    try:
        return open_weights(folder / name)
    except WeightsError as error:
        raise _Damage(str(error)) from None


def _read_file(folder: Path, name: str, digests: Mapping[str, Any]) -> bytes:
    if not _is_free(name):
        raise _Damage(f"{_MANIFEST} lists {quoted(name)}, which is no file of a checkpoint")
    _check(folder, name, digests)
    try:
        with open_regular(folder / name) as file:
            return file.read()
    except OSError as error:
        raise _Damage(f"{name}: {reason(error)}") from None


def _check(folder: Path, name: str, digests: Mapping[str, Any]) -> None:
    try:
        if _digest(folder / name) != digests.get(name):
            raise _Damage(f"{name} is not what {_MANIFEST} says")
    except OSError as error:
        raise _Damage(f"{name}: {reason(error)}") from None


def _parse_json(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            value = json.load(file)
    except OSError as error:
        raise _Damage(f"{path.name}: {reason(error)}") from None
    except (ValueError, RecursionError):
        raise _Damage(f"{path.name} is not JSON") from None
    if not isinstance(value, dict):
        raise _Damage(f"{path.name} is not a JSON object")
    return value
