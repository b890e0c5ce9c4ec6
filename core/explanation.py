"""What a model makes of one text, place by place, as plain data: nothing of a backend is in it.

A *stage* is a point on the way of a text through a model: the sum of embeddings, then what each
layer makes of it. What the model would say if it ended there, the norm and the head it ends with
set right behind, is the logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens"). At
the last stage it is what the model does say. Losses and entropies are in nats.

Shapes: T tokens, C channels, V tokens to choose from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.checks import check_finite
from tfx.core.generation.logits import largest, log_softmax

TextOf = Callable[[int], str | None]
"""The text of a token by itself; None where there is no tokenizer."""


@dataclass(frozen=True)
class Alternative:
    """A token that may come next, and how likely it is."""

    token_id: int
    text: str | None
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What is said to follow a token.

    Attributes:
        top: the likeliest, best first.
        entropy: of all that may come, -sum p log p, in nats.
        loss: -log p of what does come, in nats; None behind the last token.
        rank: how many are likelier than what does come, and one; None behind the last token.
    """

    top: tuple[Alternative, ...]
    entropy: float
    loss: float | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Statistics:
    """Of the hidden states of all tokens (T, C) at one stage.

    Attributes:
        mean, std, max_abs: of all T * C numbers; std is that of a population.
        norm: sqrt(sum x**2) of a token's C numbers, the mean over tokens.
        norms: the same of each token (T,).
    """

    mean: float
    std: float
    max_abs: float
    norm: float
    norms: tuple[float, ...]


@dataclass(frozen=True)
class Stage:
    """A point on the way through the model, by the name of what comes before it."""

    name: str
    statistics: Statistics
    predictions: tuple[Prediction, ...]

    @property
    def loss(self) -> float | None:
        """The mean over all tokens but the first, in nats; None for a single token."""
        losses = [p.loss for p in self.predictions if p.loss is not None]
        return math.fsum(losses) / len(losses) if losses else None


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """How one head weighs what each token may attend to.

    Attributes:
        weights: (T, T); row t is how token t weighs all others, and sums to 1.
    """

    layer: int
    head: int
    weights: HostArray

    def summary(self) -> dict[str, float | None]:
        """Entropy in nats, and the weight on the first token, on the one before and on itself.

        Means over all tokens but the first, which can attend to itself alone; None without others.
        """
        rows = self.weights[1:].astype(np.float64)
        if not len(rows):
            return dict.fromkeys(("entropy", "on_first", "on_previous", "on_itself"))
        seen = np.where(rows > 0, rows, 1.0)
        places = np.arange(len(rows))
        each = {
            "entropy": -(seen * np.log(seen)).sum(1),
            "on_first": rows[:, 0],
            "on_previous": rows[places, places],
            "on_itself": rows[places, places + 1],
        }
        return {name: float(x.mean()) for name, x in each.items()}


@dataclass(frozen=True)
class Part:
    """A part of a model, for what it weighs and what it costs to read T tokens once.

    Attributes:
        name: without that of its layer.
        layer: None for what is there once.
        parameters: how many it has.
        flops: floating-point operations of its products, a multiplication and an addition two.
        formula: of the flops, in the letters of `Explanation.sizes`; empty where there are none.
    """

    name: str
    layer: int | None
    parameters: int
    flops: int
    formula: str = ""


