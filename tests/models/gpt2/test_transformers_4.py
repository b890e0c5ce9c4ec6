"""Masked and pruned heads where texts are padded, and their gradients, as transformers 4 had them;
with the kernels by Numba, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_weights import SIZES, golden_ids, golden_padded, golden_weights
from gpt2_parity import differentiated
from opening import PLUGINS

from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.parameters import borrowed
from tfx.core.tensor import Tensor
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.passing import Pass

RECORDED = json.loads((Path(__file__).parents[2] / "data/transformers_4.json").read_text())

pytestmark = [
    pytest.mark.usefixtures("calm"),
    pytest.mark.parametrize("backend", [*PLUGINS, "strict", "numba"], indirect=True),
    pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: str(case["name"])),
]


def model_of(case: Any, backend: Backend) -> LanguageModel:
    config = Config(**SIZES, **case["options"], bos_token_id=None, eos_token_id=None)
    weights = golden_weights(config.shapes())
    return LanguageModel(config, borrowed(weights, backend, DType.float64))


def assert_as_recorded(model: LanguageModel, expected: Any, mask: Tensor | None = None) -> None:
    for side, logits in expected["padded"].items():
        ids, visible, _ = golden_padded(side)
        last = (visible * np.arange(visible.shape[1])).argmax(-1)
        given = None if mask is None else mask.numpy()
        found = model(ids, visible, head_mask=given).logits[np.arange(len(ids)), last]
        np.testing.assert_allclose(found, logits, rtol=1e-8, atol=1e-8, err_msg=side)
    _, slopes = differentiated(model, golden_ids(3, 8), lambda: Pass(head_mask=mask))
    beside = golden_weights({name: slope.shape for name, slope in slopes.items()}, seed=1)
    for name, numbers in zip(sorted(slopes), expected["slopes"], strict=True):
        slope = slopes[name]
        found = [np.linalg.norm(slope), (slope * beside[name]).sum()]
        np.testing.assert_allclose(found, numbers, rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", RECORDED["cases"][0]["masked"])
def test_masked(name: str, case: Any, backend: Backend) -> None:
    expected = case["masked"][name]
    mask = tensor(expected["mask"], backend, DType.float64)
    assert_as_recorded(model_of(case, backend), expected, mask)


@pytest.mark.parametrize("name", RECORDED["cases"][0]["pruned"])
def test_pruned(name: str, case: Any, backend: Backend) -> None:
    expected, model = case["pruned"][name], model_of(case, backend)
    for step in expected["steps"]:
        model = model.prune_heads({int(layer): heads for layer, heads in step.items()})
    assert_as_recorded(model, expected)
