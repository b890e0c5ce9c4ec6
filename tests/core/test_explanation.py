"""What is told of scores, hidden states and attention: as torch has it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfx.core.errors import NonFiniteError
from tfx.core.explanation import AttentionMap, Explanation, Stage, predictions_in, statistics_of

RNG = np.random.default_rng(0)
IDS = [3, 0, 4, 4, 1]
SCORES = RNG.normal(0, 4, (len(IDS), 7))


def nameless(token: int) -> None:
    return None


def test_losses_entropies_and_alternatives() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    scores = torch.tensor(SCORES)
    losses = torch.nn.functional.cross_entropy(scores[:-1], torch.tensor(IDS[1:]), reduction="none")
    chances = torch.distributions.Categorical(logits=scores)
    best = chances.probs.topk(3)
    said = predictions_in(SCORES, IDS, 3, nameless)
    np.testing.assert_allclose([p.loss for p in said[:-1]], losses, rtol=1e-12)
    np.testing.assert_allclose([p.entropy for p in said], chances.entropy(), rtol=1e-12)
    assert [[x.token_id for x in p.top] for p in said] == best.indices.tolist()
    found = [[x.probability for x in p.top] for p in said]
    np.testing.assert_allclose(found, best.values, rtol=1e-12)
    order = scores.argsort(descending=True).tolist()
    pairs = zip(order[:-1], IDS[1:], strict=True)
    assert [p.rank for p in said[:-1]] == [1 + row.index(follows) for row, follows in pairs]
    assert (said[-1].loss, said[-1].rank) == (None, None)


def test_as_good_as_guessing() -> None:
    [said, _] = predictions_in(np.zeros((2, 8)), [0, 5], 0, nameless)
    assert said.entropy == pytest.approx(math.log(8)) == said.loss
    assert said.top == () and said.rank == 1  # nothing is likelier


def test_certainty_has_no_entropy() -> None:
    [said] = predictions_in(np.array([[1000.0, 0.0, 0.0]]), [0], 1, nameless)
    assert said.entropy == 0 and said.top[0].probability == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite(bad: float) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(NonFiniteError, match="are not finite"):
        predictions_in(np.array([[0.0, bad]]), [0], 1, nameless)


def test_statistics() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    hidden = RNG.normal(1, 3, (5, 6)).astype(np.float32)
    x, found = torch.tensor(hidden).double(), statistics_of(hidden)
    each = torch.linalg.vector_norm(x, dim=1)
    expected = [x.mean(), x.std(correction=0), x.abs().max(), each.mean()]
    np.testing.assert_allclose(
        [found.mean, found.std, found.max_abs, found.norm], expected, rtol=1e-12
    )
    np.testing.assert_allclose(found.norms, each, rtol=1e-12)


def test_what_a_head_attends_to() -> None:
    weights = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    found = AttentionMap(0, 0, weights.astype(np.float32)).summary()
    assert found == {
        "entropy": pytest.approx((math.log(2) + 0 + math.log(4)) / 3),
        "on_first": pytest.approx((0.5 + 0 + 0.25) / 3),
        "on_previous": pytest.approx((0.5 + 1 + 0.25) / 3),
        "on_itself": pytest.approx((0.5 + 0 + 0.25) / 3),
    }


def test_a_single_token_attends_to_itself() -> None:
    summary = AttentionMap(0, 0, np.ones((1, 1), np.float32)).summary()
    assert set(summary.values()) == {None}


def test_loss_and_perplexity() -> None:
    said = predictions_in(SCORES, IDS, 1, nameless)
    stage = Stage("all", statistics_of(SCORES), said)
    ids, texts = tuple(IDS), (None,) * len(IDS)
    found = Explanation(ids, texts, 7, (stage,), (), (), 0, {}, "float64")
    losses = [p.loss for p in said if p.loss is not None]
    assert found.loss == pytest.approx(np.mean(losses)) and len(losses) == 4
    assert found.perplexity == pytest.approx(math.exp(np.mean(losses)))
    assert found.described()["lens"][0]["predictions"] == found.described()["predictions"]
