"""GPT-2 loaded and asked from Python: against transformers, and against direct computation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_checkpoints import END, write_gpt2
from gpt2_training import Listener
from optional import torch
from transformers_folders import write_transformers

import tfx
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.errors import DataError, UsageError, WeightsError
from tfx.core.pipelines.language_model import LanguageModel
from tfx.core.recipe import RunSettings
from tfx.models.gpt2.presets import PRESETS
from tfx.models.gpt2.tasks.running import run

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

TEXTS = ["the king in there", "a", "né, the other thin theatre!"]
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "LOC"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Checkpoints that transformers wrote, by the names of its classes."""
    made: dict[str, Path] = {}

    def folder(kind: str, **options: Any) -> Path:
        key = f"{kind}-{sorted(options.items())}"
        if key not in made:
            made[key] = write_transformers(tmp_path_factory.mktemp(kind), kind, **options)
        return made[key]

    return folder


def theirs(task: str, kind: str, folder: Path, **options: Any) -> Any:
    """The pipeline of transformers."""
    return transformers.pipeline(
        task,
        model=getattr(transformers, kind).from_pretrained(folder),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        device="cpu",
        **options,
    )


def assert_alike(ours: Any, other: Any) -> None:
    """The same objects, their numbers up to rounding."""
    assert type(ours) is type(other)
    if isinstance(ours, dict):
        assert ours.keys() == other.keys()
        for name in ours:
            assert_alike(ours[name], other[name])
    elif isinstance(ours, list):
        assert len(ours) == len(other)
        for one, two in zip(ours, other, strict=True):
            assert_alike(one, two)
    else:
        assert ours == (pytest.approx(other, rel=1e-4) if isinstance(ours, float) else other)


# ---- the language model --------------------------------------------------------------------------


def test_text_generation_is_that_of_transformers(folders: Any, backend: Backend) -> None:
    folder = folders("GPT2LMHeadModel")
    ours = tfx.pipeline("text-generation", folder, backend=backend, max_new_tokens=8)
    other = theirs("text-generation", "GPT2LMHeadModel", folder)
    plain = {"max_new_tokens": 8, "do_sample": False}
    assert_alike(ours(TEXTS[0]), other(TEXTS[0], **plain))
    assert_alike(ours(TEXTS), other(TEXTS, **plain))
    assert_alike(ours(TEXTS, return_full_text=False), other(TEXTS, return_full_text=False, **plain))


def test_logits_and_features_are_those_of_transformers(folders: Any, backend: Backend) -> None:
    folder = folders("GPT2LMHeadModel")
    model = tfx.load(folder, backend=backend)
    reference = transformers.GPT2LMHeadModel.from_pretrained(folder)
    for text, ours in zip(TEXTS, model.logits(TEXTS), strict=True):
        with torch.no_grad():
            found = reference(torch.tensor([model.encode(text)])).logits[0].numpy()
        np.testing.assert_allclose(ours, found, rtol=1e-4, atol=1e-4)
    features = tfx.pipeline("feature-extraction", model)
    other = theirs("feature-extraction", "GPT2Model", folder)
    for text, ours in zip(TEXTS, features(TEXTS), strict=True):
        np.testing.assert_allclose(ours, np.array(other(text))[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(features(text, pooling="last").shape, (24,))
        for pooling, wanted in (("mean", ours.mean(0)), ("last", ours[-1]), ("first", ours[0])):
            np.testing.assert_allclose(
                features(text, pooling=pooling), wanted, rtol=1e-4, atol=1e-4
            )


def test_perplexity_is_that_of_the_logits(folders: Any) -> None:
    model = tfx.load(folders("GPT2LMHeadModel"), backend="numpy")
    text = "the thin king in a theatre"
    ids, logits = model.encode(text), model.logits(text).astype(np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -logp[np.arange(len(ids) - 1), ids[1:]].mean()
    found = tfx.pipeline("perplexity", model)(text)
    assert found["num_tokens"] == len(ids) - 1
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(loss), rel=1e-5)


def test_perplexity_of_a_long_text_is_that_of_eval(folders: Any) -> None:
    from tfx.models.gpt2.evaluation import losses_of
    from tfx.models.gpt2.language_model import LanguageModel as GPT2

    class Silent:
        def progress(self, *args: Any) -> None: ...
        def progress_done(self, **options: Any) -> None: ...

    model = tfx.load(folders("GPT2LMHeadModel"), backend="numpy")
    text = "the king sang in there again and " * 6
    ids = np.array(model.encode(text))
    assert isinstance(model.causal, GPT2)
    for stride in (40, 13):
        wanted = losses_of(model.causal, ids, stride, None, Silent())  # type: ignore[arg-type]
        found = tfx.pipeline("perplexity", model)(text, stride=stride)
        assert found["num_tokens"] == len(wanted)
        assert found["loss"] == pytest.approx(float(wanted.mean()), rel=1e-5)


def test_a_stream_is_the_generated_text(folders: Any) -> None:
    model = tfx.load(folders("GPT2LMHeadModel"), backend="numpy")
    for options in ({}, {"temperature": 1.0, "seed": 3}, {"stop": "e"}):
        whole = model.generate("the k", max_new_tokens=20, **options)
        assert "".join(model.stream("the k", max_new_tokens=20, **options)) == whole.text
    drawn = {model.generate("a", temperature=2.0, max_new_tokens=9).text for _ in range(4)}
    assert len(drawn) > 1  # no seed, no two alike
    apart = model.generate(["a"] * 4, temperature=2.0, max_new_tokens=9)
    assert len({text.text for text in apart}) > 1
    one, other = model.generate(["a", "a"], temperature=2.0, max_new_tokens=9, seed=5)
    assert (
        one.text == other.text == model.generate("a", temperature=2, max_new_tokens=9, seed=5).text
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"quantize": "int3"}, "quantize int3: expected one of"),
        ({"group_size": 8}, "group_size says how to quantize; add quantize int8"),
        ({"quantize": "int8", "quantize_embeddings": "x"}, "quantize_embeddings x: expected one"),
        ({"quantize": "float16", "group_size": 8}, "group_size is for int8 and int4"),
        ({"dtype": "int8"}, ".* choose dtype float"),
        ({"kv_dtype": "int8"}, "kv_dtype int8: expected one of"),
        ({"task": "text-classification"}, "task 'text-classification': .* has no head"),
        ({"theta": "warm"}, "theta 'warm': expected finite numbers"),
        ({"theta": ["0.5", 1, 1, 1]}, "theta .'0.5', .*: expected finite numbers"),
        ({"theta": [[1, 1], [1]]}, "theta .*: expected finite numbers, as many in every row"),
        ({"theta": float("nan")}, "theta nan: expected finite numbers"),
        ({"theta": lambda token: 1}, "theta is a function, which is for one text"),
    ],
)
def test_refusals_spell_options_as_python_does(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=f"^{told}"):
        tfx.load("gpt2-tiny", backend="numpy", **options)


