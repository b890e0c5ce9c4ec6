"""`tfx.load`: from a name, a path or a repository to a model that Python code can hold."""

from __future__ import annotations

import logging
from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from tfx.core import resolve
from tfx.core.arguments import checked_call, name_of
from tfx.core.backend import Backend
from tfx.core.checkpoint import find_checkpoint
from tfx.core.errors import CheckpointError, UsageError
from tfx.core.files import reason, shown
from tfx.core.hub import is_repo_id, snapshot
from tfx.core.json_file import read_object
from tfx.core.pipelines.language_model import LanguageModel
from tfx.core.pipelines.loadable import Loadable, LoadSettings
from tfx.core.plugins import PluginHost
from tfx.core.runs import BEST
from tfx.core.wording import did_you_mean, kind_of, meant, quoted

note = logging.getLogger("tfx").warning
"""Where lines go that the user should know: stderr, unless the program says otherwise."""


@checked_call
def load(
    name_or_path: str | PathLike[str],
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    quantize_embeddings: str | None = None,
    group_size: int | None = None,
    kv_dtype: str | None = None,
    theta: ArrayLike | None = None,
    model: str | None = None,
    task: str | None = None,
) -> LanguageModel:
    """A model that is ready to use.

    Args:
        name_or_path: the name of a model (`tfx models` lists them), which comes with its weights;
            a folder or file of weights, a training run's among them; or `OWNER/NAME` on the
            Hugging Face Hub. A model's name comes before a folder of the same name.
        backend: what to compute on, as after `--backend`, or a backend that is open; by default
            the best that is ready.
        device: as after `--device`.
        dtype: what to compute in; by default what the model's plugin holds for good.
        quantize, quantize_embeddings, group_size: how to keep the weights in fewer bits.
        kv_dtype: what keys and values are cached in.
        theta: what attention is scaled by, for models that heed it: a number, one for each layer,
            or one for each head of each layer.
        model: whose weights a path has, where its `config.json` does not tell.
        task: the head that is wanted beside or in place of the language model's, by the name of
            its pipeline; for "multiple-choice", which has none, the model is called.

    Raises:
        TfxError: there is no such model, the weights, the backend or an option will not do; says
            what to do instead.

    >>> model = load("gpt2-tiny", backend="numpy")
    >>> model.generate("ROMEO:", max_new_tokens=8).text
    '\\nI will not bear thee,'
    """
    host = PluginHost()
    name, weights = _found(host, name_or_path, model)
    recipe = resolve.open_model(host, name)
    if not isinstance(recipe, Loadable):
        raise UsageError(f"{name} cannot be loaded from Python: its plugin has no `load`")
    settings = LoadSettings(
        weights,
        task,
        None if dtype is None else str(dtype),
        quantize,
        quantize_embeddings,
        group_size,
        kv_dtype,
        _plain(theta),
    )
    opened = _opened(backend, device)
    return LanguageModel(name, recipe.load(settings, opened, note))


def _plain(theta: Any) -> Any:
    """Theta in numbers and lists, which settings are made of."""
    if callable(theta):
        raise UsageError(
            "theta is a function, which is for one text: give it to generate, stream or a call"
        )
    return theta.tolist() if hasattr(theta, "tolist") else theta


def _opened(backend: str | Backend | None, device: str | None) -> Backend:
    if device is not None:
        name_of("device", device, "cuda:0")
    if not isinstance(backend, Backend):
        named = resolve.AUTO if backend is None else name_of("backend", backend, "numpy")
        return resolve.backend(named, device)
    if device is not None:
        raise UsageError(f"device {device!r}: {backend} is open on a device; leave it out")
    return backend


# ---- whose weights they are ----------------------------------------------------------------------


def _found(
    host: PluginHost, asked: str | PathLike[str], model: str | None
) -> tuple[str, Path | None]:
    """The name of a model, and the weights where they are not its own."""
    if not isinstance(asked, str | PathLike) or asked == "":
        what = "an empty text" if asked == "" else kind_of(asked)
        raise UsageError(f"expected the name of a model or a path, not {what}")
    known = host.models()
    if model is not None and name_of("model", model, *known) not in known:
        raise host.why_missing(model) or UsageError(
            f"model {quoted(model)}: there is no such model.{meant(model, known)}"
        )
    if isinstance(asked, str) and asked in known and model in (None, asked):
        return asked, None
    path = Path(asked)
    if not path.exists():
        if not (isinstance(asked, str) and is_repo_id(asked)):
            raise _neither(asked, known, model)
        path = snapshot(asked, note)
    return model or _model_of(path, host), path


def _neither(asked: str | PathLike[str], known: Collection[str], model: str | None) -> UsageError:
    """That something is no model and no path."""
    if asked in known:
        return UsageError(f"model {model!r}: {asked} is a model itself; leave it out")
    hint, listed = did_you_mean(str(asked), known), ", ".join(known) or "none"
    return UsageError(
        f"{quoted(str(asked))} is neither a model nor a path.{hint} Models here: {listed}."
    )


def _model_of(path: Path, host: PluginHost) -> str:
    """The model that a configuration tells of: `model` in a checkpoint of tfx, else `model_type`,
    as transformers has it."""
    file = _config_of(path)
    try:
        about = read_object(file)
    except FileNotFoundError:
        raise CheckpointError(
            f"{shown(file)} does not exist; it would tell whose weights these are. If you know, "
            "say it: model=NAME"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {shown(file)}: {reason(error)}") from error
    name, known = about.get("model", about.get("model_type")), host.models()
    if isinstance(name, str) and name in known:
        return name
    told = f"tells of {quoted(str(name))}" if name is not None else "names no model"
    raise CheckpointError(
        f"{shown(file)} {told}; expected one of {', '.join(known) or 'none'}. If the weights are "
        "of one of these, say it: model=NAME"
    )


def _config_of(path: Path) -> Path:
    """The configuration beside weights: of a run, that of the best checkpoint or the last."""
    if not path.is_dir():
        return path.with_name("config.json")
    for folder in (path / BEST, path):
        try:
            return find_checkpoint(folder) / "config.json"
        except CheckpointError:
            continue
    return path / "config.json"
