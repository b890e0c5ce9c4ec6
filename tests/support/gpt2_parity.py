"""A GPT-2 of transformers with random weights, what it gives, and checks that ours gives the same.

The weights are drawn ten times as large as a GPT-2 begins with, or more: a small random GPT-2
repeats one token for ever, and nothing that is wrong with positions, mask or cache would show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from causal_models import transformers_gpt2, transformers_weights
from optional import torch

from tfx.core.autograd import Autograd, value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.generation.generate import GenerationOptions, generate
from tfx.core.parameters import borrowed
from tfx.core.tensor import Tensor
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config, loss
from tfx.models.gpt2.passing import Pass

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

LOGITS = 2e-5  # of the largest logit, in float32
GRADIENTS = 1e-4  # of the largest number of each
NEAR = 1e-4  # between the two largest logits: rounding may exchange them
NEW, FEW = 200, 12  # tokens, as far as there are positions
NAMES = [field.name for field in fields(Config) if field.name != "pruned_heads"]


@dataclass(frozen=True)
class Continuation:
    """What transformers generates greedily.

    Attributes:
        ids: the new tokens.
        gaps: how far the two largest logits were apart at each.
    """

    ids: list[int]
    gaps: list[float]


Slopes = tuple[float, Mapping[str, HostArray]]
"""A loss, and its gradient by every parameter."""


class Reference:
    """A GPT2LMHeadModel, and what it computes, once for all backends.

    Args:
        length: of the texts that are read whole.
        prompt: length of the one that is gone on from.
        new: how many tokens go on from it.
        options: of transformers' configuration; small sizes by default.
    """

    def __init__(
        self, length: int = 40, prompt: int = 4, new: int = NEW, seed: int = 1, **options: Any
    ) -> None:
        self.model = transformers_gpt2(transformers, seed, **options)
        enliven(self.model)
        given = self.model.config
        self.config = Config(**{name: getattr(given, name) for name in NAMES})
        shape = 2, min(length, self.config.n_positions)
        self.ids = np.random.default_rng(seed).integers(0, self.config.vocab_size, shape)
        self.prompt: list[int] = self.ids[0, :prompt].tolist()
        self.new = new
        self.texts: list[list[int]] = [self.ids[0, :4].tolist(), [7], self.ids[1, :6].tolist()]

    def on(self, backend: Backend, dtype: DType = DType.float32) -> LanguageModel:
        """The same model in ours."""
        weights = transformers_weights(self.model)
        return LanguageModel(self.config, borrowed(weights, backend, dtype))

    def room(self, wanted: int, *texts: Sequence[int]) -> int:
        """How many tokens can be added to texts, at most `wanted`; the last needs no position."""
        return min(wanted, self.config.n_positions + 1 - max(map(len, texts)))

    def logits(self, ids: Any) -> HostArray:
        """Scores (T, V) behind each id of a text."""
        with torch.no_grad():
            return np.asarray(self.model(torch.tensor(ids)[None]).logits[0].float().numpy())

    @cached_property
    def all_logits(self) -> HostArray:
        return np.stack([self.logits(ids) for ids in self.ids])

    @cached_property
    def greedy(self) -> Continuation:
        """The prompt's; a text that repeats itself, or that rounding could change, is no test."""
        found = self._continuation(self.prompt, self.new)
        assert len(set(found.ids)) >= len(found.ids) * 30 // 200
        assert min(found.gaps) >= NEAR
        return found

    @cached_property
    def alone(self) -> list[Continuation]:
        """Of each text by itself."""
        return [self._continuation(text, self.room(FEW, *self.texts)) for text in self.texts]

    def _continuation(self, prompt: list[int], count: int) -> Continuation:
        out = self._generate(prompt, count, output_logits=True)
        best = [step[0].topk(2).values.tolist() for step in out.logits]
        return Continuation(out.sequences[0, len(prompt) :].tolist(), [a - b for a, b in best])

    @cached_property
    def beams(self) -> list[tuple[list[list[int]], list[float]]]:
        """The four best continuations of each text, with their scores."""
        found = []
        for text in self.texts:
            out = self._generate(
                text,
                self.room(FEW, *self.texts),
                num_beams=4,
                num_return_sequences=4,
                output_scores=True,
            )
            found.append((out.sequences[:, len(text) :].tolist(), out.sequences_scores.tolist()))
        return found

    def _generate(self, prompt: list[int], count: int, **given: Any) -> Any:
        return self.model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=self.room(count, prompt), do_sample=False, pad_token_id=0,
            return_dict_in_generate=True, **given,
        )  # fmt: skip

    @cached_property
    def slopes(self) -> Slopes:
        return self.differentiated()

    def differentiated(self) -> Slopes:
        """The loss of predicting each text's next tokens, and its gradient by every parameter."""
        before, after = torch.tensor(self.ids[:, :-1]), torch.tensor(self.ids[:, 1:])
        self.model.zero_grad()
        logits = self.model(before).logits
        value = torch.nn.functional.cross_entropy(logits.flatten(0, 1), after.flatten())
        value.backward()
        slopes = {
            name.removeprefix("transformer."): x.grad.numpy()
            for name, x in self.model.named_parameters()
        }
        self.model.zero_grad()
        return value.item(), slopes


