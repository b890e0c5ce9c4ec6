"""Masked heads, and what a model shows of itself: as transformers has them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from causal_models import transformers_gpt2, transformers_weights
from golden_weights import SIZES, golden_ids, golden_weights
from optional import torch

from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dropout import Dropout
from tfx.core.dtypes import DType
from tfx.core.errors import ShapeError, UsageError
from tfx.core.generation.generate import GenerationOptions, generate
from tfx.core.parameters import borrowed
from tfx.core.tensor import Tensor
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config, logits, loss
from tfx.models.gpt2.passing import Pass

pytestmark = pytest.mark.usefixtures("calm")

RECORDED = json.loads((Path(__file__).parents[2] / "data/transformers_4.json").read_text())
MASKS: dict[str, Any] = {
    "by layer": [[1, 0, 0.5, 1], [0, 1, 1, 0.25], [1, 1, 0, 1]],
    "everywhere": [1, 0, 0.5, 2],
    "silent": [[0] * 4, [1] * 4, [0] * 4],
}
IDS = golden_ids(3, 8)
LAID_OUT_ALIKE = ["numpy", "torch", "cupy"]
"""The backends on which the same sums give the same bits; strict scatters each array otherwise."""


@pytest.fixture(params=RECORDED["cases"], ids=lambda case: str(case["name"]))
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


def model_of(case: Any, backend: Backend, dtype: DType = DType.float64) -> LanguageModel:
    config = Config(**SIZES, **case["options"], bos_token_id=None, eos_token_id=None)
    return LanguageModel(config, borrowed(golden_weights(config.shapes()), backend, dtype))


@pytest.mark.parametrize("mask", MASKS)
def test_as_transformers_4(mask: str, case: Any, backend: Backend) -> None:
    expected = case["masked"][mask]
    model = model_of(case, backend)
    found = model(IDS[:1], head_mask=MASKS[mask], output_attentions=True)
    np.testing.assert_allclose(found.logits[0], expected["logits"], rtol=1e-8, atol=1e-8)
    assert found.attentions is not None
    np.testing.assert_allclose(found.attentions[2][0], expected["attention"], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mask", MASKS)
def test_through_the_cache(mask: str, case: Any, backend: Backend) -> None:
    plain = model_of(case, backend)
    model = replace(plain, head_mask=tensor(MASKS[mask], backend, DType.float64))
    expected = np.array(case["masked"][mask]["logits"])
    cache = model.start(1, 8)
    for i in range(8):
        ids = tensor(IDS[:1, i : i + 1], backend, backend.index_dtype)
        found = model.logits(ids, cache).numpy()[0]
        np.testing.assert_allclose(found, expected[i], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("backend", LAID_OUT_ALIKE, indirect=True)
def test_of_ones_is_none_bit_for_bit(case: Any, backend: Backend) -> None:
    model = model_of(case, backend, DType.float32)
    found, expected = model(IDS, head_mask=np.ones(4)), model(IDS)
    assert found.logits.tolist() == expected.logits.tolist()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradient_is_that_of_finite_differences(
    checkpoint: bool, case: Any, backend: Backend
) -> None:
    """Dropout too multiplies the weights, and is heeded together with the mask."""
    model = model_of(case, backend)
    ids = tensor(IDS, backend, backend.index_dtype)
    at = np.array(MASKS["by layer"])

    def value(mask: Tensor) -> Tensor:
        drawing = Dropout((1, 2), tensor(0, backend, backend.index_dtype))
        through = Pass(dropout=drawing, checkpoint=checkpoint, head_mask=mask)
        return loss(model.params, model.config, ids[:, :-1], ids[:, 1:], through)

    def value_at(mask: Any) -> float:
        return float(value(tensor(mask, backend, DType.float64)).item())

    found = value_and_grad(value)(tensor(at, backend, DType.float64))[1].numpy()
    step = 1e-5
    for place in [(0, 1), (1, 0), (1, 3), (2, 2)]:
        ahead, behind = at.copy(), at.copy()
        ahead[place] += step
        behind[place] -= step
        expected = (value_at(ahead) - value_at(behind)) / (2 * step)
        assert found[place] == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_no_bit_of_it_is_lost(backend: Backend) -> None:
    """A third of what a layer gathers is what its projection gives by a third of its weights."""
    model = model_of(RECORDED["cases"][0], backend)
    name = "h.1.attn.c_proj.weight"
    scaled = replace(model, params={**model.params, name: model.params[name] * (1 / 3)})
    mask = np.ones((3, 4))
    mask[1] = 1 / 3
    found = model(IDS, head_mask=mask).logits
    np.testing.assert_allclose(found, scaled(IDS).logits, rtol=1e-12, atol=1e-12)


def test_generation_heeds_it(backend: Backend) -> None:
    plain = model_of(RECORDED["cases"][0], backend)
    options = GenerationOptions(max_new_tokens=6)
    mask = MASKS["by layer"]
    model = replace(plain, head_mask=tensor(mask, backend, DType.float64))
    texts = [IDS[0, :6].tolist(), IDS[1, :3].tolist()]
    for text, [found] in zip(texts, generate(model, texts, options), strict=True):
        expected = list(text)
        for _ in range(6):
            scores = plain([expected], head_mask=mask).logits[0, -1]
            expected.append(int(scores.argmax()))
        assert list(found.token_ids) == expected[len(text) :]


@pytest.mark.parametrize("shape", [(3,), (3, 3), (4, 3), (3, 4, 1), ()])
def test_another_shape_is_refused(shape: tuple[int, ...], backend: Backend) -> None:
    model = model_of(RECORDED["cases"][0], backend)
    with pytest.raises(ShapeError, match=r"head_mask has the shape .*; expected \(4,\) or \(3, 4"):
        model(IDS, head_mask=np.ones(shape))


# ---- what a model shows --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"scale_attn_by_inverse_layer_idx": True}, {"reorder_and_upcast_attn": True}],
    ids=str,
)
def test_hidden_states_and_attentions(options: dict[str, Any], backend: Backend) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = transformers_gpt2(transformers, attn_implementation="eager", **options)
    given = theirs.config
    config = Config(
        vocab_size=given.vocab_size, n_positions=given.n_positions, n_embd=given.n_embd,
        n_layer=given.n_layer, n_head=given.n_head, **options,
    )  # fmt: skip
    model = LanguageModel(config, borrowed(transformers_weights(theirs), backend, DType.float32))
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, 9))
    seen = np.ones(ids.shape, bool)
    seen[0, :3] = False
    places = (seen.cumsum(1) - 1).clip(min=0)
    with torch.no_grad():
        expected = theirs(
            torch.tensor(ids), attention_mask=torch.tensor(seen).long(),
            position_ids=torch.tensor(places), output_attentions=True, output_hidden_states=True,
        )  # fmt: skip
    found = model(ids, seen, output_attentions=True, output_hidden_states=True)
    assert found.hidden_states is not None and found.attentions is not None
    assert len(found.hidden_states) == config.n_layer + 1 == len(expected.hidden_states)
    assert len(found.attentions) == config.n_layer == len(expected.attentions)
    pairs = [(found.logits, expected.logits)]
    pairs += zip(found.hidden_states, expected.hidden_states, strict=True)
    for mine, their in pairs:
        size = np.abs(their.numpy()).max()
        np.testing.assert_allclose(mine[seen], their.numpy()[seen], rtol=0, atol=2e-5 * size)
    for mine, their in zip(found.attentions, expected.attentions, strict=True):
        by_query = np.moveaxis(mine, 2, 1)[seen], np.moveaxis(their.numpy(), 2, 1)[seen]
        np.testing.assert_allclose(*by_query, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", LAID_OUT_ALIKE, indirect=True)
def test_nothing_is_shown_unasked(backend: Backend) -> None:
    model = model_of(RECORDED["cases"][0], backend)
    found = model(IDS)
    assert found.hidden_states is None and found.attentions is None
    ids = tensor(IDS, backend, backend.index_dtype)
    plain = logits(model.params, model.config, ids).numpy()
    np.testing.assert_array_equal(found.logits, plain)
    asked = model(IDS, output_attentions=True, output_hidden_states=True)
    np.testing.assert_array_equal(asked.logits, plain)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2], "ids are int64"),
        ([[0.5]], "ids are float64"),
        ([[]], "ids are float64"),
        ([[0] * 17], "from 1 to 16 tokens"),
        ([[0, 31]], "token 31 is none of the model's: expected 0 to 30"),
        ([[-1, 3]], "token -1"),
    ],
)
def test_wrong_texts_are_refused(ids: Any, message: str, backend: Backend) -> None:
    model = model_of(RECORDED["cases"][0], backend)
    with pytest.raises((ShapeError, UsageError), match=message):
        model(ids)


def test_padding_must_suit(backend: Backend) -> None:
    model = model_of(RECORDED["cases"][0], backend)
    with pytest.raises(ShapeError, match=r"visible is bool \(3, 7\); expected bool \(3, 8\)"):
        model(IDS, np.ones((3, 7), bool))
    with pytest.raises(ShapeError, match=r"visible is float64 \(3, 8\)"):
        model(IDS, np.ones((3, 8)))
