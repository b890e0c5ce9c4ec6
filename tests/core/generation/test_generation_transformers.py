"""The same tokens as Hugging Face transformers, from the same random weights.

Twice: with the logits of transformers' own model, which leaves the choice of tokens to compare,
and with our GPT-2. The weights are large: at a GPT-2's usual initialisation the model
repeats one token, and nothing that is wrong with positions, mask or cache would show.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from causal_models import (
    TinyGPT,
    TransformersModel,
    one_thread,
    transformers_gpt2,
    transformers_weights,
)

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.generation.generate import GenerationOptions, generate
from tfx.core.generation.logits import filtered
from tfx.core.plugins import import_target

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

TORCH = "tfx.backends.torch.backend:TorchBackend"
PROMPTS = [[5, 9, 3, 1], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
NEAR = 1e-4


@pytest.fixture(scope="module", autouse=True)
def calm() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def hf() -> Any:
    return transformers_gpt2(transformers)


@pytest.fixture(scope="module")
def numpy() -> Backend:
    return NumpyBackend()


@pytest.fixture(scope="module", params=["logits of transformers", "numpy", "torch"])
def model(request: pytest.FixtureRequest, hf: Any, numpy: Backend) -> Any:
    if request.param == "logits of transformers":
        return TransformersModel(hf, numpy)
    backend = numpy if request.param == "numpy" else import_target(TORCH)(None)
    return TinyGPT.of(transformers_weights(hf), hf.config.n_head, backend)


def theirs(hf: Any, prompts: list[list[int]], **given: Any) -> tuple[list[list[int]], str]:
    """What transformers generates, each text up to its first eos, and how close it was."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    out = hf.generate(
        torch.tensor([[1] * n + prompt for n, prompt in zip(padding, prompts, strict=True)]),
        attention_mask=torch.tensor([[0] * n + [1] * (longest - n) for n in padding]),
        pad_token_id=1,
        output_logits=True,
        return_dict_in_generate=True,
        **({"do_sample": False} | given),
    )
    ends = given.get("eos_token_id") or []
    texts = [ids[longest:] for ids in out.sequences.tolist()]
    cut = [next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids)) for ids in texts]
    best = [step.topk(2).values for step in out.logits]
    near = sum(int(((top[:, 0] - top[:, 1]) < NEAR).sum()) for top in best)
    report = f"{near} times the two largest logits were less than {NEAR} apart"
    return [ids[:end] for ids, end in zip(texts, cut, strict=True)], report


def mine(model: Any, prompts: list[list[int]], **given: Any) -> list[list[int]]:
    texts = generate(model, prompts, GenerationOptions(**given))
    return [text.token_ids for of_prompt in texts for text in of_prompt]


def test_greedy(model: Any, hf: Any) -> None:
    expected, near = theirs(hf, PROMPTS[:1], max_new_tokens=200)
    assert len(set(expected[0])) >= 30
    assert mine(model, PROMPTS[:1], max_new_tokens=200) == expected, near


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"repetition_penalty": 1.3},
        {"eos": [11, 20, 33, 50], "min_new_tokens": 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("beams", [1, 4])
def test_padded_batches(beams: int, given: dict[str, Any], model: Any, hf: Any) -> None:
    given = dict(given)
    ends = given.pop("eos", [])
    both = {"max_new_tokens": 20, "num_beams": beams} | given
    expected, near = theirs(hf, PROMPTS, eos_token_id=ends or None, **both)
    assert mine(model, PROMPTS, eos_ids=tuple(ends), **both) == expected, near


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("beams", [1, 4])
def test_ngrams(beams: int, size: int, model: Any, hf: Any) -> None:
    """Prompt by prompt: transformers takes the padding of a batch for text that must not recur."""
    given = {
        "max_new_tokens": 20, "num_beams": beams, "no_repeat_ngram_size": size,
        "repetition_penalty": 0.8,
    }  # fmt: skip
    alone = [theirs(hf, [prompt], **given) for prompt in PROMPTS]
    expected = [ids for texts, _ in alone for ids in texts]
    assert mine(model, PROMPTS, **given) == expected, [near for _, near in alone]


@pytest.mark.parametrize("stopping", [True, False, "never"])
@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0, -1.0])
@pytest.mark.parametrize("ends", [[11], [11, 20, 33]], ids=str)
def test_beams(
    ends: list[int], penalty: float, stopping: bool | str, hf: Any, numpy: Backend
) -> None:
    """Every text of a search, in its order."""
    both = {
        "max_new_tokens": 15, "num_beams": 4, "length_penalty": penalty, "early_stopping": stopping
    }  # fmt: skip
    expected, near = theirs(hf, PROMPTS, num_return_sequences=4, eos_token_id=ends, **both)
    model = TransformersModel(hf, numpy)
    found = mine(model, PROMPTS, num_samples=4, eos_ids=tuple(ends), **both)
    assert found == expected, near
    assert stopping is not True or len(set(map(len, found))) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_beams_of_many_models(seed: int, numpy: Backend) -> None:
    """A few tokens only, so that ends come thick."""
    hf = transformers_gpt2(transformers, seed, vocab_size=13, n_embd=24)
    model = TransformersModel(hf, numpy)
    prompts = [[2, 5], [3, 1, 4, 1], [9]]
    for stopping in (True, False, "never"):
        both = {"max_new_tokens": 15, "num_beams": 3, "early_stopping": stopping}
        expected, near = theirs(hf, prompts, num_return_sequences=3, eos_token_id=[0, 7], **both)
        assert mine(model, prompts, num_samples=3, eos_ids=(0, 7), **both) == expected, near


def test_processed_scores_of_a_sampled_text(hf: Any) -> None:
    """The scores transformers draws from, token by token along a text it drew, are the ones drawn
    from here."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"temperature": 1.7, "top_k": 40, "top_p": 0.9, "min_p": 0.02}
    out = hf.generate(
        torch.tensor(PROMPTS[:1]), attention_mask=torch.ones(1, 4, dtype=torch.long),
        do_sample=True, max_new_tokens=40, pad_token_id=0, output_scores=True, output_logits=True,
        return_dict_in_generate=True, **given,
    )  # fmt: skip
    options = GenerationOptions(**given)
    for logits, scores in zip(out.logits, out.scores, strict=True):
        np.testing.assert_array_equal(filtered(logits[0].numpy(), options), scores[0].numpy())
