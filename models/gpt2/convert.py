"""`tfx convert gpt2`: any GPT-2 that tfx reads, as a folder that transformers loads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfx.core.dtypes import DType, as_dtype
from tfx.core.errors import UsageError, WeightsError
from tfx.core.files import open_regular, reason, shown
from tfx.core.recipe import ConvertSettings, Reporter
from tfx.core.weights import StoredTensor, as_stored
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.weights import read_headed, refuse_occupied, write_pretrained

DTYPES = (DType.float16, DType.bfloat16, DType.float32)

COPIED = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)
"""What goes along from a checkpoint's folder, where it is there."""


def convert(preset: Preset, settings: ConvertSettings, report: Reporter) -> dict[str, Any]:
    """Write the model at `settings.weights`, else the preset's, to the new folder `settings.out`.

    Raises:
        UsageError: a dtype that no such file has.
        HubError: a repository that cannot be had.
        CheckpointError, WeightsError: it cannot be read or written, or a number does not fit the
            dtype.
    """
    dtype = as_dtype(settings.dtype) if settings.dtype else None
    if dtype not in (None, *DTYPES):
        raise UsageError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    refuse_occupied(settings.out)
    weights = find_weights(preset, settings.weights, report.note)
    model = read_headed(weights, report.note)
    tensors: Mapping[str, StoredTensor] = model.floats("tfx convert")
    if dtype is not None:
        tensors = {key: as_stored(key, tensor, dtype) for key, tensor in tensors.items()}
    copied = files_beside(model.path)
    write_pretrained(settings.out, model.config, tensors, copied, head=model.head)
    dtypes = sorted({tensor.dtype for tensor in tensors.values()})
    count = sum(math.prod(shape) for shape in model.shapes.values())
    files = sorted(entry.name for entry in settings.out.iterdir())
    report.result(f"{settings.out}: {count} parameters as {' and '.join(dtypes)}")
    report.result(f"files: {', '.join(files)}")
    return {
        "model": preset.name,
        "weights": str(model.path),
        "out": str(settings.out),
        "num_params": count,
        "dtypes": dtypes,
        "files": files,
    }


def files_beside(path: Path) -> dict[str, bytes]:
    """Tokenizer and generation settings that lie with a model read from `path`, contents by name.

    Raises:
        WeightsError: one is there and cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    found = {}
    for file in (folder / name for name in COPIED):
        try:
            with open_regular(file) as opened:
                found[file.name] = opened.read()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise WeightsError(f"cannot read {shown(file)}: {reason(error)}") from error
    return found
