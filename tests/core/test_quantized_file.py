"""Quantized weights in a file: there and back, and every way in which they can be damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError, WeightsError
from tfx.core.quantization import QuantizedArray, Rounding, quantized
from tfx.core.quantized_file import KEY, apart, described, metadata, rejoined, storage_from
from tfx.core.storage import Storage
from tfx.core.weights import StoredTensor, open_weights, write_weights

STORAGE = Storage("int4", "int8", 8, DType.float32)
NUMBERS = np.random.default_rng(0).standard_normal((6, 16)).astype(np.float32)


def tensors(scales: DType = DType.float16) -> dict[str, Any]:
    stored = StoredTensor(DType.float32, NUMBERS)
    return {
        "a": quantized("a", stored, Rounding(8, 8, scales)),
        "b": quantized("b", stored, Rounding(4, 16, scales)),
        "turned": quantized("turned", stored, Rounding(4, 2, scales), inputs_first=True),
        "bias": np.ones(3, np.float32),
    }


def turned(name: str) -> bool:
    return name == "turned"


@pytest.mark.parametrize("scales", [DType.float16, DType.float32])
def test_there_and_back(tmp_path: Path, scales: DType) -> None:
    given = tensors(scales)
    write_weights(tmp_path / "w", apart(given), metadata(STORAGE))
    file = open_weights(tmp_path / "w")
    assert {*file} == {"bias", *(f"{x}.{y}" for x in ("a", "b", "turned") for y in ("q", "scales"))}
    assert storage_from(json.loads(file.metadata[KEY]), "it") == STORAGE
    found = rejoined(file, turned)
    assert {*found} == {*given}
    for name in ("a", "b", "turned"):
        back = found[name]
        assert isinstance(back, QuantizedArray)
        assert back.inputs_first is turned(name) and back.shape == given[name].shape
        assert not back.q.flags.owndata  # a view of the file
        np.testing.assert_array_equal(back.q, given[name].q)
        np.testing.assert_array_equal(back.array, given[name].array)
    np.testing.assert_array_equal(found["bias"].array, np.ones(3))


def damaged(**changes: Any) -> dict[str, StoredTensor]:
    """The tensors of a file with some exchanged, or left out."""
    whole = {
        name: x if isinstance(x, StoredTensor) else StoredTensor(DType(x.dtype.name), x)
        for name, x in apart(tensors()).items()
    }
    for key, value in changes.items():
        name = key.replace("_", ".")
        if value is None:
            del whole[name]
        else:
            whole[name] = StoredTensor(DType(value.dtype.name), value)
    return whole


def not_finite() -> Any:
    scales = np.ones((6, 2), np.float16)
    scales[3, 1] = np.nan
    return scales


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a_scales": None}, "'a.q' stands there without its scales"),
        ({"a_q": None}, "'a.scales' stands there without its numbers"),
        ({"a": np.ones((6, 16), np.float32)}, "'a' stands there twice, once quantized"),
        ({"a_q": np.ones((6, 16), np.int32)}, "'a' is int32 with scales of float16; expected"),
        ({"a_scales": np.ones((6, 2))}, "'a' is int8 with scales of float64; expected"),
        ({"a_scales": np.ones((6, 2), np.int8)}, "'a' is int8 with scales of int8; expected"),
        ({"a_scales": np.ones((6, 3), np.float16)}, r"'a' is [6, 16] with scales [6, 3]; expected"),
        ({"a_scales": np.ones((5, 2), np.float16)}, r"'a' is [6, 16] with scales [5, 2]; expected"),
        ({"a_scales": np.ones((6, 0), np.float16)}, r"'a' is [6, 16] with scales [6, 0]; expected"),
        ({"a_scales": np.ones(6, np.float16)}, r"'a' is [6, 16] with scales [6]; expected"),
        ({"a_q": np.ones(6, np.int8)}, r"'a' is [6] with scales [6, 2]; expected"),
        ({"a_scales": not_finite()}, "'a' has scales that are not finite"),
    ],
)
def test_damage(changes: Any, message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        rejoined(damaged(**changes), turned)
    assert str(caught.value).startswith(message)
    assert {*rejoined(damaged(), turned)} == {*tensors()}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "it: quantization_config is [1]; expected an object"),
        ({"quant_method": "gptq", "bits": 4}, "it: quantization_config: the weights were quantize"),
        ({}, "it: quantization_config: the weights were quantized by 'None'"),
        (described(STORAGE) | {"scheme": "int5"}, 'it: quantization_config: scheme is "int5"'),
        (described(STORAGE) | {"embeddings": 3}, "it: quantization_config: embeddings is 3"),
        (described(STORAGE) | {"group_size": True}, "it: quantization_config: group_size is true"),
        (described(STORAGE) | {"group_size": 0}, "it: quantization_config: group_size is 0"),
        (described(STORAGE) | {"scale_dtype": []}, "it: quantization_config: scale_dtype is []"),
    ],
)
def test_a_description_that_is_damaged_or_another_s(data: Any, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        storage_from(data, "it")
    assert str(caught.value).startswith(message)
