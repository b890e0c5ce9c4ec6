"""What each task reads of a record, how it pads, and what it answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpt2_tasks import listed, made, records, with_head, words

from tfx.core.errors import DataError, UsageError
from tfx.models.gpt2.head_losses import NO_LABEL
from tfx.models.gpt2.heads import Head
from tfx.models.gpt2.tasks.examples import Batches, in_batches
from tfx.models.gpt2.tasks.kinds import TASKS, task_named
from tfx.models.gpt2.tasks.records import Record
from tfx.models.gpt2.tasks.task import Example, Task

END = words().eos_id


def example(task: Task, labelled: bool = True, /, **values: Any) -> Example:
    return task.example(Record(values, "here"), labelled)


def fault(task: Task, /, **values: Any) -> str:
    with pytest.raises(DataError) as found:
        example(task, **values)
    return str(found.value)


def test_a_task_that_is_none() -> None:
    with pytest.raises(UsageError, match="Did you mean 'text-classification'"):
        task_named("text-classifcation")
    with pytest.raises(UsageError, match=r"There are text-classification, token-"):
        task_named("summarization")


# ---- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_holds_its_texts(name: str) -> None:
    rows = records(name, 8)
    task = made(name, rows)
    examples = [task.example(record, True) for record in listed(rows)]
    ids, visible, *_ = task.batch(examples)
    assert ids.shape == visible.shape and ids.shape[-1] == task.width(examples)
    flat_ids, flat_visible = (x.reshape(len(x), -1, x.shape[-1]) for x in (ids, visible))
    for number, one in enumerate(examples):
        for choice, row in enumerate(one.rows):
            assert flat_ids[number, choice][flat_visible[number, choice]].tolist() == list(row)
            assert flat_visible[number, choice, : len(row)].all()  # padding is behind


def test_widths_are_few() -> None:
    task = made("text-classification", [{"text": "a", "label": x} for x in "ab"], length=24)
    lengths = {n: task.width([example(task, text="." * n, label="a")]) for n in range(1, 30)}
    assert set(lengths.values()) == {16, 24}
    assert all(width >= min(n, 24) for n, width in lengths.items())


def test_every_epoch_has_all_examples_in_another_order() -> None:
    examples = [Example(((0,) * n,), n, Record({}, "")) for n in range(1, 41)]
    batches = Batches(examples, batch_size=8, seed=3)
    assert batches.per_epoch == 5
    epochs = [[x.label for n in range(5) for x in batches[5 * e + n]] for e in range(2)]
    assert all(sorted(epoch) == list(range(1, 41)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    again = Batches(examples, batch_size=8, seed=3)
    assert [x.label for x in again[7]] == [x.label for x in batches[7]]
    spread = [np.ptp([x.label for x in batches[n]]) for n in range(5)]
    assert max(spread) == 7  # neighbours are alike


def test_few_examples_make_a_batch() -> None:
    examples = [Example(((0,),), n, Record({}, "")) for n in range(3)]
    found = [x.label for x in Batches(examples, batch_size=8, seed=3)[0]]
    assert len(found) == 8 and set(found) == {0, 1, 2}
    assert sorted(i for part in in_batches(examples, 2) for i in part) == [0, 1, 2]


# ---- texts ---------------------------------------------------------------------------------------


def test_what_labels_of_texts_are() -> None:
    def head(*labels: Any, name: str = "label", **asked: Any) -> Head:
        rows = [{"text": "x", name: label} for label in labels]
        return made("text-classification", rows, **asked).head

    assert head("b", "a").labels == ("a", "b")
    assert head(10, 9, 9).labels == ("9", "10")
    assert head(True, False).labels == ("false", "true")
    assert head("1", "0").problem_type == "single_label_classification"
    assert head(0.5, 1).problem_type == "regression"
    assert head("0.5", "-1e3").problem_type == "regression"
    assert head(1, 3, problem_type="regression").labels == ("value",)
    many = head(["a"], [], ["c", "a"], name="labels")
    assert (many.labels, many.problem_type) == (("a", "c"), "multi_label_classification")
    with pytest.raises(DataError, match="all labels are 'a'; expected two classes or more"):
        head("a", "a")
    for labels, told in (
        (["b", "a", [1]], "row 3: a label is a list; expected a name or a whole number"),
        (["b", ""], "row 2: a label is empty"),
        (["b", "a", None], "row 3: 'label' is empty; expected a value"),
    ):
        with pytest.raises(DataError, match=told):
            head(*labels)
    with pytest.raises(DataError, match="row 2: a label is a dict"):
        head(["a"], [{}], name="labels")
    with pytest.raises(DataError, match="no record has a label"):
        head([], [], name="labels")


def test_texts_are_cut_and_never_empty() -> None:
    task = made("text-classification", [{"text": "", "label": x} for x in "ab"], length=4)
    assert example(task, text="", label="a").rows == ((END,),)
    long = example(task, text="12345", label="b")
    assert long.rows == (tuple(words().encode("1234")),) and long.cut
    assert not example(task, text="1234", label="b").cut


def test_a_text_does_not_end_itself() -> None:
    """Who writes the name of a special token has written plain characters."""
    task = made("text-classification", [{"text": "", "label": x} for x in "ab"])
    assert END not in example(task, text="<|endoftext|>", label="a").rows[0]


def test_a_label_by_its_name_or_number() -> None:
    task = made("text-classification", [{"text": "", "label": x} for x in "ab"])
    assert example(task, text="x", label="b").label == example(task, text="x", label=1).label == 1
    assert fault(task, text="x", label="c") == (
        "here: the label 'c' is none of the model's: 'a', 'b'"
    )
    assert "'2' is none" in fault(task, text="x", label=2)
    assert example(task, False, text="x").label is None
    assert "text is an int" in fault(task, text=3, label="a")


def test_answers_about_texts() -> None:
    single = with_head(Head("text-classification", ("a", "b"), "single_label_classification"))
    one = example(single, False, text="x")
    found = single.answer(one, [np.array([0.0, np.log(3)])])
    assert found["label"] == "b" and list(found["scores"]) == ["b", "a"]
    assert found["scores"] == pytest.approx({"b": 0.75, "a": 0.25})
    assert single.lines(found) == ["b  0.7500", "a  0.2500"]
    many = with_head(Head("text-classification", ("a", "b"), "multi_label_classification"))
    found = many.answer(one, [np.array([-np.log(3), np.log(3)])])
    assert found["labels"] == ["b"] and found["scores"] == pytest.approx({"b": 0.75, "a": 0.25})
    number = with_head(Head("text-classification", ("value",), "regression"))
    assert number.answer(one, [np.array([2.5])]) == {"values": {"value": 2.5}}


def test_weights_of_classes() -> None:
    rows = [{"text": "x", "label": label} for label in "aaab"]
    task = made("text-classification", rows)
    examples = [task.example(record, True) for record in listed(rows)]
    np.testing.assert_allclose(task.class_weights(examples), [2 / 3, 2])
    rows = [{"text": "x", "labels": labels} for labels in (["a"], ["a", "b"], ["a"], [])]
    task = made("text-classification", rows)
    examples = [task.example(record, True) for record in listed(rows)]
    np.testing.assert_allclose(task.class_weights(examples), [1 / 3, 3])
    for task in (
        made("text-classification", [{"text": "x", "label": 0.5}]),
        made("question-answering", []),
    ):
        with pytest.raises(UsageError, match="--class-weights"):
            task.class_weights(examples)


# ---- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tagged", "places"), [("first", [0, 2]), ("last", [1, 4])])
def test_one_token_of_a_word_has_its_tag(tagged: Any, places: list[int]) -> None:
    task = with_head(Head("token-classification", ("D", "N"), tagged=tagged))
    assert words().encode(" the") == [258, *words().encode(" the")[1:]]  # one token
    one = example(task, tokens=["x", "ab"], tags=["N", "D"])
    assert one.rows == (tuple(words().encode(" x ab")),)
    (labels,) = task.targets([one], 8)
    assert np.flatnonzero(labels[0] != NO_LABEL).tolist() == places
    assert labels[0, places].tolist() == [1, 0]


def test_words_that_do_not_fit_have_no_tag() -> None:
    task = with_head(Head("token-classification", ("D", "N"), tagged="last"), length=4)
    one = example(task, tokens=["x", "ab"], tags=["N", "D"])
    assert one.cut and task.count([one]) == 1
    found = task.answer(one, [np.array([[0, 0], [0, 9.0], [0, 0], [0, 0]])])
    assert (found["tokens"], found["tags"]) == (["x"], ["N"])
    assert task.lines(found) == ["x  N  0.9999"]


def test_words_of_a_text() -> None:
    task = with_head(Head("token-classification", ("D", "N")))
    assert example(task, False, text="It's he, we'd say.").label[0] == [
        *("It's", "he", ",", "we'd", "say", "."),
    ]


def test_tags_that_do_not_fit() -> None:
    task = with_head(Head("token-classification", ("D", "N")))
    assert fault(task, tokens=["a"], tags=["D", "N"]) == "here: there are 1 tokens and 2 tags"
    assert "one of tokens is empty" in fault(task, tokens=["a", ""], tags=["D", "N"])
    assert "one of tokens is an int" in fault(task, tokens=["a", 1], tags=["D", "N"])


def test_the_most_frequent_tag_is_that_of_the_word() -> None:
    task = with_head(Head("token-classification", ("D", "N")))
    learnt = [example(task, tokens=["a", "b", "b"], tags=["D", "N", "N"])]
    others = [example(task, tokens=["a", "b", "c"], tags=["D", "D", "N"])]
    found = task.most_frequent(learnt, others)
    assert found is not None and found["accuracy"] == pytest.approx(2 / 3)


# ---- answers -------------------------------------------------------------------------------------

QUESTION = {"question": "Wo?", "context": "Früh in Köln, spät in Ulm."}


def asked(answers: Any, **values: Any) -> Example:
    return example(
        made("question-answering", [], length=64), **(QUESTION | values), answers=answers
    )


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Köln"], "answer_start": [8]},
        {"text": ["Köln"]},
        ["Köln", "Ulm"],
        "Köln",
        '["Köln", "Ulm"]',
        '{"text": ["Köln"], "answer_start": [8]}',
    ],
)
def test_where_an_answer_is(answers: Any) -> None:
    one = asked(answers)
    first, last = one.label.span
    assert words().decode(one.rows[0][first : last + 1]).strip() == "Köln"
    assert one.rows[0][-1] == END and one.label.right[0] == "Köln"


def test_no_answer_is_the_end() -> None:
    for answers in ({"text": [], "answer_start": []}, [], None, "[]"):
        one = asked(answers)
        assert one.label.span == (len(one.rows[0]) - 1,) * 2
    assert "there is no 'answers'" in fault(made("question-answering", []), **QUESTION)


def test_an_answer_that_is_not_there() -> None:
    task = made("question-answering", [])
    for answers in (["Bonn"], {"text": ["Köln"], "answer_start": [3]}):
        assert "is not in the context" in fault(task, **QUESTION, answers=answers)
    assert "expected a text that is not empty" in fault(task, **QUESTION, answers=[""])
    for answers in ({"text": ["Köln"], "answer_start": [8, 9]}, {"text": "Köln"}, 3):
        assert "answers" in fault(task, **QUESTION, answers=answers)


def test_an_answer_that_was_cut_off_is_not_learnt() -> None:
    task = made("question-answering", [], length=16)
    one = example(task, **QUESTION, answers=["Ulm"])
    assert one.cut and one.label.span == (NO_LABEL, NO_LABEL)
    assert len(one.rows[0]) == 16
    there = example(task, **QUESTION, answers=["Früh"])
    assert (task.count([one, there]), task.count([one])) == (1, 0)
    assert example(task, **QUESTION, answers=["Früh"]).label.span[0] >= 0


def test_the_likeliest_stretch() -> None:
    task = made("question-answering", [], length=64)
    one = asked("Köln")
    first, last = np.zeros((2, len(one.rows[0])))
    begin, end = one.label.span
    first[begin] = last[end] = 9
    last[begin - 1] = 12  # ends before it begins
    found = task.answer(one, [first, last])
    assert found["answer"] == "Köln"
    assert QUESTION["context"][found["start"] : found["end"]] == "Köln"
    first[-1] = last[-1] = 30
    found = task.answer(one, [first, last])
    assert (found["answer"], found["start"], found["end"]) == ("", 0, 0)
    assert task.lines(found)[0].startswith("(no answer)")


def test_a_question_is_no_answer() -> None:
    task = made("question-answering", [], length=64)
    one = asked("Köln")
    first = np.zeros(len(one.rows[0]))
    first[0] = 50
    assert task.answer(one, [first, first])["answer"] in QUESTION["context"]


# ---- choices -------------------------------------------------------------------------------------


def test_choices_with_their_question() -> None:
    task = made("multiple-choice", [])
    one = example(task, question="x", choices=["a", "bc"], label=1)
    assert one.rows == (
        (*words().encode("x a"), END),
        (*words().encode("x bc"), END),
    )
    assert one.label == (["a", "bc"], 1)


@pytest.mark.parametrize(
    "said",
    [
        {"choices": ["a", "b"], "label": 1},
        {"choices": ["a", "b"], "label": "1"},
        {"choices": ["a", "b"], "answer": "b"},
        {"choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
        {"choices": '["a", "b"]', "answer": "1"},
        {"choices": ["1", "2"], "label": "1"},
        {"choices": ["1", "0"], "answer": "0"},
        {"choices": ["0", "1"], "label": 1},
        {"choices": {"text": ["B", "A"], "label": ["A", "B"]}, "answerKey": "B"},
        {"choices": {"text": ["9", "1"], "label": ["1", "2"]}, "answerKey": "2"},
    ],
)
def test_ways_to_say_which_is_right(said: dict[str, Any]) -> None:
    assert example(made("multiple-choice", []), question="x", **said).label[1] == 1


def test_choices_that_are_none() -> None:
    task = made("multiple-choice", [])
    for choices, told in (
        (["a"], "there is one choice; expected two or more"),
        ([], "there are no choices; expected two or more"),
        (["a", 2], "one of choices is an int; expected a text"),
        ({"text": "a"}, "the text of choices is a str; expected a list"),
        (None, "'choices' is empty"),
    ):
        assert told in fault(task, question="x", choices=choices, label=0)
    assert "none of the 2 choices" in fault(task, question="x", choices=["a", "b"], label=2)


def test_a_question_that_is_too_long_keeps_its_end() -> None:
    task = made("multiple-choice", [], length=4)
    one = example(task, question="123456", choices=["a", "b"], label=0)
    assert one.cut and one.rows[0] == (*words().encode("6 a"), END)


def test_questions_with_fewer_choices_than_others() -> None:
    task = made("multiple-choice", [])
    rows = [
        {"question": "x", "choices": ["a", "b"], "label": 1},
        {"question": "x", "choices": ["a", "b", "c"], "label": 2},
    ]
    examples = [task.example(record, True) for record in listed(rows)]
    ids, _, there, right, written = task.batch(examples)
    assert ids.shape == (2, 3, 16)
    assert there.tolist() == [[True, True, False], [True, True, True]]
    assert right.tolist() == [1, 2]
    for number, (one, label) in enumerate(zip(examples, right, strict=True)):
        row = one.rows[label]
        assert written[number, label, : len(row)].tolist() == list(row)
        assert (np.delete(written[number], label, 0) == NO_LABEL).all()
    found = task.answer(examples[0], [np.array([0, 2.0, 9])])
    assert (found["label"], found["answer"]) == (1, "b")