@dataclass(frozen=True, eq=False)
class Explanation:
    """All that is told of one text.

    Attributes:
        token_ids, texts: the text (T,), and each token by itself; None without a tokenizer.
        vocab_size: how many tokens there are to choose from: no entropy is above its logarithm.
        stages: the first before all layers, the last behind them.
        attentions: of the heads that were asked for.
        parts: of which the model is made.
        parameters: how many it has, counted apart from its parts.
        sizes: what the letters in formulas stand for.
        dtype: what the model computed in.
    """

    token_ids: tuple[int, ...]
    texts: tuple[str | None, ...]
    vocab_size: int
    stages: tuple[Stage, ...]
    attentions: tuple[AttentionMap, ...]
    parts: tuple[Part, ...]
    parameters: int
    sizes: Mapping[str, int]
    dtype: str

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """What the model says follows each token."""
        return self.stages[-1].predictions

    @property
    def loss(self) -> float | None:
        """That of what the model says: `Stage.loss` of the last stage."""
        return self.stages[-1].loss

    @property
    def perplexity(self) -> float | None:
        """exp(loss); None without a loss, or beyond floats."""
        return math.exp(self.loss) if self.loss is not None and self.loss < 700 else None

    @property
    def flops(self) -> int:
        return sum(part.flops for part in self.parts)

    def described(self, *, with_weights: bool = True) -> dict[str, Any]:
        """All of it in JSON types; maps of attention perhaps by their summaries alone."""
        stages = [asdict(stage) for stage in self.stages]
        maps = [
            {"layer": found.layer, "head": found.head}
            | found.summary()
            | ({"weights": found.weights.tolist()} if with_weights else {})
            for found in self.attentions
        ]
        tokens = zip(self.token_ids, self.texts, strict=True)
        return {
            "tokens": [{"token_id": token, "text": text} for token, text in tokens],
            "dtype": self.dtype,
            "vocab_size": self.vocab_size,
            "unit": "nats",
            "loss": self.loss,
            "perplexity": self.perplexity,
            "predictions": stages[-1]["predictions"],
            "lens": [
                {"stage": stage.name, "loss": stage.loss, "predictions": plain["predictions"]}
                for stage, plain in zip(self.stages, stages, strict=True)
            ],
            "activations": [{"stage": s["name"]} | s["statistics"] for s in stages],
            "attentions": maps,
            "parameters": self.parameters,
            "flops": self.flops,
            "sizes": dict(self.sizes),
            "parts": [asdict(part) for part in self.parts],
        }


# ---- from arrays ---------------------------------------------------------------------------------


def predictions_in(
    logits: HostArray, ids: Sequence[int], count: int, text_of: TextOf
) -> tuple[Prediction, ...]:
    """What scores (T, V) behind each token of a text say, and the `count` likeliest.

    >>> scores = np.log([[1.0, 3.0], [1.0, 1.0]])
    >>> [first, last] = predictions_in(scores, [1, 0], 1, "ab".__getitem__)
    >>> first.top, first.rank, round(first.loss, 4)
    ((Alternative(token_id=1, text='b', probability=0.75),), 2, 1.3863)
    >>> last.loss, round(last.entropy, 4)
    (None, 0.6931)

    Raises:
        NonFiniteError: scores are not finite.
    """
    return tuple(_predictions(logits, ids, count, text_of))


def _predictions(
    logits: HostArray, ids: Sequence[int], count: int, text_of: TextOf
) -> Iterator[Prediction]:
    for scores, follows in zip(
        logits, [*ids[1:], None], strict=True
    ):  # a row at a time: V is large
        row = log_softmax(scores.astype(np.float64))
        check_finite("the scores are", row)
        shares = np.exp(row)
        best = largest(row, count) if count else ()
        top = tuple(Alternative(int(i), text_of(int(i)), float(shares[i])) for i in best)
        entropy = max(0.0, float(-(shares * row).sum()))  # which rounding may have put below 0
        if follows is None:
            yield Prediction(top, entropy)
        else:
            yield Prediction(
                top, entropy, -float(row[follows]), 1 + int((row > row[follows]).sum())
            )


def statistics_of(hidden: HostArray) -> Statistics:
    """Of hidden states (T, C).

    >>> statistics_of(np.array([[3.0, -4.0], [0.0, 1.0]]))
    Statistics(mean=0.0, std=2.5495097567963922, max_abs=4.0, norm=3.0, norms=(5.0, 1.0))
    """
    x = hidden.astype(np.float64)
    norms = np.sqrt((x * x).sum(1))
    return Statistics(
        mean=float(x.mean()),
        std=float(x.std()),
        max_abs=float(np.abs(x).max()),
        norm=float(norms.mean()),
        norms=tuple(map(float, norms)),
    )
