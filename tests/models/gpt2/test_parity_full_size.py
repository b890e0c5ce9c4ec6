"""The 124 million parameters of GPT-2 itself, drawn at random: the same as transformers.

Drawn ten times as large as a GPT-2 begins with, queries and keys give scores of several hundred,
and a softmax of such scores passes rounding on a hundred times larger than it came in:
transformers' own float32 is then 1e-4 away from its float64. So logits and gradients are held to
the tolerances of small models with queries and keys halved, which is where float32 can keep them.
At full size logits are compared with the true ones, those of float64, and need to be no worse than
twice as far from them as transformers' are. Generated tokens are compared at full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from gpt2_parity import (
    Check,
    Reference,
    check_batch,
    check_beams,
    check_gradients,
    check_greedy,
    check_logits,
)
from optional import torch

from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("calm"),
    pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True),
]


@pytest.fixture(scope="module")
def reference() -> Reference:
    sizes = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
    found = Reference(initializer_range=0.2, new=100, **sizes)
    found.texts = found.texts[:2]
    return found


@contextmanager
def calmer_attention(reference: Reference) -> Iterator[None]:
    """Inside, queries and keys are half as large."""
    both = 2 * reference.config.n_embd
    matrices = [block.attn.c_attn.weight[:, :both] for block in reference.model.transformer.h]
    with torch.no_grad():
        for x in matrices:
            x *= 0.5
    try:
        yield
    finally:
        with torch.no_grad():
            for x in matrices:
                x *= 2


def test_logits(reference: Reference, backend: Backend) -> None:
    with calmer_attention(reference):
        check_logits(reference, reference.on(backend))


@pytest.fixture(scope="module")
def truth(reference: Reference) -> HostArray:
    """The logits of one text in float64."""
    with torch.no_grad():
        found = reference.model.double()(torch.tensor(reference.ids[:1])).logits.numpy()
    reference.model.float()
    return np.asarray(found)


def test_logits_of_scores_too_large_for_float32(
    reference: Reference, truth: HostArray, backend: Backend
) -> None:
    ids = tensor(reference.ids[:1], backend, backend.index_dtype)
    mine = reference.on(backend).all_logits(ids).numpy()
    theirs = reference.logits(reference.ids[0])
    assert np.abs(mine - truth).max() <= 2 * np.abs(theirs - truth).max()


def test_100_tokens_through_the_cache(reference: Reference, backend: Backend) -> None:
    check_greedy(reference, reference.on(backend))


@pytest.mark.parametrize("check", [check_batch, check_beams])
def test_batches(check: Check, reference: Reference, backend: Backend) -> None:
    check(reference, reference.on(backend))


def test_gradients(reference: Reference, backend: Backend) -> None:
    with calmer_attention(reference):
        check_gradients(reference, reference.on(backend))