def enliven(model: Any) -> None:
    """Give a new model what training would: positions that count, biases that are not zero, gains
    that are not one."""
    with torch.no_grad():
        model.transformer.wpe.weight *= 2
        for name, x in model.named_parameters():
            if x.ndim == 1:
                spread = 0.02 if name.endswith("ln_f.bias") else 0.2  # says the same everywhere
                x += spread * torch.randn(x.shape)


# ---- the checks ----------------------------------------------------------------------------------

Check = Callable[[Reference, LanguageModel], None]


def assert_near(found: HostArray, expected: HostArray, tolerance: float, what: str) -> None:
    """max |difference| / max |expected| is at most `tolerance`."""
    assert found.shape == expected.shape, what
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{what}: off by {error:.1e} of the largest, not {tolerance:.0e}"


def check_logits(reference: Reference, model: LanguageModel) -> None:
    """Of two texts in one plain forward pass."""
    found = model.all_logits(_ids(model, reference.ids)).numpy()
    assert_near(found, reference.all_logits, LOGITS, "logits")


def check_padded_logits(reference: Reference, model: LanguageModel) -> None:
    """Texts of several lengths in one plain forward pass, with padding on either side."""
    texts = reference.texts
    width = min(max(map(len, texts)) + 2, reference.config.n_positions)
    for before in (1.0, 0.0, 0.5):
        ids = np.full((len(texts), width), reference.config.vocab_size - 1)
        visible = np.zeros(ids.shape, bool)
        places = []
        for row, text in enumerate(texts):
            start = int(before * (width - len(text)))
            places.append(slice(start, start + len(text)))
            ids[row, places[row]], visible[row, places[row]] = text, True
        found = model.all_logits(_ids(model, ids), tensor(visible, model.backend)).numpy()
        for row, text in enumerate(texts):
            what = f"logits of text {row} with {before:.0%} of its padding in front"
            assert_near(found[row, places[row]], reference.logits(text), LOGITS, what)


def check_greedy(reference: Reference, model: LanguageModel, count: int | None = None) -> None:
    """The prompt's continuation, token by token through the cache; the first `count`, or all."""
    count = reference.room(reference.new if count is None else count, reference.prompt)
    [[found]] = generate(model, [reference.prompt], GenerationOptions(max_new_tokens=count))
    _assert_same(found.token_ids, reference.greedy)


def check_batch(reference: Reference, model: LanguageModel) -> None:
    """Texts of several lengths, gone on from together, as each is alone."""
    count = reference.room(FEW, *reference.texts)
    found = generate(model, reference.texts, GenerationOptions(max_new_tokens=count))
    for [mine], expected in zip(found, reference.alone, strict=True):
        _assert_same(mine.token_ids, expected)


def check_beams(reference: Reference, model: LanguageModel) -> None:
    """All four texts of a beam search, for each text of a batch."""
    count = reference.room(FEW, *reference.texts)
    options = GenerationOptions(max_new_tokens=count, num_beams=4, num_samples=4)
    found = generate(model, reference.texts, options)
    for mine, (expected, scores) in zip(found, reference.beams, strict=True):
        assert [text.token_ids for text in mine] == expected, f"transformers' scores: {scores}"


def check_gradients(
    reference: Reference, model: LanguageModel, autograd: Autograd = "core"
) -> None:
    """Loss and gradients of two texts."""
    assert_slopes(differentiated(model, reference.ids, autograd=autograd), reference.slopes)


def differentiated(
    model: LanguageModel,
    ids: HostArray,
    through: Callable[[], Pass] = Pass,
    autograd: Autograd = "core",
) -> Slopes:
    """What `Reference.differentiated` gives, of ours; `through` is asked for each pass."""
    before, after = _ids(model, ids[:, :-1]), _ids(model, ids[:, 1:])
    value, slopes = value_and_grad(
        lambda p: loss(p, model.config, before, after, through()), autograd=autograd
    )(model.params)
    return value.item(), {name: slope.numpy() for name, slope in slopes.items()}


def assert_slopes(found: Slopes, expected: Slopes) -> None:
    assert found[0] == pytest.approx(expected[0], rel=GRADIENTS)
    assert found[1].keys() == expected[1].keys()
    for name, slope in found[1].items():
        assert_near(slope, expected[1][name], GRADIENTS, f"gradient by {name}")


def _assert_same(found: Sequence[int], expected: Continuation) -> None:
    """The same tokens; else, where they part and how close that was."""
    pairs = zip(found, expected.ids, strict=False)
    for step, (mine, theirs) in enumerate(pairs):
        near = [i for i, gap in enumerate(expected.gaps[: len(found)]) if gap < NEAR]
        assert mine == theirs, (
            f"token {step} is {mine}, not {theirs}, where transformers' two largest logits are "
            f"{expected.gaps[step]:.1e} apart; they are less than {NEAR:.0e} apart at {near}"
        )


def _ids(model: LanguageModel, ids: HostArray) -> Tensor:
    return tensor(ids, model.backend, model.backend.index_dtype)
