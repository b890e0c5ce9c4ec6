"""Small labelled data for every task of GPT-2, easy enough to be learnt in a few steps."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_checkpoints import TOKENS
from gpt2_training import tokenizer

from tfx.core.tokenizer import ByteLevelBPE
from tfx.models.gpt2.heads import Head
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.tasks.kinds import task_named
from tfx.models.gpt2.tasks.records import Record
from tfx.models.gpt2.tasks.task import Task

CONFIG = Config(vocab_size=len(TOKENS), n_positions=32, n_embd=16, n_layer=1, n_head=2)


def words() -> ByteLevelBPE:
    """The tokenizer of `gpt2_training`."""
    return tokenizer()


def made(name: str, rows: Sequence[Mapping[str, Any]], length: int = 32, **asked: Any) -> Task:
    """A task with a new head for some records."""
    kind = task_named(name)
    head = kind.head_for(listed(rows), None, {"problem_type": None, **asked})
    return kind(head, CONFIG, words(), length)


def with_head(head: Head, length: int = 32) -> Task:
    return task_named(head.task)(head, CONFIG, words(), length)


def listed(rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    return [Record(row, f"row {number}") for number, row in enumerate(rows, 1)]


def records(name: str, count: int = 60, seed: int = 1) -> list[dict[str, Any]]:
    """Records of a task, drawn by a seed."""
    draw = random.Random(seed)
    return [_RECORD[name](draw) for _ in range(count)]


def written(folder: Path, name: str, count: int = 60) -> Path:
    """The like in a file."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in records(name, count)))
    return file


def _text(draw: random.Random) -> dict[str, Any]:
    filler = " ".join(draw.choices(["sea", "wall", "hill"], k=draw.randint(1, 3)))
    label = draw.choice(["yes", "no"])
    return {"text": f"{filler} {label}", "label": label}


def _tags(draw: random.Random) -> dict[str, Any]:
    chosen = draw.choices(["the", "sea", "sees", "a"], k=draw.randint(1, 4))
    tags = {"the": "D", "a": "D", "sea": "N", "sees": "V"}
    return {"tokens": chosen, "tags": [tags[word] for word in chosen]}


def _answer(draw: random.Random) -> dict[str, Any]:
    place = draw.choice(["Rome", "Ulm"])
    context = f"he is in {place}."
    answers = {"text": [place], "answer_start": [context.index(place)]}
    return {"question": "Where?", "context": context, "answers": answers}


def _choice(draw: random.Random) -> dict[str, Any]:
    choices = draw.sample(["x", "y", "z"], k=draw.randint(2, 3))
    label = draw.randrange(len(choices))
    return {"question": f"{choices[label]} or?", "choices": choices, "label": label}


_RECORD = {
    "text-classification": _text,
    "token-classification": _tags,
    "question-answering": _answer,
    "multiple-choice": _choice,
}
