"""Heads over the trunk of GPT-2: what makes of hidden states an answer that is no next token.

Four of them, by the names and shapes of transformers' checkpoints:

| task | class there | parameters |
|---|---|---|
| text-classification | GPT2ForSequenceClassification | `score.weight` |
| token-classification | GPT2ForTokenClassification | `classifier.weight`, `.bias` |
| question-answering | GPT2ForQuestionAnswering | `qa_outputs.weight`, `.bias` |
| multiple-choice | GPT2DoubleHeadsModel | `multiple_choice_head.summary.weight`, `.bias` |

The last also has the language model's own head. Matrices are (outputs, inputs).

Shapes: B texts of T tokens, N choices, C channels, L labels, V tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from tfx.core.creation import arange
from tfx.core.errors import UsageError
from tfx.core.nn import Activation, activate, linear
from tfx.core.ops import lowest, sigmoid, split, where
from tfx.core.tensor import Tensor
from tfx.models.gpt2.model import Config, Params, trunk
from tfx.models.gpt2.model import head as next_token
from tfx.models.gpt2.passing import Pass

TaskName = Literal[
    "text-classification", "token-classification", "question-answering", "multiple-choice"
]
Problem = Literal["regression", "single_label_classification", "multi_label_classification"]
SummaryType = Literal["cls_index", "last", "first", "mean"]
SummaryActivation = Activation | Literal["tanh", "sigmoid"]

PLAIN = Pass()
"""Whole texts, without padding, cache or dropout."""


@dataclass(frozen=True)
class Summary:
    """How a text becomes one vector; transformers' `summary_...`, with its defaults.

    Attributes:
        type: the state of a token that is pointed out (`cls_index`; by default the last), of the
            last, of the first, or the mean of all. Padding is none of them.
        use_proj: whether a layer follows.
        proj_to_labels: whether that layer gives a number for each choice, or again a vector.
        activation: after it.
        first_dropout, last_dropout: before it, and behind the activation.
    """

    type: SummaryType = "cls_index"
    use_proj: bool = True
    proj_to_labels: bool = True
    activation: SummaryActivation | None = None
    first_dropout: float = 0.1
    last_dropout: float = 0.0


@dataclass(frozen=True)
class Head:
    """What stands on a trunk.

    Attributes:
        task: which of the four heads it is.
        labels: their names, by number: classes of a text, or of a token.
        problem_type: what a text's labels are; None leaves it to them, see `problem`.
        pad_token_id: never taken for the last token of a text.
        dropout: before the classifier of tokens.
        summary: of multiple choice.
        tagged: which token of a word has its label, the others having none. Only the last has seen
            the whole word; transformers' examples take the first.
    """

    task: TaskName
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    problem_type: Problem | None = None
    pad_token_id: int | None = None
    dropout: float = 0.1
    summary: Summary = field(default_factory=Summary)
    tagged: Literal["first", "last"] = "first"

    def shapes(self, config: Config) -> dict[str, tuple[int, ...]]:
        """Its parameters by their names in a checkpoint.

        >>> Head("question-answering").shapes(Config(n_embd=8))
        {'qa_outputs.weight': (2, 8), 'qa_outputs.bias': (2,)}
        """
        c = config.n_embd
        match self.task:
            case "text-classification":
                return {"score.weight": (len(self.labels), c)}
            case "token-classification":
                name, outputs = "classifier", len(self.labels)
            case "question-answering":
                name, outputs = "qa_outputs", 2
            case "multiple-choice":
                if not self.summary.use_proj:
                    return {}
                name = "multiple_choice_head.summary"
                outputs = 1 if self.summary.proj_to_labels else c
        return {f"{name}.weight": (outputs, c), f"{name}.bias": (outputs,)}

    @property
    def has_next_token(self) -> bool:
        """Whether the language model's head is kept beside it."""
        return self.task == "multiple-choice"

    @property
    def named_problem(self) -> Problem | None:
        """What the labels of texts are, as said, or as their number says: one label is a number to
        predict, as transformers has it."""
        return self.problem_type or ("regression" if len(self.labels) == 1 else None)

    def problem(self, labels: Tensor) -> Problem:
        """The like, told by the dtype of some where nothing else does: whole numbers are classes;
        floats are yes or no for each of the labels."""
        whole = not labels.dtype.is_float
        told: Problem = "single_label_classification" if whole else "multi_label_classification"
        return self.named_problem or told


# ---- the heads -----------------------------------------------------------------------------------


def text_logits(
    p: Params, config: Config, head: Head, ids: Tensor, through: Pass = PLAIN
) -> Tensor:
    """Scores (B, L) of texts (B, T), from the state of their last tokens."""
    hidden = trunk(p, config, ids, through)
    last = last_token(ids, through.visible, head.pad_token_id)
    return linear(states_at(hidden, last), p["score.weight"], outputs_first=True)


def token_logits(
    p: Params, config: Config, head: Head, ids: Tensor, through: Pass = PLAIN
) -> Tensor:
    """Scores (B, T, L) of tokens."""
    hidden = through.drop(trunk(p, config, ids, through), head.dropout)
    return _layer(p, "classifier", hidden)


def span_logits(
    p: Params, config: Config, ids: Tensor, through: Pass = PLAIN
) -> tuple[Tensor, Tensor]:
    """Scores of each token as the first and as the last of the answer, (B, T) both.

    Padding is no answer: its scores are the lowest there are.
    """
    scores = _layer(p, "qa_outputs", trunk(p, config, ids, through))
    first, last = (part.reshape(ids.shape) for part in split(scores, 2))
    seen = through.visible
    if seen is None:
        return first, last
    return where(seen, first, lowest(first.dtype)), where(seen, last, lowest(last.dtype))