def test_a_long_prompt_is_an_error_or_is_cut_at_its_beginning(folders: Any) -> None:
    write = tfx.pipeline("text-generation", folders("GPT2LMHeadModel"), backend="numpy")
    long = "the king " * 20
    with pytest.raises(UsageError, match="do not fit the model's 40 positions"):
        write(long)
    [cut] = write(long, truncation=True, max_new_tokens=5, return_full_text=False)
    ids = write.model.encode(long)[-36:]
    assert cut["generated_text"] == write.model.generate(ids, max_new_tokens=5).text
    # where nobody says how many, there are as many as fit
    assert len(write.model.generate("the " * 30).token_ids) == 41 - len(
        write.model.encode("the " * 30)
    )


@pytest.mark.parametrize("quantize", [None, "int8", "float16"])
def test_what_is_saved_is_loaded_again(folders: Any, tmp_path: Path, quantize: str | None) -> None:
    how: dict[str, Any] = {} if quantize is None else {"quantize": quantize}
    if quantize == "int8":
        how["group_size"] = 8
    model = tfx.load(folders("GPT2LMHeadModel"), backend="numpy", **how)
    model.save(tmp_path / "saved")
    again = tfx.load(tmp_path / "saved", backend="numpy")
    np.testing.assert_allclose(again.logits("the"), model.logits("the"), rtol=1e-3, atol=1e-3)
    if quantize is None:
        reference = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "saved")
        found = reference(torch.tensor([model.encode("the")])).logits[0].detach().numpy()
        np.testing.assert_allclose(model.logits("the"), found, rtol=1e-4, atol=1e-4)
    with pytest.raises(WeightsError, match="not empty"):
        model.save(tmp_path / "saved")


# ---- the heads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [None, "multi_label_classification", "regression"])
def test_text_classification_is_that_of_transformers(
    folders: Any, backend: Backend, problem: str | None
) -> None:
    kind = "GPT2ForSequenceClassification"
    folder = folders(kind, problem_type=problem, num_labels=1 if problem == "regression" else 3)
    ours = tfx.pipeline("text-classification", folder, backend=backend)
    other = theirs("text-classification", kind, folder)
    assert_alike(ours(TEXTS[0]), other(TEXTS[0]))
    assert_alike(ours(TEXTS), other(TEXTS))
    assert_alike(ours(TEXTS[0], top_k=2), other(TEXTS[0], top_k=2))
    assert_alike(ours(TEXTS, top_k=None), other(TEXTS, top_k=None))
    assert_alike(list(ours(iter(TEXTS), batch_size=2)), other(TEXTS))
    with pytest.raises(UsageError, match=r"input 1: .*truncation=True"):
        ours(["a", "king " * 30])
    long = "king " * 30
    assert_alike(ours(long, truncation=True), other(long, truncation=True, max_length=40))


