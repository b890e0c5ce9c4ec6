"""`tfx quantize gpt2`: the weights in fewer bits, as a folder that `run` and `eval` read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.recipe import EvalSettings, QuantizeSettings, Reporter
from tfx.core.storage import BITS, Storage, bytes_of, kept
from tfx.core.weights import StoredTensor
from tfx.models.gpt2.convert import files_beside
from tfx.models.gpt2.evaluation import evaluate
from tfx.models.gpt2.layouts import forms, inputs_first
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.weights import read_pretrained, refuse_occupied, write_pretrained


def quantize(
    preset: Preset, settings: QuantizeSettings, backend: Backend, report: Reporter
) -> dict[str, Any]:
    """Write the model at `settings.weights`, else the preset's, in fewer bits to the new folder
    `settings.out`. With `settings.data`, tell how well both predict that text.

    Raises:
        TfxError: the flags do not go together, or the weights will not do, or have been quantized.
    """
    storage = _storage(settings)
    refuse_occupied(settings.out)
    path = find_weights(preset, settings.weights, report.note)
    model = read_pretrained(path, report.note)
    floats = model.floats("tfx quantize")
    tensors: Mapping[str, StoredTensor] = {
        name: kept(name, floats[name], form, inputs_first=inputs_first(name))
        for name, form in forms(model.config, storage).items()
    }
    found: dict[str, Any] = {
        "model": preset.name,
        "weights": str(model.path),
        "out": str(settings.out),
        "scheme": storage.scheme,
        "embeddings": storage.embeddings,
        "group_size": storage.group_size,
        "scale_dtype": str(storage.scale_dtype),
        "bytes_before": bytes_of(floats.values()),
        "bytes_after": bytes_of(tensors.values()),
    }

    def judge(when: str, weights: Path) -> None:
        report.result(f"{when}:")
        its = EvalSettings(weights=weights, data=settings.data)
        measures = evaluate(preset, its, backend, report)
        found.update({f"{name}_{when}": measures[name] for name in ("loss", "perplexity")})

    if settings.data is not None:  # before anything is written, since the text may not do
        judge("before", path)
    write_pretrained(settings.out, model.config, tensors, files_beside(model.path), storage)
    if settings.data is not None:
        judge("after", settings.out)
        report.result(f"perplexity {np.expm1(found['loss_after'] - found['loss_before']):+.2%}")
    before, after = found["bytes_before"] / 1e6, found["bytes_after"] / 1e6
    report.result(f"{settings.out}: {storage}")
    report.result(f"weights: {before:.2f} MB before, {after:.2f} MB after")
    return found


def _storage(settings: QuantizeSettings) -> Storage:
    if settings.quantize in ("float16", "bfloat16"):
        raise UsageError(
            f"--quantize {settings.quantize}: for a file of halves there is tfx convert "
            f"--dtype {settings.quantize}"
        )
    storage = Storage.asked(settings, settings.scale_dtype)
    if storage is None:
        raise UsageError(f"say how with --quantize {' or '.join(BITS)}")
    if storage.scale_dtype not in (DType.float16, DType.float32):
        raise UsageError(f"--scale-dtype {storage.scale_dtype}: expected float16 or float32")
    return storage
