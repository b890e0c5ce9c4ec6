"""Steering a GPT-2 by theta, with one cache, is as computing every token anew."""

from __future__ import annotations

import numpy as np
import pytest
from causal_models import TinyGPT, plain_logits, random_weights

from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.recipe import ResonateSettings
from tfx.core.resonance import Bounds, Resonance
from tfx.models.gpt2.recipe import GPT2
from tfx.models.gpt2.resonating import SteeredGPT2

pytestmark = pytest.mark.usefixtures("calm")

WEIGHTS = random_weights(seed=4, vocabulary=41, positions=64, width=16, layers=2)
PROMPT = [3, 1, 4, 1, 5]


def test_what_is_offered_is_what_a_full_recompute_offers(backend: Backend) -> None:
    """With undone decisions among them, which leave no trace in the cache."""
    model = TinyGPT.of(WEIGHTS, 4, backend, DType.float64)
    session = Resonance(SteeredGPT2(model, 30), str, PROMPT, 0.4, Bounds(step=0.15), room=25)
    text, thetas = list(PROMPT), [0.4] * len(PROMPT)
    for key in "snsnnsuusssnnsunsss":
        if key == "s":
            text.append(session.satisfied().token_id)
            thetas.append(session.theta)
        elif key == "n":
            session.not_satisfied()
        elif session.undo().key == "s":
            del text[-1], thetas[-1]
        expected = plain_logits(WEIGHTS, 4, text, np.array(thetas))
        expected = np.exp(expected - expected.max())
        expected /= expected.sum()
        for choice in (session.proposed, *session.alternatives(5)):
            assert choice.probability == pytest.approx(expected[choice.token_id], rel=1e-8)
    assert session.token_ids == text[len(PROMPT) :]
    assert len(set(thetas)) == 4


class Silent:
    def result(self, line: str) -> None: ...
    def piece(self, text: str) -> None: ...
    def note(self, line: str) -> None: ...
    def progress(self, step: int, total: int, loss: float, seconds: float) -> None: ...
    def progress_done(self, *, is_result: bool = True) -> None: ...


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_the_bundled_model(backend: Backend) -> None:
    recipe = GPT2("gpt2-tiny")
    settings = ResonateSettings("To be", 0.75, Bounds(), max_new_tokens=3)
    session = recipe.resonance(settings, backend, Silent())
    for _ in range(3):
        session.satisfied()
    assert session.finish_reason == "length"
    assert len(session.token_ids) == 3
    with pytest.raises(UsageError, match="--max-new-tokens"):
        recipe.resonance(
            ResonateSettings("To be", 0.75, Bounds(), max_new_tokens=300), backend, Silent()
        )
