"""Heads of transformers with random weights, what they give, and the same in ours."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, get_args

import numpy as np
import pytest
from causal_models import transformers_weights
from gpt2_parity import NAMES, enliven
from optional import torch

from tfx.core.autograd import Autograd, value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.nn import Activation
from tfx.core.parameters import borrowed
from tfx.core.tensor import Tensor
from tfx.models.gpt2.heads import (
    Head,
    Summary,
    TaskName,
    choice_logits,
    double_logits,
    span_logits,
    text_logits,
    token_logits,
)
from tfx.models.gpt2.model import Config, Params
from tfx.models.gpt2.passing import Pass

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

CLASSES: dict[TaskName, str] = {
    "text-classification": "GPT2ForSequenceClassification",
    "token-classification": "GPT2ForTokenClassification",
    "question-answering": "GPT2ForQuestionAnswering",
    "multiple-choice": "GPT2DoubleHeadsModel",
}
SIZES = {"vocab_size": 97, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 2}
ENDS = {"bos_token_id": None, "eos_token_id": None, "initializer_range": 0.4}
LENGTHS = (9, 4, 12, 1)


def drawn(seed: int) -> dict[str, Any]:
    """The sizes of a small GPT-2, its activation, and the seed of its weights."""
    draw = random.Random(seed)
    heads = draw.randint(1, 4)
    return {
        "seed": seed,
        "vocab_size": draw.randint(97, 140),
        "n_positions": draw.randint(14, 32),
        "n_head": heads,
        "n_embd": heads * draw.randint(3, 9),
        "n_layer": draw.randint(1, 3),
        "n_inner": draw.choice([None, 20]),
        "activation_function": draw.choice(get_args(Activation)),
    }


@dataclass(frozen=True, eq=False)
class Texts:
    """A batch of ids (B, T), what of it is no padding, and where each token stands in its text."""

    ids: HostArray
    visible: HostArray | None = None

    @property
    def for_transformers(self) -> dict[str, Any]:
        if self.visible is None:
            return {"input_ids": torch.tensor(self.ids)}
        seen = torch.tensor(self.visible)
        places = (seen.long().cumsum(-1) - 1).clamp(min=0)
        return {
            "input_ids": torch.tensor(self.ids),
            "attention_mask": seen.long(),
            "position_ids": places,
        }

    def reshaped(self, *shape: int) -> Texts:
        """Its rows in other groups."""
        seen = None if self.visible is None else self.visible.reshape(*shape, -1)
        return Texts(self.ids.reshape(*shape, -1), seen)

    def on(self, backend: Backend) -> tuple[Tensor, Pass]:
        seen = None if self.visible is None else tensor(self.visible, backend)
        return tensor(self.ids, backend, backend.index_dtype), Pass(visible=seen)


def texts(side: str, pad: int = 96, seed: int = 5) -> Texts:
    """Four texts with padding on the `right`, on the `left`, or of one length (`none`)."""
    rng = np.random.default_rng(seed)
    width = max(LENGTHS) + 2
    if side == "none":
        return Texts(rng.integers(0, 96, (len(LENGTHS), width)))
    ids, visible = np.full((len(LENGTHS), width), pad), np.zeros((len(LENGTHS), width), bool)
    for row, length in enumerate(LENGTHS):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, place], visible[row, place] = rng.integers(0, 96, length), True
    return Texts(ids, visible)


class HeadReference:
    """One of transformers' heads, and the same in ours.

    Args:
        task: which head.
        options: of transformers' configuration.
    """

    def __init__(self, task: TaskName, seed: int = 3, **options: Any) -> None:
        torch.manual_seed(seed)
        config = transformers.GPT2Config(**(SIZES | ENDS | options))
        self.model = getattr(transformers, CLASSES[task])(config).eval()
        enliven(self.model)
        given = self.model.config
        self.config = Config(**{name: getattr(given, name) for name in NAMES})
        summary = {f.name: getattr(given, f"summary_{f.name}", f.default) for f in fields(Summary)}
        self.head = Head(
            task,
            labels=tuple(given.id2label.values()),
            problem_type=given.problem_type,
            pad_token_id=given.pad_token_id,
            summary=Summary(**summary),
        )

    @cached_property
    def weights(self) -> dict[str, HostArray]:
        return transformers_weights(self.model)

    def on(self, backend: Backend) -> Params:
        return borrowed(self.weights, backend, DType.float32)

    def scores(self, p: Params, batch: Texts, backend: Backend, **more: Any) -> Any:
        """What our head gives."""
        ids, through = batch.on(backend)
        match self.head.task:
            case "text-classification":
                return text_logits(p, self.config, self.head, ids, through)
            case "token-classification":
                return token_logits(p, self.config, self.head, ids, through)
            case "question-answering":
                return span_logits(p, self.config, ids, through)
        double = double_logits(p, self.config, self.head, ids, through, **more)
        alone = choice_logits(p, self.config, self.head, ids, through, **more)
        np.testing.assert_allclose(double[1].numpy(), alone.numpy(), rtol=1e-5, atol=1e-5)
        return double

    def slopes_of(self, loss: Any) -> Mapping[str, HostArray]:
        """The gradient of transformers' loss by every parameter."""
        self.model.zero_grad()
        loss.backward()
        found = {
            name.removeprefix("transformer."): np.zeros(x.shape, np.float32)
            if x.grad is None
            else x.grad.numpy().copy()
            for name, x in self.model.named_parameters()
        }
        self.model.zero_grad()
        return found


def our_slopes(
    params: Params, loss: Callable[[Params], Tensor], autograd: Autograd
) -> tuple[float, Mapping[str, HostArray]]:
    value, slopes = value_and_grad(loss, autograd=autograd)(params)
    return value.item(), {name: slope.numpy() for name, slope in slopes.items()}
