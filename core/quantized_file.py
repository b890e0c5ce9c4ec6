"""Quantized weights in a safetensors file, and what `config.json` says of them.

In place of a matrix `NAME` there are `NAME.q` and `NAME.scales`, as `tfx.core.quantized` has them.
The rest is as ever. How it was quantized stands under `quantization_config`, where other programs
look for it too, and so see that these are no weights for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from tfx.core.dtypes import FLOATS, DType
from tfx.core.errors import CheckpointError, WeightsError
from tfx.core.quantization import QuantizedArray
from tfx.core.storage import AS_IT_IS, SCHEMES, Storage
from tfx.core.weights import StoredTensor
from tfx.core.wording import quoted

KEY = "quantization_config"
"""Of `config.json`, and of the file's metadata."""

METHOD = {"quant_method": "tfx"}

_NUMBERS, _SCALES = ".q", ".scales"

# ---- writing -------------------------------------------------------------------------------------


def described(storage: Storage) -> dict[str, Any]:
    """What `config.json` says of a storage under `KEY`; `storage_from` reads it back.

    >>> storage_from(described(Storage("int4", "int8")), "here")
    Storage(scheme='int4', embeddings='int8', group_size=64, scale_dtype=<DType.float16: 'float16'>)
    """
    return METHOD | asdict(storage)


def metadata(storage: Storage) -> dict[str, str]:
    """The same for the metadata of the weights' file."""
    return {KEY: json.dumps(described(storage))}


def apart(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors as a file has them: quantized ones as two of other names."""
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, QuantizedArray):
            found |= {name + _NUMBERS: tensor.q, name + _SCALES: tensor.scales}
        else:
            found[name] = tensor
    return found


# ---- reading -------------------------------------------------------------------------------------


def storage_from(data: Any, origin: str) -> Storage:
    """What is said under `KEY`.

    Args:
        data: the value of it in a parsed `config.json`.
        origin: what a message calls that file.

    Raises:
        CheckpointError: another program quantized these weights, or it is damaged.
    """
    where = f"{origin}: {KEY}"
    if not isinstance(data, dict):
        raise CheckpointError(f"{where} is {json.dumps(data)[:100]}; expected an object")
    method = data.get("quant_method")
    if method != METHOD["quant_method"]:
        raise CheckpointError(
            f"{where}: the weights were quantized by {quoted(str(method))}, which tfx does not "
            "read; take those they were made from, and quantize them"
        )
    rules: dict[str, Callable[[Any], bool]] = {
        "scheme": lambda x: x in SCHEMES,
        "embeddings": lambda x: x in (*SCHEMES, AS_IT_IS),
        "group_size": lambda x: type(x) is int and x > 0,
        "scale_dtype": lambda x: x in [DType.float16, DType.float32],
    }
    for key, fits in rules.items():
        if not fits(data.get(key)):
            raise CheckpointError(f"{where}: {key} is {json.dumps(data.get(key))[:100]}")
    return Storage(
        data["scheme"], data["embeddings"], data["group_size"], DType(data["scale_dtype"])
    )


def rejoined(
    weights: Mapping[str, StoredTensor], inputs_first: Callable[[str], bool]
) -> dict[str, StoredTensor]:
    """The tensors of a file, with a `QuantizedArray` for each two that are one. Scales are read, to
    see that they are numbers; the rest stays a view.

    Args:
        weights: by the names of the file.
        inputs_first: whether a matrix of that name stands for (inputs, outputs).

    Raises:
        WeightsError: one of the two is missing, or they do not go together. The file is not named.
    """
    return {
        name: QuantizedArray(*pair, inputs_first=inputs_first(name))
        if isinstance(pair, tuple)
        else pair
        for name, pair in _pairs(weights)
    }


def _pairs(weights: Mapping[str, StoredTensor]) -> Iterator[tuple[str, Any]]:
    for name in weights:
        matrix = name.removesuffix(_NUMBERS)
        if name.endswith(_SCALES):
            if name.removesuffix(_SCALES) + _NUMBERS not in weights:
                raise WeightsError(f"{quoted(name)} stands there without its numbers")
        elif matrix == name:
            yield name, weights[name]
        elif matrix in weights:
            raise WeightsError(f"{quoted(matrix)} stands there twice, once quantized")
        elif matrix + _SCALES not in weights:
            raise WeightsError(f"{quoted(name)} stands there without its scales")
        else:
            q, scales = weights[name], weights[matrix + _SCALES]
            _check(matrix, q, scales)
            yield matrix, (q.array, scales.to_float32())


def _check(name: str, q: StoredTensor, scales: StoredTensor) -> None:
    if q.dtype not in (DType.int8, DType.uint8) or scales.dtype not in FLOATS - {DType.float64}:
        raise WeightsError(
            f"{quoted(name)} is {q.dtype} with scales of {scales.dtype}; expected int8 or uint8 "
            "with halves or float32"
        )
    rows, length = q.shape if len(q.shape) == 2 else (0, 0)
    groups = scales.shape[1] if len(scales.shape) == 2 and scales.shape[0] == rows else 0
    if not (rows and length and groups) or length % groups:
        raise WeightsError(
            f"{quoted(name)} is {list(q.shape)} with scales {list(scales.shape)}; expected one for "
            "each of the groups into which a row is divided"
        )
    if not np.isfinite(scales.to_float32()).all():
        raise WeightsError(f"{quoted(name)} has scales that are not finite")
