"""How good answers are: accuracy and F1 of classes, exact match and F1 of spans of text."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Metrics = dict[str, float]


def of_classes(gold: npt.ArrayLike, found: npt.ArrayLike) -> Metrics:
    """Accuracy and F1 of one class for each of n examples.

    `f1_macro` is the mean over the classes that occur, in truth or as an answer; `f1_micro`, of
    which each example has one class, is the accuracy.

    >>> of_classes([0, 0, 1, 1], [0, 1, 1, 1])
    {'accuracy': 0.75, 'f1_macro': 0.7333333333333334, 'f1_micro': 0.75}
    """
    gold, found = np.asarray(gold), np.asarray(found)
    occurring = np.union1d(gold, found)
    return {
        "accuracy": float((gold == found).mean()) if len(gold) else 0.0,
        **_f1(gold[:, None] == occurring, found[:, None] == occurring),
    }


def of_many(gold: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_]) -> Metrics:
    """Accuracy and F1 of any number of labels for each example, both (n, labels). An example is
    accurate if all of its labels are."""
    return {"accuracy": float((gold == found).all(-1).mean()), **_f1(gold, found)}


def _f1(gold: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_]) -> Metrics:
    """2 TP / (2 TP + FP + FN): the mean of the labels, and that of all counts together. What is
    neither there nor found is 0."""
    both = (gold & found).sum(0)
    either = gold.sum(0) + found.sum(0)
    macro = np.divide(2 * both, either, out=np.zeros(len(both)), where=either > 0)
    return {
        "f1_macro": float(macro.mean()) if len(macro) else 0.0,
        "f1_micro": float(2 * both.sum() / either.sum()) if either.sum() else 0.0,
    }


def of_numbers(gold: npt.ArrayLike, found: npt.ArrayLike) -> Metrics:
    """Mean squared and mean absolute error."""
    off = np.asarray(found, np.float64) - np.asarray(gold, np.float64)
    return {"mse": float((off**2).mean()), "mae": float(np.abs(off).mean())}


# ---- spans of text -------------------------------------------------------------------------------


def of_spans(gold: Sequence[Sequence[str]], found: Sequence[str]) -> Metrics:
    """Exact match and F1 of words, as SQuAD has them (Rajpurkar et al. 2016, arXiv:1606.05250):
    the best over the right answers of each question, their mean over all. No right answer means
    that there is none, and that nothing should be found."""
    pairs = [(answers or [""], text) for answers, text in zip(gold, found, strict=True)]
    exact = [max(plain(a) == plain(text) for a in answers) for answers, text in pairs]
    shared = [max(f1_of_words(a, text) for a in answers) for answers, text in pairs]
    return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(shared))}


def plain(text: str) -> str:
    """A text without case, punctuation, articles, and spaces beyond one.

    >>> plain("The  Alps!")
    'alps'
    """
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1_of_words(gold: str, found: str) -> float:
    """The harmonic mean of precision and recall of the words of an answer.

    >>> round(f1_of_words("in the Alps", "the high Alps"), 3)
    0.5
    """
    right, mine = plain(gold).split(), plain(found).split()
    if not right or not mine:
        return float(right == mine)
    both = (Counter(right) & Counter(mine)).total()
    return 2 * both / (len(right) + len(mine))
