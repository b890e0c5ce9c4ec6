"""A head learns, on every backend; a run goes on bit for bit; what was left is a model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_checkpoints import write_gpt2
from gpt2_heads import CLASSES, transformers
from gpt2_tasks import records, written
from gpt2_training import Listener, kept, losses, metrics, weights
from optional import torch

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.checkpoint import find_checkpoint, load_checkpoint
from tfx.core.errors import CheckpointError, DataError, TokenizerError, UsageError
from tfx.core.recipe import TrainSettings
from tfx.models.gpt2.presets import PRESETS
from tfx.models.gpt2.tasks.kinds import TASKS
from tfx.models.gpt2.tasks.run import TaskRun
from tfx.models.gpt2.tasks.task_model import TaskModel
from tfx.models.gpt2.tasks.training import train
from tfx.models.gpt2.weights import read_headed

NUMPY = NumpyBackend()
PRESET = PRESETS["gpt2-tiny"]
TEXTS = "text-classification"


class Place:
    """A folder with weights, and data for every task."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = write_gpt2(folder / "gpt2", spread=0.1)
        self.listener: Any = Listener()

    def train(self, task: str, out: str, backend: Backend = NUMPY, **how: Any) -> dict[str, Any]:
        if "data" not in how:
            how["data"] = written(self.folder, task)
        flags = {
            "weights": self.weights,
            "batch_size": 8,
            "steps": 4,
            "lr": 3e-3,
        }
        return self._train(task, out, backend, flags | how)

    def resume(self, task: str, run: str, out: str | None = None, **how: Any) -> dict[str, Any]:
        return self._train(task, out, NUMPY, {"resume": self.folder / run} | how)

    def _train(self, task: str, out: Any, backend: Backend, flags: dict[str, Any]) -> Any:
        where = None if out is None else self.folder / out
        settings = TrainSettings(task=task, out=where, **flags)
        with np.errstate(all="ignore"):
            return train(PRESET, settings, backend, self.listener)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_it_learns(task: str, place: Place) -> None:
    told = place.train(task, "run", steps=60, eval_every=60)
    losses_seen = losses(place.folder / "run")
    assert np.mean(losses_seen[-5:]) < 0.6 * np.mean(losses_seen[:5])
    figure = "val_exact_match" if task == "question-answering" else "val_accuracy"
    assert told["val"][figure] > 0.6
    assert (told["task"], told["steps"], told["val_examples"]) == (task, 60, 6)
    labels = {"text-classification": ["no", "yes"], "token-classification": ["D", "N", "V"]}
    assert told["labels"] == labels.get(task)


@pytest.mark.parametrize("task", TASKS)
def test_every_backend_learns_the_same(task: str, place: Place, backend: Backend) -> None:
    place.train(task, "numpy")
    place.train(task, "other", backend)
    np.testing.assert_allclose(
        losses(place.folder / "numpy"), losses(place.folder / "other"), rtol=2e-4
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_is_learnt_as_it_is_judged(task: str, place: Place) -> None:
    """The loss of a first step over all examples, padded, is what evaluating them finds."""
    data = place.folder / "data"
    data.mkdir()
    for name in ("train", "val"):
        written(data, task, 12).rename(data / f"{name}.jsonl")
    overrides = {"dropout": "0"}
    if task == "multiple-choice":
        overrides["lm_weight"] = "0"
    how = {"data": data, "batch_size": 12, "steps": 2, "eval_every": 1, "lr": 1e-12}
    place.train(task, "run", overrides=overrides, **how)
    first, _ = metrics(place.folder / "run")
    own_dropout = task in ("token-classification", "multiple-choice")
    tolerance = 0.05 if own_dropout else 1e-5
    assert first["loss"] == pytest.approx(first["val_loss"], rel=tolerance)


@pytest.mark.parametrize("task", TASKS)
def test_a_run_goes_on_bit_for_bit(task: str, place: Place) -> None:
    how = {"eval_every": 2, "save_every": 2}
    place.train(task, "whole", steps=6, **how)
    place.train(task, "run", steps=6, **how)
    half = place.folder / "run" / "checkpoint-4"
    (place.folder / "half").mkdir()
    half.rename(place.folder / "half" / "checkpoint-4")
    told = place.resume(task, "half", **how)
    assert told["steps"] == 6
    whole, half_run = (weights(place.folder / name) for name in ("whole", "half"))
    assert whole.keys() == half_run.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, half_run[name], err_msg=name)
    kept(place.folder / "whole")


@pytest.mark.parametrize("task", TASKS)
def test_a_checkpoint_is_a_model_of_transformers(task: str, place: Place) -> None:
    place.train(task, "run")
    folder = find_checkpoint(place.folder / "run")
    _, loading = getattr(transformers, CLASSES[task]).from_pretrained(  # type: ignore[index]
        folder, output_loading_info=True
    )
    assert not any(loading.values())
    assert (folder / "tokenizer.json").exists()


