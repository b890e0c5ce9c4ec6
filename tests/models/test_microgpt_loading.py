"""A microGPT loaded from Python writes what it writes on the command line."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import tfx
from tfx.core.backend import Backend
from tfx.core.checkpoint import load_checkpoint
from tfx.core.errors import UsageError
from tfx.core.recipe import BenchSettings
from tfx.models.microgpt import bench
from tfx.models.microgpt.model import forward
from tfx.models.microgpt.run import Model
from tfx.models.microgpt.sampling import Sampler


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("micro") / "weights"
    return bench.weights_to_bench(BenchSettings(), folder, lambda line: None)


def test_the_likeliest_names_are_those_of_the_sampler(weights: Path, backend: Backend) -> None:
    model = tfx.load(weights, backend=backend)
    held = Model.of(load_checkpoint(weights, "microgpt"), backend)
    sampler = Sampler(held.params, held.config, held.vocabulary)
    prompts = ["", "a", "emm", "jo"]
    wanted = [sampler.sample(random.Random(1), 0.0, prompt) for prompt in prompts]
    texts = model.generate(prompts)
    found = [prompt + text.text for prompt, text in zip(prompts, texts, strict=True)]
    # a text that is full has one token more, which nothing need read
    assert [name[:16] for name in found] == [name[:16] for name in wanted]
    assert model.name == "microgpt"


def test_its_scores_are_those_of_the_network(weights: Path) -> None:
    model = tfx.load(weights, backend="numpy")
    held = Model.of(load_checkpoint(weights, "microgpt"), model.backend)
    ids, _, _ = held.windows("emma")
    wanted = forward(held.params, held.config, ids).numpy()
    np.testing.assert_allclose(model.logits("emma"), wanted[:5], rtol=1e-9)
    found = tfx.pipeline("perplexity", model)("emma")
    logp = wanted - np.log(np.exp(wanted).sum(-1, keepdims=True))
    targets = held.vocabulary.ids("emma")
    assert found["loss"] == pytest.approx(-logp[range(4), targets].mean(), rel=1e-9)
    beams = model.generate("e", num_beams=3, num_samples=2, max_new_tokens=4)
    assert len({tuple(text.token_ids) for text in beams}) == 2


def test_a_padded_text_is_read_as_it_is_alone(weights: Path) -> None:
    model = tfx.load(weights, backend="numpy")
    texts = [model.encode("jo"), model.encode("emmas")]
    padded = np.array([[0] * (6 - len(ids)) + ids for ids in texts])
    cache = model.causal.start(2, 8)
    cache.pad_left([3, 0])
    found = model.causal.logits(tfx.tensor(padded, model.backend), cache).numpy()
    wanted = [model.logits(ids)[-1] for ids in texts]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    cache.reorder([1, 0])
    again = model.causal.logits(tfx.tensor(np.array([[3], [4]]), model.backend), cache).numpy()
    wanted = [model.logits([*texts[1], 3])[-1], model.logits([*texts[0], 4])[-1]]
    np.testing.assert_allclose(again, wanted, rtol=1e-9)


def test_what_it_has_not_is_refused(weights: Path) -> None:
    with pytest.raises(UsageError, match="no use for quantize; leave it out"):
        tfx.load(weights, backend="numpy", quantize="int8")
    with pytest.raises(UsageError, match="no use for theta"):
        tfx.load(weights, backend="numpy", theta=np.ones(3))
    with pytest.raises(UsageError, match="microgpt cannot be called from Python"):
        tfx.load(weights, backend="numpy")("emma")
