"""Checkpoints with heads: read as transformers writes them, written so that it reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from gpt2_checkpoints import random_weights
from gpt2_heads import CLASSES, HeadReference, texts, transformers

from tfx.core.backend import Backend
from tfx.core.errors import CheckpointError, TfxError, UsageError, WeightsError
from tfx.core.parameters import borrowed
from tfx.core.recipe import ConvertSettings
from tfx.core.weights import open_weights, write_weights
from tfx.models.gpt2.config import config_json
from tfx.models.gpt2.convert import convert
from tfx.models.gpt2.head_config import ARCHITECTURES, head_from, head_json
from tfx.models.gpt2.heads import Head, Summary, TaskName
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.presets import PRESETS
from tfx.models.gpt2.weights import (
    read_headed,
    read_pretrained,
    shapes_of,
    their_name,
    write_pretrained,
)

TASKS = get_args(TaskName)
OPTIONS: dict[str, dict[str, Any]] = {
    "text-classification": {
        "id2label": {0: "bad", 1: "so-so", 2: "good"},
        "label2id": {"bad": 0, "so-so": 1, "good": 2},
        "pad_token_id": 3,
        "problem_type": "multi_label_classification",
    },
    "token-classification": {"num_labels": 4, "classifier_dropout": 0.3},
    "question-answering": {"tie_word_embeddings": False},
    "multiple-choice": {
        "summary_activation": "tanh",
        "summary_first_dropout": 0.25,
        "tie_word_embeddings": False,
    },
}
CONFIG = Config(vocab_size=11, n_positions=8, n_embd=12, n_layer=1, n_head=3)


def reference(task: TaskName) -> HeadReference:
    return HeadReference(task, **OPTIONS[task])


def quiet(line: str) -> None:
    raise AssertionError(f"there was nothing to tell: {line}")


def stored(folder: Path, tensors: Any, about: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    write_weights(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def tensors_of(head: Head | None, config: Config = CONFIG) -> dict[str, Any]:
    numbers = np.random.default_rng(2)
    return {k: numbers.normal(size=s).astype("f4") for k, s in shapes_of(config, head).items()}


def about(head: Head) -> dict[str, Any]:
    return config_json(CONFIG) | head_json(head)


def fault(folder: Path) -> str:
    with pytest.raises(TfxError) as found:
        read_headed(folder, lambda _: None)
    return str(found.value)


def test_the_names_are_those_of_transformers() -> None:
    assert ARCHITECTURES == CLASSES


@pytest.mark.parametrize("task", TASKS)
def test_what_transformers_writes(task: TaskName, tmp_path: Path) -> None:
    theirs = reference(task)
    theirs.model.save_pretrained(tmp_path)
    found = read_headed(tmp_path, quiet)
    assert found.head is not None
    assert found.head.task == task
    assert found.head.summary == (
        Summary(activation="tanh", first_dropout=0.25) if task == "multiple-choice" else Summary()
    )
    if task == "text-classification":
        assert found.head.labels == ("bad", "so-so", "good")
        assert found.head.pad_token_id == 3
        assert found.head.problem_type == "multi_label_classification"
    if task == "token-classification":
        assert found.head.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
        assert found.head.dropout == 0.3
    assert found.head.tagged == "first"
    assert list(found.tensors) == list(found.shapes)
    assert {k: x.shape for k, x in found.tensors.items()} == found.shapes
    for name, tensor in found.tensors.items():
        np.testing.assert_array_equal(tensor.array, theirs.weights[name])


@pytest.mark.parametrize("task", TASKS)
def test_what_transformers_reads(task: TaskName, tmp_path: Path) -> None:
    theirs = reference(task)
    theirs.model.save_pretrained(tmp_path / "theirs")
    found = read_headed(tmp_path / "theirs", quiet)
    write_pretrained(tmp_path / "ours", found.config, found.tensors, head=found.head)
    model, loading = getattr(transformers, CLASSES[task]).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(loading.values())
    ours, given = (open_weights(tmp_path / x / "model.safetensors") for x in ("ours", "theirs"))
    assert set(ours) == set(given)
    for name, tensor in model.state_dict().items():
        expected = theirs.model.state_dict()[name]
        np.testing.assert_array_equal(tensor.numpy(), expected.numpy(), err_msg=name)
    for key in ("problem_type", "pad_token_id", "summary_activation", "summary_first_dropout"):
        assert getattr(model.config, key) == getattr(theirs.model.config, key)
    if "classification" in task:
        assert model.config.id2label == theirs.model.config.id2label
        assert model.config.label2id == theirs.model.config.label2id
    assert read_headed(tmp_path / "ours", quiet).head == found.head


@pytest.mark.parametrize("task", TASKS)
def test_scores_of_what_was_read(task: TaskName, tmp_path: Path, backend: Backend) -> None:
    """From a file to the same numbers as with the weights at hand."""
    theirs = reference(task)
    theirs.model.save_pretrained(tmp_path)
    found = read_headed(tmp_path, quiet)
    batch = texts("right").reshaped(2, 2) if task == "multiple-choice" else texts("right")
    params = borrowed(found.tensors, backend, found.tensors["wte.weight"].dtype)
    pairs = zip(
        theirs.scores(params, batch, backend),
        theirs.scores(theirs.on(backend), batch, backend),
        strict=True,
    )
    for mine, expected in pairs:
        np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("said", [True, False])
def test_names_with_a_prefix_or_without(
    task: TaskName, prefix: str, said: bool, tmp_path: Path
) -> None:
    """Known by the name of its class, or by its tensors alone."""
    head = Head(task)
    tensors = tensors_of(head)
    own = head.shapes(CONFIG)
    described = about(head)
    if not said:
        del described["architectures"]
    stored(tmp_path, {k if k in own else prefix + k: x for k, x in tensors.items()}, described)
    found = read_headed(tmp_path, quiet)
    assert found.head == head
    for name, tensor in found.tensors.items():
        np.testing.assert_array_equal(tensor.array, tensors[name])


def test_two_labels_need_no_names(tmp_path: Path) -> None:
    head = Head("text-classification")
    described = about(head)
    del described["id2label"], described["label2id"]
    assert read_headed(stored(tmp_path, tensors_of(head), described), quiet).head == head


def test_as_many_labels_as_are_counted(tmp_path: Path) -> None:
    head = Head("text-classification", ("LABEL_0", "LABEL_1", "LABEL_2"))
    described = config_json(CONFIG) | {"num_labels": 3}
    assert read_headed(stored(tmp_path, tensors_of(head), described), quiet).head == head


def test_which_token_of_a_word_is_tagged(tmp_path: Path) -> None:
    head = Head("token-classification", tagged="last")
    assert read_headed(stored(tmp_path, tensors_of(head), about(head)), quiet).head == head


# ---- as a language model -------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS[:3])
def test_what_is_no_language_model_says_so(task: TaskName, tmp_path: Path) -> None:
    head = Head(task)
    stored(tmp_path, tensors_of(head), about(head))
    with pytest.raises(UsageError, match=rf"has a head for {task} .*--task {task}"):
        read_pretrained(tmp_path, quiet)


def test_of_two_heads_the_language_model_is_one(tmp_path: Path) -> None:
    head = Head("multiple-choice")
    notes: list[str] = []
    found = read_pretrained(stored(tmp_path, tensors_of(head), about(head)), notes.append)
    assert found.head is None
    assert list(found.tensors) == list(CONFIG.shapes())
    assert len(notes) == 1 and "its head for multiple-choice is left out" in notes[0]


def test_a_language_model_has_no_head(tmp_path: Path) -> None:
    stored(tmp_path, random_weights(CONFIG), config_json(CONFIG))
    assert read_headed(tmp_path, quiet).head is None


# ---- what does not fit ---------------------------------------------------------------------------

DAMAGE: dict[str, tuple[Any, str]] = {
    "num_labels": (3, "num_labels is 3, and id2label names 2"),
    "id2label": ({"0": "a", "2": "b"}, "expected an object with a name for each number from 0 on"),
    "problem_type": ("ranking", "problem_type is 'ranking'; expected null or regression or "),
    "pad_token_id": ("x", "pad_token_id is 'x'; expected a token's id, or null"),
}


@pytest.mark.parametrize("key", DAMAGE)
def test_a_value_that_cannot_be(key: str, tmp_path: Path) -> None:
    head = Head("text-classification")
    value, expected = DAMAGE[key]
    stored(tmp_path, tensors_of(head), about(head) | {key: value})
    assert expected in fault(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("summary_type", "attn"),
        ("summary_use_proj", 1),
        ("summary_activation", "mish"),
        ("summary_first_dropout", 1.5),
    ],
)
def test_a_summary_that_cannot_be(key: str, value: Any) -> None:
    data = head_json(Head("multiple-choice")) | {key: value}
    with pytest.raises(CheckpointError, match=f"here: {key} is {value!r}; expected "):
        head_from(data, "here", "multiple-choice", quiet)


def test_one_class_is_no_choice() -> None:
    data = {"id2label": {"0": "all"}, "problem_type": "single_label_classification"}
    with pytest.raises(CheckpointError, match="there is one label"):
        head_from(data, "here", "text-classification", quiet)


def test_labels_that_do_not_agree_are_told_of() -> None:
    notes: list[str] = []
    data = head_json(Head("text-classification", ("a", "b"))) | {"label2id": {"a": 1, "b": 0}}
    found = head_from(data, "here", "text-classification", notes.append)
    assert found.labels == ("a", "b")
    assert notes == ["here: id2label and label2id do not agree; the first is believed"]


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    head = Head("text-classification", ("a", "b", "c"))
    tensors = tensors_of(Head("text-classification"))
    assert "'score.weight' is [2, 12], expected [3, 12]" in fault(
        stored(tmp_path / "1", tensors, about(head))
    )
    del tensors["score.weight"]
    assert "missing: score.weight" in fault(stored(tmp_path / "2", tensors, about(head)))
    tensors["qa_outputs.weight"] = np.zeros((2, 12), np.float32)
    assert "unexpected: 'qa_outputs.weight'" in fault(stored(tmp_path / "3", tensors, about(head)))


def test_a_head_is_written_whole(tmp_path: Path) -> None:
    head = Head("question-answering")
    tensors = tensors_of(head)
    del tensors["qa_outputs.bias"]
    with pytest.raises(WeightsError, match=r"'qa_outputs\.bias' is not as its configuration says"):
        write_pretrained(tmp_path / "out", CONFIG, tensors, head=head)
    assert not (tmp_path / "out").exists()


# ---- converted -----------------------------------------------------------------------------------


class Report:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.result = self.results.append
        self.note = quiet


def test_a_head_goes_along(tmp_path: Path) -> None:
    head = Head("token-classification", ("O", "B", "I"))
    tensors = tensors_of(head)
    stored(tmp_path / "in", {their_name(k): x for k, x in tensors.items()}, about(head))
    settings = ConvertSettings(weights=tmp_path / "in", out=tmp_path / "out")
    report: Any = Report()
    told = convert(PRESETS["gpt2-tiny"], settings, report)
    assert told["num_params"] == sum(x.size for x in tensors.values())
    assert read_headed(tmp_path / "out", quiet).head == head
    model = transformers.GPT2ForTokenClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "O", 1: "B", 2: "I"}
