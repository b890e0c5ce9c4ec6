"""What a GPT-2 makes of a text: as transformers and torch have it, and as the model itself says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from causal_models import transformers_gpt2, transformers_weights
from gpt2_checkpoints import random_weights, write_gpt2
from optional import torch

from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import TfxError, UsageError
from tfx.core.explanation import Explanation
from tfx.core.parameters import borrowed
from tfx.models.gpt2.explaining import explained
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config

pytestmark = pytest.mark.usefixtures("calm")

IDS = np.random.default_rng(0).integers(0, 97, 9).tolist()
SIZES = {"vocab_size": 97, "n_positions": 256, "n_embd": 48, "n_layer": 3, "n_head": 4}


class Theirs:
    """A GPT-2 of transformers, and what it shows of itself for `IDS`."""

    def __init__(self) -> None:
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        self.model = transformers_gpt2(transformers, attn_implementation="eager")
        behind: list[Any] = []  # what each block gives: transformers norms the last before it tells
        for block in self.model.transformer.h:
            block.register_forward_hook(
                lambda _, given, out: behind.append(out[0] if isinstance(out, tuple) else out)
            )
        with torch.no_grad():
            self.out = self.model(
                torch.tensor([IDS]), output_attentions=True, output_hidden_states=True
            )
            self.residuals = [self.out.hidden_states[0][0], *(x.reshape(9, 48) for x in behind)]
            self.logits = [
                self.model.lm_head(self.model.transformer.ln_f(x)).double() for x in self.residuals
            ]


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    return Theirs()


def model_on(backend: Backend, theirs: Theirs) -> LanguageModel:
    return LanguageModel(
        Config(**SIZES), borrowed(transformers_weights(theirs.model), backend, DType.float32)
    )


def test_the_logit_lens(backend: Backend, theirs: Theirs) -> None:
    found = explained(model_on(backend, theirs), IDS, top_k=3)
    assert [stage.name for stage in found.stages] == ["embeddings", "h.0", "h.1", "h.2"]
    for stage, logits in zip(found.stages, theirs.logits, strict=True):
        targets = torch.tensor(IDS[1:])
        losses = torch.nn.functional.cross_entropy(logits[:-1], targets, reduction="none")
        chances = torch.distributions.Categorical(logits=logits)
        said = stage.predictions
        np.testing.assert_allclose([p.loss for p in said[:-1]], losses, rtol=0, atol=2e-3)
        np.testing.assert_allclose([p.entropy for p in said], chances.entropy(), rtol=0, atol=2e-3)
        probabilities = [[x.probability for x in p.top] for p in said]
        np.testing.assert_allclose(probabilities, chances.probs.topk(3).values, rtol=0, atol=1e-3)
    out = torch.nn.functional.cross_entropy(theirs.out.logits[0, :-1], torch.tensor(IDS[1:]))
    assert found.loss == pytest.approx(out.item(), abs=1e-4)


def test_activations_and_attention(backend: Backend, theirs: Theirs) -> None:
    found = explained(model_on(backend, theirs), IDS)
    for stage, x in zip(found.stages, theirs.residuals, strict=True):
        s = stage.statistics
        each = torch.linalg.vector_norm(x, dim=1)
        expected = [x.mean(), x.std(correction=0), x.abs().max(), each.mean()]
        np.testing.assert_allclose([s.mean, s.std, s.max_abs, s.norm], expected, rtol=1e-4)
        np.testing.assert_allclose(s.norms, each, rtol=1e-4)
    assert [(one.layer, one.head) for one in found.attentions] == [*np.ndindex(3, 4)]
    for one in found.attentions:
        expected = theirs.out.attentions[one.layer][0, one.head]
        np.testing.assert_allclose(one.weights, expected, rtol=0, atol=1e-5)


def test_parameters_and_flops_are_those_that_torch_counts(theirs: Theirs) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs.model(torch.tensor([IDS]))
    found = explained(model_on_numpy(theirs), IDS)
    assert found.flops == counter.get_total_flops()
    assert found.parameters == sum(x.numel() for x in theirs.model.parameters())
    assert found.parameters == sum(part.parameters for part in found.parts)


def model_on_numpy(theirs: Theirs) -> LanguageModel:
    from tfx.backends.numpy.backend import NumpyBackend

    return model_on(NumpyBackend(), theirs)


def random_model(backend: Backend, **options: Any) -> LanguageModel:
    config = Config(**(SIZES | options))
    return LanguageModel(config, borrowed(random_weights(config), backend, DType.float32))


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_the_numbers_are_those_of_the_models_own_arrays(backend: Backend) -> None:
    model = random_model(backend)
    out = model([IDS], output_attentions=True, output_hidden_states=True)
    assert out.attentions is not None and out.hidden_states is not None
    found = explained(model, IDS)
    for one in found.attentions:
        np.testing.assert_array_equal(one.weights, out.attentions[one.layer][0, one.head])
    for stage, x in zip(found.stages[:-1], out.hidden_states, strict=False):
        assert stage.statistics.max_abs == np.abs(x).max()
    scores = out.logits[0].astype(np.float64)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    for place, said in enumerate(found.predictions):
        best = said.top[0]
        assert best.token_id == scores[place].argmax()
        assert best.probability == pytest.approx(shares[place].max(), rel=1e-9)


def test_every_parameter_belongs_to_one_part(backend: Backend) -> None:
    for options in ({"tie_word_embeddings": False}, {"n_inner": 40}, {"pruned_heads": LOST}):
        found = explained(random_model(backend, **options), IDS)
        assert sum(part.parameters for part in found.parts) == found.parameters


LOST = ((0, (1, 3)), (2, (0,)))


def test_pruned_heads_have_no_maps(backend: Backend) -> None:
    model = random_model(backend).prune_heads({0: [1, 3], 2: [0]})
    found = explained(model, IDS)
    numbers = [(one.layer, one.head) for one in found.attentions]
    assert numbers == [p for p in np.ndindex(3, 4) if p not in {(0, 1), (0, 3), (2, 0)}]
    assert "W" not in found.sizes  # it is another in each layer
    attention = [part.flops for part in found.parts if part.name == "attn"]
    assert attention == [4 * 9 * 9 * width for width in (24, 48, 36)]
    assert [x.layer for x in explained(model, IDS, heads=[1]).attentions] == [1, 2]
    assert explained(model, IDS, layers=[0], heads=[]).attentions == ()
    with pytest.raises(UsageError, match=r"^heads 1: layer 0 has lost 1 and 3$"):
        explained(model, IDS, layers=[0], heads=[1])


def test_layers_and_heads_that_were_asked_for(backend: Backend) -> None:
    found = explained(random_model(backend), IDS, layers=[0, 2], heads=[3])
    assert [(one.layer, one.head) for one in found.attentions] == [(0, 3), (2, 3)]


def test_under_theta_0_all_is_attended_to_alike(backend: Backend) -> None:
    model = random_model(backend)
    flat = replace(model, theta=tensor(0.0, backend, DType.float32))
    uniform = np.tril(np.ones((9, 9))) / np.arange(1, 10)[:, None]
    found = explained(flat, IDS)
    for one in found.attentions:
        np.testing.assert_allclose(one.weights, uniform, rtol=1e-6)
    assert found.stages[-1].statistics != explained(model, IDS).stages[-1].statistics


def test_a_single_token(backend: Backend) -> None:
    found = explained(random_model(backend), [5])
    assert found.loss is None and found.perplexity is None
    assert [len(stage.predictions) for stage in found.stages] == [1] * 4
    assert found.texts == (None,)


@pytest.mark.parametrize("dtype", [DType.float16, DType.float64])
def test_other_floats(dtype: DType, backend: Backend) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"{backend} has no {dtype}")
    config = Config(**SIZES)
    weights = random_weights(config, spread=0.05)
    wide = explained(LanguageModel(config, borrowed(weights, backend, DType.float32)), IDS)
    found = explained(LanguageModel(config, borrowed(weights, backend, dtype)), IDS)
    assert found.loss == pytest.approx(wide.loss, rel=2e-3)
    assert found.dtype == str(dtype)


def test_tokens_by_their_texts(tmp_path: Path, backend: Backend) -> None:
    model = LanguageModel.load(write_gpt2(tmp_path / "gpt2"), backend, lambda line: None)
    assert model.tokenizer is not None
    found: Explanation = explained(model, model.tokenizer.encode("the é"))
    assert found.texts[0] == "the" and found.texts[-1] == "\N{REPLACEMENT CHARACTER}"
    assert all(x.text is not None for said in found.predictions for x in said.top)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"ids": []}, "expected whole numbers .* from 1 to 256 tokens"),
        ({"ids": [0] * 257}, "from 1 to 256 tokens"),
        ({"ids": [97]}, "token 97 is none of the model's"),
        ({"ids": [0], "top_k": 98}, "^top_k 98: the model knows 97 tokens"),
        ({"ids": [0], "layers": [3]}, "^layers 3: expected numbers from 0 to 2"),
        ({"ids": [0], "heads": [-1]}, "^heads -1: expected numbers from 0 to 3"),
    ],
)
@pytest.mark.parametrize("backend", ["numpy"], indirect=True)
def test_what_will_not_do(given: dict[str, Any], complaint: str, backend: Backend) -> None:
    with pytest.raises(TfxError, match=complaint):
        explained(random_model(backend), **given)


def test_usage_errors_are_the_users(backend: Backend) -> None:
    with pytest.raises(UsageError):
        explained(random_model(backend), IDS, layers=[9])
