"""GPT-2 on every backend gives what Hugging Face transformers gives, option by option."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from gpt2_parity import (
    Check,
    Reference,
    check_batch,
    check_beams,
    check_gradients,
    check_greedy,
    check_logits,
    check_padded_logits,
)

from tfx.core.autograd import Autograd
from tfx.core.backend import Backend

pytestmark = pytest.mark.usefixtures("calm")

SMALL: dict[str, Any] = {"vocab_size": 300, "n_layer": 2, "n_embd": 24, "n_head": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {"n_layer": 3, "n_embd": 48, "n_head": 4},
    "narrow MLP": {"n_inner": 20},
    "large epsilon": {"layer_norm_epsilon": 0.05},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "silu": {"activation_function": "silu"},
    "unscaled": {"scale_attn_weights": False},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3, "seed": 4},
    "upcast": {"reorder_and_upcast_attn": True, "attn_implementation": "eager"},
    "head of its own": {"tie_word_embeddings": False},
    "three heads": {"n_embd": 33, "n_head": 3},
    "five heads": {"n_embd": 30, "n_head": 5, "seed": 2},
    "one head": {"n_head": 1},
    "heads of one": {"n_head": 24},
    "one layer": {"n_layer": 1},
    "short": {"n_positions": 7},
    "long": {"n_positions": 512, "length": 300, "prompt": 300},
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("cupy", "strict")]
QUICK = ["numpy", "torch"]


@cache
def made(name: str) -> Reference:
    return Reference(**(SMALL | OPTIONS[name]))


@pytest.fixture(params=OPTIONS)
def reference(request: pytest.FixtureRequest) -> Reference:
    return made(request.param)


def test_logits(reference: Reference, backend: Backend) -> None:
    check_logits(reference, reference.on(backend))


def test_padded_logits(reference: Reference, backend: Backend) -> None:
    check_padded_logits(reference, reference.on(backend))


@pytest.mark.parametrize("backend", ["cupy", "strict"], indirect=True)
def test_ten_tokens_through_the_cache(reference: Reference, backend: Backend) -> None:
    check_greedy(reference, reference.on(backend), count=10)


@pytest.mark.parametrize("backend", [*QUICK, *SLOW], indirect=True)
def test_200_tokens_through_the_cache(reference: Reference, backend: Backend) -> None:
    """Fewer where every call is checked, which takes its time."""
    check_greedy(reference, reference.on(backend), count=60 if backend.name == "strict" else 200)


@pytest.mark.parametrize("check", [check_batch, check_beams])
@pytest.mark.parametrize("backend", [*QUICK, *SLOW], indirect=True)
def test_batches(check: Check, reference: Reference, backend: Backend) -> None:
    check(reference, reference.on(backend))


@pytest.mark.parametrize("autograd", ["core", "native"])
def test_gradients(autograd: Autograd, reference: Reference, backend: Backend) -> None:
    if autograd == "native" and not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    check_gradients(reference, reference.on(backend), autograd)