@pytest.mark.parametrize("labels", [LABELS, {0: "B-PER", 1: "I-PER"}])
def test_token_classification_is_that_of_transformers(
    folders: Any, backend: Backend, labels: dict[int, str]
) -> None:
    kind = "GPT2ForTokenClassification"
    folder = folders(kind, id2label=labels)
    ours = tfx.pipeline("token-classification", folder, backend=backend)
    for strategy in ("none", "simple"):
        for ignored in (["O"], []):
            more = {"aggregation_strategy": strategy, "ignore_labels": ignored}
            other = theirs("token-classification", kind, folder, **more)
            for text in TEXTS:
                found, wanted = ours(text, **more), other(text)
                for entity in wanted:
                    # theirs are spelled in the tokenizer's alphabet, or decoded without places
                    entity["word"] = text[entity["start"] : entity["end"]]
                    entity["score"] = float(entity["score"])
                assert_alike(found, wanted)
            assert_alike(ours(TEXTS, **more), [ours(text, **more) for text in TEXTS])
    assert ours("") == []


def answered(folder: Path, **given: Any) -> dict[str, Any]:
    """What `tfx run --task` says."""
    report: Any = Listener()
    return run(PRESETS["gpt2"], RunSettings(weights=folder, **given), NumpyBackend(), report)


def test_words_have_the_tag_of_the_token_that_was_trained(folders: Any) -> None:
    folder = folders("GPT2ForTokenClassification", id2label=LABELS)
    tag = tfx.pipeline("token-classification", folder, backend="numpy", ignore_labels=[])
    wanted = answered(folder, task="token-classification", prompt=TEXTS[2])
    groups = tag(TEXTS[2], aggregation_strategy="first")
    words = [word for group in groups for word in group["word"].replace(",", " ,").split()]
    assert "".join(words) == "".join(wanted["tokens"])
    kinds = [t.removeprefix("B-").removeprefix("I-") for t in wanted["tags"]]
    assert {group["entity_group"] for group in groups} == set(kinds)
    for ignored in ("O", None, 5):
        with pytest.raises(UsageError, match=f"ignore_labels {ignored!r}: expected a list of tags"):
            tag(TEXTS[2], ignore_labels=ignored)


QUESTION, CONTEXT = (
    "who?",
    "the king in a tower, the queen in there. né, a thin hymn in the rain, again.",
)


def qa_by_hand(folder: Path, model: LanguageModel, options: dict[str, Any]) -> dict[str, Any]:
    """The best answer by trying every stretch of every window, with transformers' scores."""
    reference = transformers.GPT2ForQuestionAnswering.from_pretrained(folder).eval()
    question, context = model.encode(QUESTION), model.encode(CONTEXT)
    room = 40 - len(question) - 1
    step = room - options["doc_stride"]
    best: dict[str, Any] = {"score": -1.0}
    first = 0
    while True:
        part = context[first : first + room]
        with torch.no_grad():
            out = reference(torch.tensor([[*question, *part, END]]))
        here = slice(len(question), len(question) + len(part))
        starts = torch.softmax(out.start_logits[0, here].double(), -1).tolist()
        ends = torch.softmax(out.end_logits[0, here].double(), -1).tolist()
        for i in range(len(part)):
            for j in range(i, min(len(part), i + options["max_answer_len"])):
                text = model.decode(part[i : j + 1])
                if starts[i] * ends[j] > best["score"] and text.strip():
                    begin = len(model.decode(context[: first + i]))
                    begin += len(text) - len(text.lstrip())
                    answer = text.strip()
                    best = {
                        "score": starts[i] * ends[j],
                        "start": begin,
                        "end": begin + len(answer),
                        "answer": answer,
                    }
        if first + room >= len(context):
            return best
        first += step


@pytest.mark.parametrize(("doc_stride", "max_answer_len"), [(5, 1), (5, 4), (20, 15)])
def test_answers_are_the_best_of_all_stretches(
    folders: Any, backend: Backend, doc_stride: int, max_answer_len: int
) -> None:
    folder = folders("GPT2ForQuestionAnswering")
    ask = tfx.pipeline("question-answering", folder, backend=backend)
    options = {"doc_stride": doc_stride, "max_answer_len": max_answer_len}
    wanted = qa_by_hand(folder, ask.model, options)
    found = ask(question=QUESTION, context=CONTEXT, **options)
    assert_alike(found, wanted)
    assert CONTEXT[found["start"] : found["end"]] == found["answer"]
    asked = [{"question": QUESTION, "context": text} for text in (CONTEXT, "the king")]
    one, other = ask(asked, top_k=3, **options)
    assert_alike(one[0], wanted)
    scores = [answer["score"] for answer in one]
    assert scores == sorted(scores, reverse=True)
    assert len({(x["start"], x["end"]) for x in one}) == 3
    assert all("the king"[x["start"] : x["end"]] == x["answer"] for x in other)
    possible = ask(asked[1], handle_impossible_answer=True, top_k=50)
    assert sum(answer["answer"] == "" for answer in possible) == 1