def test_transformers_says_the_same_of_a_text(place: Place) -> None:
    place.train(TEXTS, "run", steps=8)
    folder = find_checkpoint(place.folder / "run")
    model = TaskModel.load(folder, TEXTS, NUMPY, print)
    rows = [{"text": row["text"]} for row in records(TEXTS, 5, seed=9)]
    from gpt2_tasks import listed

    answers = model.answers(listed(rows), print)
    theirs = transformers.GPT2ForSequenceClassification.from_pretrained(folder)
    for row, answer in zip(rows, answers, strict=True):
        ids = torch.tensor([model.task.encoded(row["text"])])
        chances = theirs(input_ids=ids).logits[0].softmax(-1).tolist()
        expected = {theirs.config.id2label[i]: x for i, x in enumerate(chances)}
        assert answer["scores"] == pytest.approx(expected, rel=1e-4)


def test_weights_of_classes_change_what_is_learnt(place: Place) -> None:
    rows = [{"text": "sea", "label": "a"}] * 30 + [{"text": "hill", "label": "b"}] * 3
    file = place.folder / "rare.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = {"dropout": "0", "val_fraction": "0"}
    how = {"data": file, "overrides": overrides, "steps": 1, "eval_every": 0, "batch_size": 33}
    place.train(TEXTS, "plain", **how)
    place.train(TEXTS, "balanced", class_weights="balanced", **how)
    assert losses(place.folder / "plain") != losses(place.folder / "balanced")
    balanced = losses(place.folder / "balanced")
    weights_of = {"named": "a=0.55,b=5.5", "in order": "[0.55, 5.5]"}
    for out, said in weights_of.items():
        place.train(TEXTS, out, class_weights=said, **how)
        assert losses(place.folder / out) == pytest.approx(balanced, rel=1e-6)
    place.train(TEXTS, "one", class_weights='{"b": 1}', **how)
    assert losses(place.folder / "one") == losses(place.folder / "plain")
    place.train(TEXTS, "b alone", class_weights="a=0", **how)
    assert losses(place.folder / "b alone") != losses(place.folder / "plain")
    for said, words in (
        ("even", "--class-weights 'even': expected balanced, or a number"),
        ('{"a": 1', "expected balanced"),
        ("2,1", "--class-weights '2,1': expected balanced"),
        ("a=1,a=2", "--class-weights 'a=1,a=2': the class 'a' is there twice"),
        ('{"a": 1, "a": 2}', "the class 'a' is there twice"),
        ("{}", "expected balanced"),
        ("a=-1", "expected balanced"),
        ("[1, NaN]", "expected balanced"),
        ("a=0,b=0", "--class-weights: all are 0, and nothing would be learnt; the classes are"),
        ("[0, 0]", "--class-weights: all are 0"),
        ("[1, 2, 3]", "--class-weights has 3 numbers; the classes are 'a', 'b'"),
        ("c=1", "--class-weights: there is no class 'c'. The classes are 'a', 'b'"),
    ):
        refused(place, UsageError, re.escape(words), data=file, class_weights=said)
    for task in ("question-answering", "multiple-choice"):
        refused(place, UsageError, "has no classes", task, class_weights="a=1")


def test_the_language_model_learns_along(place: Place) -> None:
    how = {"steps": 1, "eval_every": 0}
    for share in ("0", "1"):
        overrides = {"dropout": "0", "lm_weight": share}
        place.train("multiple-choice", share, overrides=overrides, **how)
    (without,), (along,) = (losses(place.folder / share) for share in ("0", "1"))
    assert along > without + 1  # a new model knows nothing of the next of 263 tokens


def test_a_head_that_is_there_is_trained_on(place: Place) -> None:
    place.train(TEXTS, "one", steps=2)
    best = find_checkpoint(place.folder / "one")
    place.train(TEXTS, "two", weights=best, steps=0)
    first, second = (weights(place.folder / name) for name in ("one", "two"))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    place.train("token-classification", "three", weights=best, steps=0)
    third = weights(place.folder / "three")
    assert "score.weight" not in third and "classifier.weight" in third
    np.testing.assert_array_equal(third["transformer.wte.weight"], first["transformer.wte.weight"])


def test_a_head_that_knows_other_labels(place: Place) -> None:
    """It is kept, and what does not suit it is refused, unless a new one is asked for."""
    place.train(TEXTS, "one", steps=2)
    there: dict[str, Any] = {"weights": find_checkpoint(place.folder / "one")}
    other = place.folder / "other.jsonl"
    other.write_text('{"text": "a", "label": "no"}\n{"text": "b", "label": "maybe"}\n' * 9)
    many = {"problem_type": "multi_label_classification"}
    refused(
        place, DataError, "label 'maybe' is none .*; --set head=new begins", data=other, **there
    )
    refused(place, UsageError, "problem_type=multi.* is for single_label", overrides=many, **there)
    new = {"head": "new"}
    told = place.train(TEXTS, "new", data=other, overrides=new, steps=0, **there)
    assert told["labels"] == ["maybe", "no"]
    place.train(TEXTS, "again", overrides=new, steps=0, **there)
    before, after = (weights(place.folder / name) for name in ("one", "again"))
    assert (before["score.weight"] != after["score.weight"]).any()
    same = "transformer.wte.weight"
    np.testing.assert_array_equal(before[same], after[same])


