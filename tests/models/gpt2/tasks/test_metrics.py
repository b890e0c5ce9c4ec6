"""Figures are those of scikit-learn, and of SQuAD's own definition."""

from __future__ import annotations

import numpy as np
import pytest

from tfx.models.gpt2.tasks.metrics import f1_of_words, of_classes, of_many, of_numbers, of_spans
from tfx.models.gpt2.tasks.task import balanced

rng = np.random.default_rng(1)
GOLD, FOUND = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
MANY, MANY_FOUND = rng.random((40, 4)) < 0.4, rng.random((40, 4)) < 0.5
MANY[:, 3] = MANY_FOUND[:, 3] = False


def test_classes_by_hand() -> None:
    """Class 0: TP 1, FN 1. Class 1: TP 1, FP 1, FN 1. Class 2: TP 0, FP 1."""
    found = of_classes([0, 0, 1, 1], [0, 1, 1, 2])
    assert found["accuracy"] == found["f1_micro"] == 0.5
    assert found["f1_macro"] == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


def test_as_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for gold, found, ours in (
        (GOLD, FOUND, of_classes(GOLD, FOUND)),
        (MANY, MANY_FOUND, of_many(MANY, MANY_FOUND)),
    ):
        expected = {
            "accuracy": metrics.accuracy_score(gold, found),
            "f1_macro": metrics.f1_score(gold, found, average="macro", zero_division=0),
            "f1_micro": metrics.f1_score(gold, found, average="micro", zero_division=0),
        }
        assert ours == pytest.approx(expected)


def test_many_labels_by_hand() -> None:
    gold, found = np.array([[1, 0], [1, 1]], bool), np.array([[1, 0], [0, 1]], bool)
    assert of_many(gold, found) == pytest.approx(
        {"accuracy": 0.5, "f1_macro": (2 / 3 + 1) / 2, "f1_micro": 4 / 5}
    )


def test_numbers() -> None:
    assert of_numbers([1, 2], [1, 5]) == {"mse": 4.5, "mae": 1.5}


def test_spans() -> None:
    """The examples of SQuAD's evaluation: case, articles and punctuation do not count."""
    gold = [["the Alps", "Alps"], ["in 1852"], [], []]
    found = ["The  Alps.", "1852", "", "snow"]
    assert of_spans(gold, found) == pytest.approx(
        {"exact_match": 0.5, "f1": (1 + 2 / 3 + 1 + 0) / 4}
    )
    assert f1_of_words("a b c", "c d") == pytest.approx(0.5)
    assert f1_of_words("x", "") == 0 and f1_of_words("the", "an") == 1


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    found = balanced(np.array([2, 6, 0]))
    np.testing.assert_allclose(found, [2, 2 / 3, 0])
    utils = pytest.importorskip("sklearn.utils.class_weight")
    expected = utils.compute_class_weight("balanced", classes=np.arange(4), y=GOLD)
    np.testing.assert_allclose(balanced(np.bincount(GOLD)), expected)
