"""Reading a GPT-2 from wherever it lies, and writing one as transformers would."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tfx.core.checkpoint import SavedCheckpoint, find_checkpoint, load_checkpoint
from tfx.core.errors import CheckpointError, UsageError, WeightsError
from tfx.core.files import reason, replace_file, shown, sync_folder, unfinished_folder
from tfx.core.json_file import read_object
from tfx.core.quantized_file import KEY, apart, described, metadata, rejoined, storage_from
from tfx.core.runs import BEST
from tfx.core.shards import open_shards
from tfx.core.storage import Storage
from tfx.core.weights import StoredTensor, encoded_weights, open_weights
from tfx.core.wording import quoted
from tfx.models.gpt2.config import config_from, config_json
from tfx.models.gpt2.head_config import OWN_KEYS, head_from, head_json, is_of_head, task_of
from tfx.models.gpt2.heads import Head
from tfx.models.gpt2.layouts import HEAD, arranged, inputs_first, translated
from tfx.models.gpt2.model import Config

NAME = "gpt2"

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

Note = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A GPT-2 as it was stored.

    Attributes:
        path: the folder or file it was read from.
        config: what kind of GPT-2 it is.
        tensors: by the names and of the shapes of `shapes`, in that order. They are views of the
            file, unless its layout is another one: then they are made when asked for.
        storage: how it was quantized; None for floats.
        head: the head on it, beside the language model's or in place of it.
    """

    path: Path
    config: Config
    tensors: Mapping[str, StoredTensor]
    storage: Storage | None = None
    head: Head | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter by its name: those of the configuration, then those of the head."""
        return shapes_of(self.config, self.head)

    def floats(self, purpose: str) -> Mapping[str, StoredTensor]:
        """The tensors, for a purpose that needs them as they were trained.

        Raises:
            UsageError: they were quantized.
        """
        if self.storage is not None:
            raise UsageError(
                f"{shown(self.path)} is quantized ({self.storage}), which {purpose} cannot take; "
                "give the weights it was made from"
            )
        return self.tensors


@dataclass(frozen=True, eq=False)
class _Found:
    """What lies at a path, still in its own words."""

    path: Path
    config: Mapping[str, Any]
    origin: str  # of the configuration
    weights: Mapping[str, StoredTensor]


def shapes_of(config: Config, head: Head | None) -> dict[str, tuple[int, ...]]:
    """The parameters of a model with a head, or without one."""
    return config.shapes() | (head.shapes(config) if head else {})


def read_pretrained(path: Path, note: Note) -> Pretrained:
    """Map a language model: milliseconds, whatever its size, except that the weights of a
    checkpoint of tfx are read through once to see that they are whole.

    Args:
        path: a Hugging Face folder (`config.json` with `model.safetensors`, or with an index and
            its shards), a `.safetensors` file or an index with `config.json` beside it, or a run's
            or checkpoint's folder of tfx. Of a run, the best checkpoint is taken if it kept one.
        note: is told what the user should know: unknown keys, and what was assumed.

    Raises:
        CheckpointError: the configuration is wrong, or of another model, or a checkpoint damaged.
        WeightsError: there are no weights, they are damaged, or do not fit the configuration.
        UsageError: they are no language model, but have a head of another kind.
    """
    return language_model_in(read_headed(path, note), note)


def read_headed(path: Path, note: Note) -> Pretrained:
    """As `read_pretrained`, with the head that is there, whichever it is."""
    try:
        found = _find(path, note)
    except OSError as error:
        raise WeightsError(f"cannot look into {shown(path)}: {reason(error)}") from error
    return _understood(found, note)


def pretrained_in(saved: SavedCheckpoint, note: Note) -> Pretrained:
    """As `read_pretrained`, of a checkpoint of tfx that is open already."""
    return language_model_in(headed_in(saved, note), note)


def headed_in(saved: SavedCheckpoint, note: Note) -> Pretrained:
    """As `read_headed`, of a checkpoint of tfx that is open already."""
    return _understood(_found_in(saved), note)


def language_model_in(found: Pretrained, note: Note, asked: str = "--task {}") -> Pretrained:
    """The same without a head for something else; `asked` is how that would be asked for.

    Raises:
        UsageError: it has no language model's.
    """
    if found.head is None:
        return found
    task, where = found.head.task, shown(found.path)
    if not found.head.has_next_token:
        raise UsageError(
            f"{where} has a head for {task} and is no language model; `tfx run`, `eval` and "
            f"`train` take it with --task {task}"
        )
    note(f"{where}: its head for {task} is left out; {asked.format(task)} uses it")
    tensors = {name: found.tensors[name] for name in found.config.shapes()}
    return replace(found, tensors=tensors, head=None)


def _understood(found: _Found, note: Note) -> Pretrained:
    given, weights, storage = dict(found.config), found.weights, None
    if KEY in given:
        storage = storage_from(given.pop(KEY), found.origin)
        try:
            weights = rejoined(weights, inputs_first)
        except WeightsError as fault:
            raise WeightsError(f"{shown(found.path)} is damaged: {fault}") from None
    words, biases = translated(given, found.origin, note)
    head, task = None, task_of(words, weights)
    if task is not None:
        head = head_from(words, found.origin, task, note)
        words = {key: value for key, value in words.items() if key not in OWN_KEYS}
    config, unknown = config_from(words, found.origin)
    if head is not None and not head.has_next_token:
        config = replace(config, tie_word_embeddings=True)  # there is nothing to tie
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        keys = ", ".join(map(quoted, unknown[:8])) + more
        note(f"{found.origin}: tfx knows nothing of {keys}, and goes on without")
    try:
        config, tensors = arranged(
            weights,
            config,
            biases,
            lambda line: note(f"{shown(found.path)}: {line}"),
            head.shapes(config) if head else {},
        )
    except WeightsError as fault:
        raise WeightsError(f"{shown(found.path)} does not fit {found.origin}: {fault}") from None
    return Pretrained(found.path, config, tensors, storage, head)


def _find(path: Path, note: Note) -> _Found:
    if not path.is_dir():
        return _in_file(path)
    checkpoint = _checkpoint_in(path)
    for name in (WEIGHTS, INDEX):
        if os.path.lexists(path / name) and checkpoint != path:
            return _beside_config(path, path / name)
    best = _checkpoint_in(path / BEST)
    if best is not None:
        note(f"taking the run's best checkpoint, {shown(best)}")
        checkpoint = best
    if checkpoint is None:
        raise WeightsError(_nothing_in(path))
    return _found_in(load_checkpoint(checkpoint, NAME, optimizer=False))


def _found_in(saved: SavedCheckpoint) -> _Found:
    return _Found(saved.path, saved.config, shown(saved.path / CONFIG), saved.weights)


def _checkpoint_in(folder: Path) -> Path | None:
    try:
        return find_checkpoint(folder)
    except CheckpointError:
        return None


def _in_file(path: Path) -> _Found:
    if not os.path.lexists(path):
        raise WeightsError(
            f"{shown(path)} does not exist; expected a folder with {CONFIG} and {WEIGHTS}, "
            "a .safetensors file, or the folder of a run"
        )
    return _beside_config(path, path)


def _beside_config(path: Path, file: Path) -> _Found:
    weights = open_shards(file) if file.name.endswith(".index.json") else open_weights(file)
    config = file.with_name(CONFIG)
    try:
        data = read_object(config)
    except FileNotFoundError:
        raise WeightsError(
            f"{shown(config)} does not exist; a GPT-2 needs it to tell its sizes and heads"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {shown(config)}: {reason(error)}") from error
    return _Found(path, data, shown(config), weights)


def _nothing_in(folder: Path) -> str:
    """What to do about a folder without weights."""
    entries = sorted(entry.name for entry in folder.iterdir())
    where = shown(folder)
    if others := [name for name in entries if name.endswith(".safetensors")]:
        return f"{where} holds no {WEIGHTS}; name the file, as in {shown(folder / others[0])}"
    pickles = [
        name for name in entries if name.endswith((".bin", ".bin.index.json", ".pt", ".pth"))
    ]
    if pickles:
        return (
            f"{where} holds {quoted(pickles[0])} and no safetensors, and tfx reads no pickle; "
            "fetch the model with its safetensors, or let transformers write them to a folder, to "
            "which you copy the tokenizer's files: "
            'python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained({str(folder)!r}).save_pretrained('converted')\""
        )
    return (
        f"{where} holds no weights; expected {CONFIG} with {WEIGHTS} or {INDEX}, "
        "or the checkpoints of a run"
    )


def write_pretrained(
    folder: Path,
    config: Config,
    tensors: Mapping[str, NDArray[Any] | StoredTensor],
    tokenizer_files: Mapping[str, bytes] = {},
    storage: Storage | None = None,
    head: Head | None = None,
) -> None:
    """Write a Hugging Face folder that holds `GPT2LMHeadModel`, or the model with another head; it
    is there whole or not at all.

    Args:
        folder: must not exist, or be empty; missing parents are made.
        config: written as `config.json`.
        tensors: what `shapes_of` lists.
        tokenizer_files: contents by name, written beside it.
        storage: how the tensors that are quantized came to be so.
        head: what stands on the trunk, if it is no language model or more.

    Raises:
        WeightsError: it cannot be written, or is not empty, or the tensors are others than
            `config` and `head` say.
    """
    refuse_occupied(folder)
    shapes, expected = {name: x.shape for name, x in tensors.items()}, shapes_of(config, head)
    if shapes != expected:
        differing = min(name for name, _ in shapes.items() ^ expected.items())
        raise WeightsError(
            f"cannot write {shown(folder)}: {quoted(differing)} is not as its configuration says"
        )
    named = {their_name(name): tensor for name, tensor in tensors.items()}
    folder = Path(os.path.abspath(folder))
    try:
        with unfinished_folder(folder) as temporary:
            for name, content in tokenizer_files.items():
                replace_file(temporary / name, [content])
            about = about_model(config, head) | ({KEY: described(storage)} if storage else {})
            text = json.dumps(about, indent=2) + "\n"
            replace_file(temporary / CONFIG, [text.encode()])
            # transformers refuses a file that does not say this.
            about = {"format": "pt"} | (metadata(storage) if storage else {})
            replace_file(temporary / WEIGHTS, encoded_weights(apart(named), about))
            with suppress(FileNotFoundError):
                folder.rmdir()
            os.rename(temporary, folder)
        sync_folder(folder.parent)
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot write {shown(folder)}: {reason(error)}") from error
    except WeightsError as fault:
        raise WeightsError(f"cannot write {shown(folder)}: {fault}") from None


def refuse_occupied(folder: Path) -> None:
    """Raise `WeightsError` unless a new folder can take this name: none has, or an empty one."""
    try:
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            fault = "is no folder"
        elif any(folder.iterdir()):
            fault = "is not empty"
        else:
            return
    except (OSError, ValueError) as error:
        fault = f"cannot be looked into: {reason(error)}"
    raise WeightsError(f"{shown(folder)} {fault}; choose another folder")


def about_model(config: Config, head: Head | None) -> dict[str, Any]:
    """What `config.json` says of a model."""
    return config_json(config) | (head_json(head) if head else {})


def their_name(name: str) -> str:
    """What transformers calls a tensor of ours in the model with a head."""
    return name if name == HEAD or is_of_head(name) else f"transformer.{name}"
