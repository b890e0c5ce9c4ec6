"""What the heads of GPT-2 are trained by: the losses of transformers' and torch's, as 0-d tensors.

Classes may have weights, for when some of them are rare.
"""

from __future__ import annotations

from tfx.core.nn import cross_entropy
from tfx.core.ops import absolute, where
from tfx.core.tensor import Tensor
from tfx.models.gpt2.heads import Problem

NO_LABEL = -100
"""In the place of a label that is not there, as transformers has it."""


def class_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean cross-entropy of logits (..., L) with classes (...), of those that are classes: any
    number that is none, such as `NO_LABEL`, is left out. 0 where there is nothing else.

    With weights (L,), a mean in which each label counts as much as its class.
    """
    known = (labels >= 0) & (labels < logits.shape[-1])
    classes = where(known, labels, 0)
    share = known.cast(logits.dtype)
    if weights is not None:
        share = share * weights.take(classes)
    total = share.sum()
    return (cross_entropy(logits, classes) * share).sum() / where(total > 0, total, 1.0)


def text_loss(
    logits: Tensor, labels: Tensor, problem: Problem, weights: Tensor | None = None
) -> Tensor:
    """The loss of scores (B, L) by what a text's labels are.

    Args:
        labels: numbers (B, L), or (B,) of one label; classes (B,); or 1 and 0 as floats (B, L).
        weights: (L,) of classes; for many labels at once, of each one's presence.
    """
    match problem:
        case "regression":
            off = logits - labels.reshape(logits.shape)
            return (off * off).mean()
        case "single_label_classification":
            return class_loss(logits, labels.reshape(len(logits)), weights)
        case "multi_label_classification":
            return _binary(logits, labels, weights).mean()


def _binary(x: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """The cross-entropy of sigmoid(x) with labels of 0 and 1, without overflow."""
    tail = (1.0 + (-absolute(x)).exp()).log()
    of_absence, of_presence = x.maximum(0.0) + tail, (-x).maximum(0.0) + tail
    if weights is not None:
        of_presence = of_presence * weights
    return labels * of_presence + (1.0 - labels) * of_absence


def span_loss(first: Tensor, last: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The mean of two cross-entropies: scores (B, T) of the first and last tokens of answers, with
    where those are (B,). A place that is no token's is left out."""
    return (class_loss(first, starts) + class_loss(last, ends)) * 0.5


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of scores (..., T, V) with the tokens (..., T) that follow: those at
    one place of `labels` belong to the scores at the place before."""
    width = labels.shape[-1]
    behind = labels.reshape(-1, width)[:, 1:]
    scores = logits.reshape(-1, width, logits.shape[-1])[:, :-1]
    return class_loss(scores, behind)