def double_logits(
    p: Params,
    config: Config,
    head: Head,
    ids: Tensor,
    through: Pass = PLAIN,
    at: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scores (B, N, T, V) of the token after each, and (B, N) of the choices.

    Args:
        ids: each choice as a whole text, (B, N, T); `through.visible` likewise.
        at: of each choice, the token to judge it by, (B, N); by default the last. Only for the
            summary type `cls_index`.

    The second is (B, N, C) where the summary does not end in one number.
    """
    hidden = _choices(p, config, ids, through)
    return next_token(p, hidden), _chosen(p, head, hidden, through, at)


def choice_logits(
    p: Params,
    config: Config,
    head: Head,
    ids: Tensor,
    through: Pass = PLAIN,
    at: Tensor | None = None,
) -> Tensor:
    """The second of `double_logits` alone."""
    return _chosen(p, head, _choices(p, config, ids, through), through, at)


def _choices(p: Params, config: Config, ids: Tensor, through: Pass) -> Tensor:
    """The hidden states (B, N, T, C) of choices."""
    if ids.ndim != 3:
        raise UsageError(f"choices are ids (texts, choices, tokens), not of shape {ids.shape}")
    rows = (ids.shape[0] * ids.shape[1], ids.shape[2])
    seen = None if through.visible is None else through.visible.reshape(rows)
    hidden = trunk(p, config, ids.reshape(rows), replace(through, visible=seen))
    return hidden.reshape(*ids.shape, config.n_embd)


def _chosen(p: Params, head: Head, hidden: Tensor, through: Pass, at: Tensor | None) -> Tensor:
    b, n, t, c = hidden.shape
    seen = None if through.visible is None else through.visible.reshape(b * n, t)
    at = None if at is None else at.reshape(b * n)
    x = through.drop(
        _summed_up(head.summary, hidden.reshape(b * n, t, c), seen, at),
        head.summary.first_dropout,
    )
    if head.summary.use_proj:
        x = _layer(p, "multiple_choice_head.summary", x)
    x = through.drop(_activated(x, head.summary.activation), head.summary.last_dropout)
    return x.reshape(b, n) if x.shape[-1] == 1 else x.reshape(b, n, x.shape[-1])


def named_scores(
    p: Params, config: Config, head: Head | None, ids: Tensor, through: Pass = PLAIN
) -> dict[str, Tensor]:
    """What a model gives with a head, None for the language model's, by transformers' names."""
    if head is None:
        return {"logits": next_token(p, trunk(p, config, ids, through))}
    match head.task:
        case "text-classification":
            return {"logits": text_logits(p, config, head, ids, through)}
        case "token-classification":
            return {"logits": token_logits(p, config, head, ids, through)}
        case "question-answering":
            first, last = span_logits(p, config, ids, through)
            return {"start_logits": first, "end_logits": last}
        case "multiple-choice":
            following, choices = double_logits(p, config, head, ids, through)
            return {"logits": following, "mc_logits": choices}


# ---- their parts ---------------------------------------------------------------------------------


def last_token(ids: Tensor, visible: Tensor | None, pad_token_id: int | None = None) -> Tensor:
    """Where the last token of each text (B, T) stands that is no padding: (B,).

    As transformers has it, that is the rightmost token that is not `pad_token_id`; here it must be
    visible, too. A text of nothing else is judged by its first token. Nothing need be known of
    padding: without it, the rightmost token is taken.
    """
    width = ids.shape[1]
    places = arange(width, ids.backend)
    rank = (places + width).broadcast_to(ids.shape)
    if pad_token_id is not None:
        rank = where(ids == pad_token_id, width - 1 - places, rank)
    if visible is not None:
        rank = where(visible, rank, -1)
    return rank.argmax(-1)


def states_at(hidden: Tensor, places: Tensor) -> Tensor:
    """Of each text (B, T, C) the state of one token (B,): (B, C)."""
    b, t, c = hidden.shape
    return hidden.reshape(b * t, c).take(arange(b, hidden.backend) * t + places)


def _summed_up(summary: Summary, hidden: Tensor, seen: Tensor | None, at: Tensor | None) -> Tensor:
    """One vector for each text: (B, T, C) -> (B, C)."""
    b, t, _ = hidden.shape
    if at is not None and summary.type != "cls_index":
        raise UsageError(f"summary_type {summary.type} points out its token itself; give none")
    if summary.type == "mean":
        if seen is None:
            return hidden.mean(1)
        share = seen.cast(hidden.dtype)
        total = (hidden * share[:, :, None]).sum(1)
        return total / share.sum(1, keepdims=True).maximum(1.0)
    if at is not None:
        return states_at(hidden, at)
    places = arange(t, hidden.backend)
    rank = (t - 1 - places if summary.type == "first" else places).broadcast_to((b, t))
    return states_at(hidden, (rank if seen is None else where(seen, rank, -1)).argmax(-1))


def _activated(x: Tensor, name: SummaryActivation | None) -> Tensor:
    match name:
        case None:
            return x
        case "tanh":
            return x.tanh()
        case "sigmoid":
            return sigmoid(x)
    return activate(x, name)


def _layer(p: Params, name: str, x: Tensor) -> Tensor:
    return linear(x, p[f"{name}.weight"], p[f"{name}.bias"], outputs_first=True)
