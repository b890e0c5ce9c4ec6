"""What `config.json` of a Hugging Face checkpoint says of a head: read with care, and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from tfx.core.errors import CheckpointError
from tfx.core.nn import Activation
from tfx.core.wording import quoted
from tfx.models.gpt2.heads import Head, Problem, Summary, SummaryType, TaskName
from tfx.models.gpt2.model import Config

ARCHITECTURES: dict[TaskName, str] = {
    "text-classification": "GPT2ForSequenceClassification",
    "token-classification": "GPT2ForTokenClassification",
    "question-answering": "GPT2ForQuestionAnswering",
    "multiple-choice": "GPT2DoubleHeadsModel",
}
"""What transformers calls the model with each head."""

_TENSORS = {name: task for task in ARCHITECTURES for name in Head(task).shapes(Config())}

_TAGGED = "tfx_tagged_token"
"""A key of our own; transformers passes over it."""

OWN_KEYS = frozenset({_TAGGED, "classifier_dropout", "hidden_dropout", "summary_last_dropout"})
"""Those that mean something to a head alone, and that a language model has no use for."""


def task_of(data: Mapping[str, Any], names: Iterable[str]) -> TaskName | None:
    """Which head a checkpoint has, by its configuration, else by the names of its tensors; None
    for a language model or a trunk.

    >>> task_of({"architectures": ["GPT2ForTokenClassification"]}, [])
    'token-classification'
    >>> task_of({}, ["wte.weight", "score.weight"]), task_of({}, ["wte.weight"])
    ('text-classification', None)
    """
    said = data.get("architectures")
    for task, name in ARCHITECTURES.items():
        if isinstance(said, list) and name in said:
            return task
    return next((_TENSORS[name] for name in names if name in _TENSORS), None)


def is_of_head(name: str) -> bool:
    """Whether a tensor belongs to a head, and not to trunk or language model."""
    return name in _TENSORS


def head_json(head: Head) -> dict[str, Any]:
    """What `config.json` says of a head beside what it says of the trunk; `head_from` reads it.

    >>> head = Head("text-classification", ("bad", "good"))
    >>> head_from(head_json(head), "here", "text-classification", print) == head
    True
    """
    about: dict[str, Any] = {"architectures": [ARCHITECTURES[head.task]]}
    if head.pad_token_id is not None:
        about["pad_token_id"] = head.pad_token_id
    if head.task in ("text-classification", "token-classification"):
        about["id2label"] = {str(number): label for number, label in enumerate(head.labels)}
        about["label2id"] = {label: number for number, label in enumerate(head.labels)}
    if head.task == "text-classification" and head.problem_type:
        about["problem_type"] = head.problem_type
    if head.task == "token-classification":
        about |= {"classifier_dropout": head.dropout, _TAGGED: head.tagged}
    if head.task == "multiple-choice":
        about |= {f"summary_{key}": value for key, value in vars(head.summary).items()}
    return about


def head_from(
    data: Mapping[str, Any], origin: str, task: TaskName, note: Callable[[str], None]
) -> Head:
    """The head that a parsed `config.json` tells of; what it lacks has transformers' default.

    Args:
        origin: what a message calls the file.
        note: is told of what does not agree, and who is believed.

    Raises:
        CheckpointError: a value is none that the key can have, or keys contradict each other.
    """
    read = _Reader(data, origin)
    classifies = task in ("text-classification", "token-classification")
    labels = _labels(read, note) if classifies else Head(task).labels
    problem = read.one_of("problem_type", (None, *get_args(Problem)), None)
    if problem == "single_label_classification" and len(labels) == 1 and classifies:
        raise CheckpointError(
            f"{origin}: problem_type is single_label_classification, and there is one label; "
            "expected two or more, or regression"
        )
    dropout = read.rate("classifier_dropout", read.rate("hidden_dropout", 0.1))
    return Head(
        task,
        labels=labels,
        problem_type=problem if task == "text-classification" else None,
        pad_token_id=read.token("pad_token_id"),
        dropout=dropout if task == "token-classification" else Head(task).dropout,
        summary=_summary(read) if task == "multiple-choice" else Summary(),
        tagged=read.one_of(_TAGGED, ("first", "last"), "first"),
    )


def _summary(read: _Reader) -> Summary:
    plain = Summary()
    activations = (None, "tanh", "sigmoid", *get_args(Activation))
    return Summary(
        type=read.one_of("summary_type", get_args(SummaryType), plain.type),
        use_proj=read.one_of("summary_use_proj", (True, False), True),
        proj_to_labels=read.one_of("summary_proj_to_labels", (True, False), True),
        activation=read.one_of("summary_activation", activations, None),
        first_dropout=read.rate("summary_first_dropout", plain.first_dropout),
        last_dropout=read.rate("summary_last_dropout", plain.last_dropout),
    )


def _labels(read: _Reader, note: Callable[[str], None]) -> tuple[str, ...]:
    """The names of the classes, by number."""
    count, named = read.count("num_labels"), read.data.get("id2label")
    if named is None:
        return tuple(f"LABEL_{number}" for number in range(2 if count is None else count))
    labels = _in_order(named)
    if labels is None:
        raise read.fault("id2label", "an object with a name for each number from 0 on")
    if count not in (None, len(labels)):
        raise CheckpointError(
            f"{read.origin}: num_labels is {count}, and id2label names {len(labels)}"
        )
    other = read.data.get("label2id")
    if isinstance(other, dict) and any(
        other.get(label) not in (number, str(number)) for number, label in enumerate(labels)
    ):
        note(f"{read.origin}: id2label and label2id do not agree; the first is believed")
    return labels


def _in_order(named: Any) -> tuple[str, ...] | None:
    """The names in `{"0": name, ...}`; None for anything else."""
    if not isinstance(named, dict) or not named:
        return None
    if not all(isinstance(label, str) for label in named.values()):
        return None
    numbers = [str(number) for number in range(len(named))]
    if {str(key) for key in named} != set(numbers):
        return None
    by_number = {str(key): label for key, label in named.items()}
    return tuple(by_number[number] for number in numbers)


class _Reader:
    """Values of a configuration, each checked as it is read."""

    def __init__(self, data: Mapping[str, Any], origin: str) -> None:
        self.data, self.origin = data, origin

    def fault(self, key: str, expected: str) -> CheckpointError:
        value = self.data[key]
        shown = quoted(value) if isinstance(value, str) else repr(value)[:100]
        return CheckpointError(f"{self.origin}: {key} is {shown}; expected {expected}")

    def one_of(self, key: str, known: tuple[Any, ...], default: Any) -> Any:
        value = self.data.get(key, default)
        if not any(type(value) is type(x) and value == x for x in known):
            spelled = {None: "null", True: "true", False: "false"}
            raise self.fault(key, " or ".join(spelled.get(x) or x for x in known))
        return value

    def rate(self, key: str, default: float) -> float:
        """A share to drop; null as if it were not there."""
        value = self.data.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise self.fault(key, "a probability of at least 0 and below 1")
        return float(value)

    def token(self, key: str) -> int | None:
        """A token's id; null, and -1 as some files have it, for none."""
        value = self.data.get(key)
        if value is None or (value == -1 and not isinstance(value, bool)):
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise self.fault(key, "a token's id, or null")
        return value

    def count(self, key: str) -> int | None:
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**20:
            raise self.fault(key, "a whole number from 1 to 1048576")
        return value