def test_the_most_frequent_are_judged_by_what_the_model_is_judged_by(place: Place) -> None:
    rows = [{"text": "sea", "label": "yes"}] * 30 + [{"text": "sea", "label": "no"}] * 20
    data = place.folder / "data"
    data.mkdir()
    for name, part in (("train", rows), ("val", rows[10:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (data / f"{name}.jsonl").write_text(lines)
    overrides = {"eval_batches": "1"}
    told = place.train(TEXTS, "run", data=data, steps=1, batch_size=3, overrides=overrides)
    # of yes, no, no: the first, the middle and the last of twenty and twenty
    assert told["most_frequent"]["accuracy"] == pytest.approx(1 / 3)


def test_the_best_is_kept_and_patience_ends_a_run(place: Place) -> None:
    overrides = {"patience": "2"}
    told = place.train(TEXTS, "run", steps=500, eval_every=1, lr=0.3, overrides=overrides)
    assert told["steps"] < 500
    kept_at = find_checkpoint(place.folder / "run" / "best")
    assert kept_at.name == f"checkpoint-{told['best_step']}"
    assert told["best_val"]["val_loss"] <= told["val"]["val_loss"]


def test_three_rounds_where_nobody_says(place: Place) -> None:
    assert place.train(TEXTS, "run", steps=None, eval_every=0)["steps"] == 21  # 3 * 54 / 8


# ---- refusals ------------------------------------------------------------------------------------


def refused(
    place: Place, fault: type[Exception], words: str, task: str = TEXTS, **how: Any
) -> None:
    with pytest.raises(fault, match=words):
        place.train(task, "refused", **how)
    assert not (place.folder / "refused").exists()


def test_what_cannot_be(place: Place) -> None:
    refused(place, UsageError, "has nothing to learn from", data=None)
    refused(place, UsageError, "no use for --num-samples", num_samples=1)
    refused(place, UsageError, "no such task", task="translation", data=place.folder)
    refused(
        place, UsageError, "--set lm_weight=-1", "multiple-choice", overrides={"lm_weight": "-1"}
    )
    for name, task in (("lm_weight", TEXTS), ("problem_type", "question-answering")):
        refused(place, UsageError, f"--set {name} is for", task, overrides={name: "0"})
    refused(place, UsageError, "--set head=old: expected one", overrides={"head": "old"})
    refused(place, UsageError, "expected one of regression", overrides={"problem_type": "x"})
    refused(place, UsageError, "--set n_layer=3: the weights", overrides={"n_layer": "3"})
    refused(place, UsageError, "--set patience", overrides={"patience": "1"}, eval_every=0)
    bare = write_gpt2(place.folder / "bare", tokenizer=False)
    refused(place, TokenizerError, "has no tokenizer; give one", weights=bare)


def test_what_a_run_keeps(place: Place) -> None:
    single = {"problem_type": "single_label_classification"}
    place.train(TEXTS, "run", overrides=single, class_weights="yes=2")
    (place.folder / "other.jsonl").write_text('{"text": "a", "label": "yes"}\n' * 9)
    for fault, words, how in (
        (UsageError, "--class-weights balanced: the run", {"class_weights": "balanced"}),
        (UsageError, "--batch-size 3: the run", {"batch_size": 3}),
        (
            UsageError,
            "--set problem_type regression",
            {"overrides": {"problem_type": "regression"}},
        ),
        (UsageError, "--weights: the run", {"weights": place.weights}),
        (CheckpointError, "is not what", {"data": place.folder / "other.jsonl"}),
    ):
        with pytest.raises(fault, match=words):
            place.resume(TEXTS, "run", **how)
    with pytest.raises(UsageError, match="has a head for text-classification"):
        place.resume("question-answering", "run")
    saved = load_checkpoint(place.folder / "run")
    again = TrainSettings(task=TEXTS, class_weights='{"yes": 2}')
    run = TaskRun.resume(saved, again, NUMPY, print)
    assert run.done == 4 and run.class_weights is not None
    assert run.class_weights.tolist() == [1, 2]


def test_what_the_head_remembers(place: Place) -> None:
    place.train("token-classification", "run")
    head = read_headed(place.folder / "run", print).head
    assert head is not None
    assert (head.labels, head.tagged) == (("D", "N", "V"), "last")
    assert head.pad_token_id is not None
