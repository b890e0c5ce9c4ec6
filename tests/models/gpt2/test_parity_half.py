"""GPT-2 in half precision, where a backend computes in it: about as near the truth as transformers.

The truth is what transformers computes in float32 from the same rounded weights.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from gpt2_parity import Reference
from optional import torch

from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.models.gpt2.language_model import LanguageModel

pytestmark = pytest.mark.usefixtures("calm")

OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "upcast": {"reorder_and_upcast_attn": True},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"},
}


class Half:
    """A model of transformers rounded to half precision.

    Attributes:
        reference: the rounded model, in float32.
        truth: what it makes of its first text.
        theirs: what it makes of it in half precision.
    """

    def __init__(self, dtype: DType, growth: float = 1.0, **options: Any) -> None:
        sizes = {"vocab_size": 300, "n_layer": 2, "n_embd": 24, "n_head": 2}
        self.reference = Reference(attn_implementation="eager", **sizes, **options)
        model, ids = self.reference.model, self.reference.ids[0]
        with torch.no_grad():
            for block in model.transformer.h:
                block.attn.c_attn.weight[:, : 2 * model.config.n_embd] *= growth
        self.theirs = self._logits(model.to(getattr(torch, dtype)), ids)
        self.truth = self._logits(model.float(), ids)

    def _logits(self, model: Any, ids: HostArray) -> HostArray:
        with torch.no_grad():
            return np.asarray(model(torch.tensor(ids[None])).logits[0].double().numpy())

    def assert_near(self, found: HostArray) -> None:
        """At most twice as far off as transformers: a composed form rounds more often."""
        mine, theirs = (_spread(x - self.truth) for x in (found, self.theirs))
        assert mine <= 2 * theirs, f"{mine / theirs:.2f} times as far from the truth"


def _spread(x: HostArray) -> float:
    return float(np.sqrt((x.astype(np.float64) ** 2).mean()))


made = cache(Half)


@pytest.fixture(params=[DType.float16, DType.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest, backend: Backend) -> DType:
    wanted: DType = request.param
    if wanted not in backend.dtypes:
        pytest.skip(f"{backend} does not compute in {wanted}")
    return wanted


def logits(model: LanguageModel, ids: HostArray) -> HostArray:
    found = model.all_logits(tensor(ids[None], model.backend, model.backend.index_dtype))
    assert found.dtype is model.dtype
    return found.cast(DType.float32).numpy()[0]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_logits(options: dict[str, Any], dtype: DType, backend: Backend) -> None:
    half = made(dtype, **options)
    model = half.reference.on(backend, dtype)
    half.assert_near(logits(model, half.reference.ids[0]))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_logits_through_the_cache(options: dict[str, Any], dtype: DType, backend: Backend) -> None:
    half = made(dtype, **options)
    model, ids = half.reference.on(backend, dtype), half.reference.ids[:1]
    cache, found = model.start(1, ids.shape[1]), []
    for start in range(ids.shape[1]):
        one = tensor(ids[:, start : start + 1], backend, backend.index_dtype)
        found.append(model.logits(one, cache).cast(DType.float32).numpy())
    half.assert_near(np.concatenate(found))


def test_upcast_scores_do_not_overflow(backend: Backend) -> None:
    """Scores in the hundred thousands, which float16 cannot hold."""
    if DType.float16 not in backend.dtypes:
        pytest.skip(f"{backend} does not compute in float16")
    large = {"growth": 80.0, "scale_attn_weights": False}
    assert not np.isfinite(made(DType.float16, **large).theirs).all()
    half = made(DType.float16, reorder_and_upcast_attn=True, **large)
    found = logits(half.reference.on(backend, DType.float16), half.reference.ids[0])
    assert np.isfinite(found).all()
    half.assert_near(found)
