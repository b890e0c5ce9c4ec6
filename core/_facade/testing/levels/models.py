"""L4: both models compute, write and learn what they do on the reference.

The reference is `StrictBackend`: NumPy, every call checked, no kernels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tfx.core.backend import Backend
from tfx.core.capture import eager
from tfx.core.comparison import compare
from tfx.core.dtypes import DType
from tfx.core.plugins import PluginHost
from tfx.core.recipe import CompareSettings, Example, Recipe, RunSettings, TrainSettings
from tfx.core.resolve import open_model
from tfx.testing.kit import Checks, Level, Subject
from tfx.testing.levels.gradients import WAYS, check_way
from tfx.testing.nearness import Mismatch
from tfx.testing.strict import StrictBackend

CHECKS = Checks(Level.MODELS)

GPT, SMALLEST = "gpt2-tiny", "microgpt"
"""The models: the trained one that comes with tfx, and the one that is smaller still."""

PROMPT = "ROMEO:\nWhat light"
NAMES = ["anna", "bo", "carl", "dora", "ed", "finn", "gwen", "hugo", "ines", "jo"]
"""Of two lengths: each is a shape of its own, for which some libraries compile anew."""
TRACE = 1e-3
"""How far losses may part in a few steps of float32, in each of which the last error grows."""


class _Listener:
    """A reporter that shows nothing, and keeps the lines of the result."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def result(self, line: str) -> None:
        self.lines.append(line)

    def piece(self, text: str) -> None: ...

    def note(self, line: str) -> None: ...

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None: ...

    def progress_done(self, *, is_result: bool = True) -> None: ...


@cache
def _recipe(model: str) -> Recipe:
    return open_model(PluginHost(), model)


@cache
def _reference() -> Backend:
    return StrictBackend()


def example_of(
    model: str, B: Backend, dtype: DType = DType.float32, prompt: str | None = None
) -> Example:
    """A small piece of a model's work on a backend, on a text of its own or this one."""
    recipe: Any = _recipe(model)
    example: Example = recipe.example(CompareSettings(dtype=dtype, prompt=prompt), B)
    return example


# ---- logits and gradients ----------------------------------------------------------------


def computes(subject: Subject, model: str, dtype: DType, way: Any) -> str:
    """Every layer's result, the gradient by it, and the gradient by every parameter."""
    subject.needs(dtype)
    check_way(subject, way)
    found = compare(
        example_of(model, _reference(), dtype),
        example_of(model, subject.backend, dtype),
        autograd="core" if way == "core" else "auto",
    )
    if found.first_apart is not None:
        raise Mismatch(found.verdict)
    return found.verdict


for _model in (SMALLEST, GPT):
    for _dtype in (DType.float64, DType.float32):
        for _way in WAYS:
            CHECKS.add(f"{_model} layer by layer {_dtype} {_way}", computes, _model, _dtype, _way)


# ---- text --------------------------------------------------------------------------------


WRITE: dict[str, Mapping[str, Any]] = {
    "the likeliest text": {"temperature": 0.0},
    "the text of a seed": {"temperature": 0.8, "seed": 1},
    "text by beam search": {"temperature": 0.0, "num_beams": 3},
}
"""How to choose tokens."""


def writes(subject: Subject, title: str) -> str:
    """The text that the reference writes, token for token."""
    expected, found = _reference_text(title), _text(title, subject.backend)
    if found != expected:
        raise Mismatch(f"it wrote {found!r}, the reference {expected!r}")
    return found


@cache
def _reference_text(title: str) -> str:
    with eager():
        return _text(title, _reference())


def _text(title: str, B: Backend) -> str:
    settings = RunSettings(prompt=PROMPT, max_new_tokens=16, dtype="float32", **WRITE[title])
    result = _recipe(GPT).run(settings, B, _Listener())
    text: str = result["samples"][0]["text"]
    return text


for _title in WRITE:
    CHECKS.add(f"{GPT} writes {_title}", writes, _title)


# ---- learning ----------------------------------------------------------------------------


LEARN: dict[str, Mapping[str, Any]] = {
    SMALLEST: {"steps": 8, "num_samples": 3},
    GPT: {
        "steps": 4,
        "batch_size": 2,
        "overrides": {
            "n_layer": "1",
            "n_embd": "16",
            "n_head": "2",
            "n_positions": "16",
            "dropout": "0",  # random bits are for a level above
        },
    },
}
"""How to train each model."""


def learns(subject: Subject, model: str) -> str:
    """The losses of the first steps, and what the model writes after them."""
    (expected, text), (found, wrote) = _reference_trace(model), _trace(model, subject.backend)
    if not np.allclose(found, expected, rtol=TRACE, atol=0):
        shown = [[round(loss, 4) for loss in losses] for losses in (found, expected)]
        raise Mismatch(f"losses {shown[0]}, the reference has {shown[1]}")
    if wrote != text:
        raise Mismatch(f"it wrote {wrote}, the reference {text}")
    return f"losses {found[0]:.4f} to {found[-1]:.4f}"


@cache
def _reference_trace(model: str) -> tuple[list[float], list[str]]:
    with eager():
        return _trace(model, _reference())


def _trace(model: str, B: Backend) -> tuple[list[float], list[str]]:
    """Losses, and the samples that are printed at the end, if any."""
    listener = _Listener()
    with TemporaryDirectory() as folder:
        data, out = Path(folder, "names.txt"), Path(folder, "run")
        data.write_text("\n".join(NAMES * 8), encoding="utf-8")
        asked = TrainSettings(data=data, out=out, seed=42, dtype="float32", **LEARN[model])
        _recipe(model).train(asked, B, listener)
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [loss for line in lines if (loss := json.loads(line).get("loss")) is not None]
    return losses, [line for line in listener.lines if line.startswith("sample ")]


for _model in LEARN:
    CHECKS.add(f"{_model} learns", learns, _model)