def test_a_pipeline_answers_as_the_command_does(folders: Any) -> None:
    folder = folders("GPT2ForQuestionAnswering")
    ask = tfx.pipeline("question-answering", folder, backend="numpy", handle_impossible_answer=True)
    context = "the king in a tower"
    found = answered(folder, task="question-answering", prompt=QUESTION, context=context)
    wanted = ask(question=QUESTION, context=context)
    assert {key: found[key] for key in wanted} == pytest.approx(wanted)


def test_a_question_without_context_or_too_long_is_refused(folders: Any) -> None:
    ask = tfx.pipeline("question-answering", folders("GPT2ForQuestionAnswering"), backend="numpy")
    for given, told in (
        ({"question": "who?"}, "context is None"),
        ({"question": "king " * 10, "context": "a"}, r"the question has .* tokens"),
    ):
        with pytest.raises(UsageError, match=told):
            ask(given)
    for call, told in (
        (lambda: ask(7), "expected question= and context="),
        (lambda: ask("who?"), "there is no context; expected question=TEXT and context=TEXT"),
        (lambda: ask(["who?", "what?"]), "input 0: expected an object with question and context"),
        (lambda: ask(context="a"), "there is no question; expected question=TEXT"),
        (lambda: ask(question=["a", "b"], context=["c"]), "2 questions and 1 contexts"),
        (lambda: ask({"question": "a"}, context="c"), "question is {'question': 'a'}"),
        (lambda: ask([], question="a", context="c"), "not both"),
        (lambda: ask("a", "b", topk=1), "no option 'topk'. Did you mean 'top_k'"),
    ):
        with pytest.raises(UsageError, match=told):
            call()


def test_ways_to_ask(folders: Any) -> None:
    """Those of transformers."""
    ask = tfx.pipeline("question-answering", folders("GPT2ForQuestionAnswering"), backend="numpy")
    one, other = "the king in a tower", "the queen"
    both = [{"question": QUESTION, "context": text} for text in (one, other)]
    wanted = ask(both)
    assert ask(question=QUESTION, context=one) == ask(QUESTION, one) == ask(both[0])
    assert_alike(ask(QUESTION, one), wanted[0])
    assert ask(QUESTION, [one, other]) == wanted
    assert ask([QUESTION, QUESTION], context=[one, other]) == wanted
    same = ask(question=[QUESTION, QUESTION], context=one)
    assert_alike(same[1], wanted[0])


def test_a_question_that_leaves_no_room_is_refused_by_the_command(folders: Any) -> None:
    folder = folders("GPT2ForQuestionAnswering")
    for asked, told in (
        ({"prompt": "the king " * 30, "context": "a"}, "the question has .* expected at most 20"),
        ({"prompt": QUESTION, "context": " "}, "context is empty; expected some text"),
    ):
        with pytest.raises(DataError, match=told):
            answered(folder, task="question-answering", **asked)


def test_heads_are_saved_and_give_features(folders: Any, tmp_path: Path) -> None:
    folder = folders("GPT2ForSequenceClassification", num_labels=3)
    model = tfx.load(folder, backend="numpy", task="text-classification")
    with pytest.raises(UsageError, match="no language model"):
        model.generate("a")
    model.save(tmp_path / "saved")
    ours, again = (
        tfx.pipeline("text-classification", path, backend="numpy")(TEXTS, top_k=None)
        for path in (folder, tmp_path / "saved")
    )
    assert ours == again
    states = tfx.pipeline("feature-extraction", folder, backend="numpy")("the king")
    other = np.array(theirs("feature-extraction", "GPT2Model", folder)("the king"))[0]
    np.testing.assert_allclose(states, other, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match=r"^quantize is for language models"):
        tfx.load(folder, backend="numpy", task="text-classification", quantize="int8")


def test_a_checkpoint_without_tokenizer_takes_ids(tmp_path: Path) -> None:
    model = tfx.load(write_gpt2(tmp_path / "bare", tokenizer=False), backend="numpy")
    assert len(model.generate([1, 2, 3], max_new_tokens=4).token_ids) == 4
    with pytest.raises(UsageError, match="without a tokenizer"):
        model.generate("text")
    with pytest.raises(UsageError, match="without a tokenizer"):
        tfx.pipeline("text-generation", model)
