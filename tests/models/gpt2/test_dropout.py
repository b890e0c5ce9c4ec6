"""GPT-2 while it is trained: each dropout in its place and with its rate, as in transformers.

transformers is given the masks that tfx draws; then loss and gradients must be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from gpt2_parity import Reference, Slopes, assert_slopes, differentiated
from optional import torch

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.autograd import Autograd
from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dropout import Dropout
from tfx.core.dtypes import DType
from tfx.core.tensor import Tensor
from tfx.core.threefry import key_from_seed
from tfx.models.gpt2 import model

pytestmark = pytest.mark.usefixtures("calm")

RATES = {"embd_pdrop": 0.1, "attn_pdrop": 0.3, "resid_pdrop": 0.2}


@cache
def reference(**rates: float) -> Reference:
    return Reference(
        vocab_size=60, n_layer=2, n_embd=24, n_head=3, length=16, attn_implementation="eager",
        **(RATES | rates),
    )  # fmt: skip


def at(step: int, backend: Backend) -> Dropout:
    return Dropout(key_from_seed(1), tensor(step, backend))


def trained(reference: Reference, step: int, backend: Backend, autograd: Autograd) -> Slopes:
    def through() -> model.Pass:
        return model.Pass(dropout=at(step, backend))

    return differentiated(reference.on(backend), reference.ids, through, autograd)


def theirs(reference: Reference, step: int) -> Slopes:
    """Loss and gradients of transformers in training, with the masks of this step."""
    dropout, rates = at(step, NumpyBackend()), []

    def masked(x: Any, p: float, training: bool, inplace: bool = False) -> Any:
        assert training
        rates.append(p)
        factor = dropout.factor(tuple(x.shape), p, DType.float32)
        return x if factor is None else x * torch.from_numpy(factor.numpy())

    reference.model.train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "dropout", masked)
        found = reference.differentiated()
    reference.model.eval()
    config = reference.config
    block = [config.attn_pdrop, config.resid_pdrop, config.resid_pdrop]
    assert rates == [config.embd_pdrop, *block * config.n_layer]
    return found


@pytest.mark.parametrize("off", [{}, {"attn_pdrop": 0.0}, {"embd_pdrop": 0.0, "resid_pdrop": 0.0}])
@pytest.mark.parametrize("autograd", ["core", "native"])
def test_loss_and_gradients(autograd: Autograd, off: dict[str, float], backend: Backend) -> None:
    if autograd == "native" and not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    assert_slopes(trained(reference(**off), 5, backend, autograd), theirs(reference(**off), 5))


def test_another_step_drops_others(backend: Backend) -> None:
    losses = [trained(reference(), step, backend, "core")[0] for step in (0, 1, 2, 1)]
    assert losses[3] == pytest.approx(losses[1], rel=1e-6)
    assert len({round(x, 3) for x in losses}) == 3


def without_embedding_dropout(patch: pytest.MonkeyPatch) -> None:
    embedded = iter([True])

    def wrong(through: model.Pass, x: Tensor, rate: float) -> Tensor:
        return x if next(embedded, False) else right_drop(through, x, rate)

    patch.setattr(model.Pass, "drop", wrong)


def without_attention_dropout(patch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any, **more: Any) -> Tensor:
        return right_attention(*args[:-1], **more)

    patch.setattr(model, "attention", wrong)


def without_growth(patch: pytest.MonkeyPatch) -> None:
    def wrong(dropout: Dropout, x: Tensor, rate: float) -> Tensor:
        return right_call(dropout, x, rate) * (1 - rate)

    patch.setattr(Dropout, "__call__", wrong)


right_drop, right_attention, right_call = model.Pass.drop, model.attention, Dropout.__call__


@pytest.mark.parametrize(
    "fault", [without_embedding_dropout, without_attention_dropout, without_growth]
)
def test_a_fault_is_noticed(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = theirs(reference(), 5)
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        assert_slopes(trained(reference(), 5, NumpyBackend(), "core"), expected)


def test_what_is_not_trained_drops_nothing(backend: Backend) -> None:
    expected = reference().all_logits
    ids = tensor(reference().ids, backend, backend.index_dtype)
    found = reference().on(backend).all_logits(ids).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
