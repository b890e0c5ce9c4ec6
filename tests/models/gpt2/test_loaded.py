"""What is inside a GPT-2 that `tfx.load` gave: as transformers shows it, under theta, with fewer
heads, explained; and the like of each head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optional import torch
from transformers_folders import write_transformers

import tfx
from tfx.core.backend import Backend
from tfx.core.errors import ShapeError, TfxError, UsageError

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.usefixtures("calm")

TEXTS = ["the king in there", "a", "né, the other thin theatre!"]
LAYERS, HEADS = 2, 4
LOST = {0: [1, 3], 1: [0]}
BY_HEAD = np.array([[0.2, 1.0, 1.7, 0.0], [0.4, 0.9, 0.1, 1.1]])
QUICK = pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def folder(kind: str, **options: Any) -> Path:
        if kind not in made:
            made[kind] = write_transformers(
                tmp_path_factory.mktemp(kind), kind, n_head=HEADS, **options
            )
        return made[kind]

    return folder


@pytest.fixture
def folder(folders: Any) -> Path:
    return Path(folders("GPT2LMHeadModel"))


def theirs(kind: str, folder: Path, **options: Any) -> Any:
    return getattr(transformers, kind).from_pretrained(
        folder, attn_implementation="eager", **options
    )


def silent(lost: dict[int, list[int]] = LOST) -> Any:
    mask = np.ones((LAYERS, HEADS))
    for layer, heads in lost.items():
        mask[layer, heads] = 0
    return mask


# ---- called --------------------------------------------------------------------------------------


def assert_shown_alike(found: Any, expected: Any, seen: Any) -> None:
    """Where there is no padding."""
    np.testing.assert_array_equal(found.attention_mask, seen)
    np.testing.assert_allclose(
        found.logits[seen], expected.logits.numpy()[seen], rtol=1e-4, atol=1e-4
    )
    assert len(found.hidden_states) == len(expected.hidden_states) == LAYERS + 1
    for ours, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        np.testing.assert_allclose(ours[seen], other.numpy()[seen], rtol=1e-4, atol=1e-4)
    assert len(found.attentions) == len(expected.attentions) == LAYERS
    for ours, other in zip(found.attentions, expected.attentions, strict=True):
        rows = seen[:, None, :].repeat(HEADS, 1)
        np.testing.assert_allclose(ours[rows], other.numpy()[rows], rtol=1e-4, atol=1e-5)


def test_a_call_is_that_of_transformers(folder: Path, backend: Backend) -> None:
    """Texts of several lengths, one text, and a batch that transformers padded on the left."""
    model, reference = tfx.load(folder, backend=backend), theirs("GPT2LMHeadModel", folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    show = {"output_attentions": True, "output_hidden_states": True}
    for side in ("right", "left"):
        tokenizer.padding_side = side
        batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        with torch.no_grad():
            expected = reference(
                ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), **show
            )
        seen = mask.numpy() == 1
        assert_shown_alike(model(ids, attention_mask=mask, **show), expected, seen)
        if side == "right":
            assert_shown_alike(model(TEXTS, **show), expected, seen)
    with torch.no_grad():
        expected = reference(torch.tensor([model.encode(TEXTS[2])]), **show)
    assert_shown_alike(
        model(TEXTS[2], **show), expected, np.ones((1, len(expected.logits[0])), bool)
    )
    plain = model(model.encode(TEXTS[2]))
    assert plain.hidden_states is plain.attentions is plain.mc_logits is None
    np.testing.assert_allclose(plain.logits, expected.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"texts": []}, "there are no texts"),
        ({"texts": ["a", 3]}, "expected a text"),
        ({"texts": ["a", "the " * 50]}, "text 1: 51 tokens do not fit the model's 40 positions"),
        ({"texts": [[1, 999]]}, "token 999 is none of the model's"),
        ({"texts": [[1.5]]}, "expected a text, token ids, or a list"),
        ({"texts": [[["a"]]]}, "not a mixture"),
        ({"texts": [["a"], "b"]}, "not a mixture"),
        ({"texts": [["a"], 3]}, "expected a text, token ids, or a list"),
        ({"texts": np.array(3)}, "expected whole numbers"),
        ({"texts": np.array([1.5])}, "expected a text, token ids, or a list"),
        ({"texts": np.zeros((1, 2))}, "expected whole numbers"),
        ({"texts": [[1, 2]], "attention_mask": [[1]]}, r"attention_mask is int64 \(1, 1\)"),
        ({"texts": [[1, 2]], "attention_mask": [[1, 2]]}, "one 1 or 0 for each"),
        ({"texts": [[1, 2], [1]], "attention_mask": [[1, 1], [1, 0]]}, "of one length"),
        ({"texts": "a", "head_mask": np.ones(3)}, r"head_mask has the shape \(3,\)"),
        ({"texts": "a", "head_mask": "all"}, "head_mask 'all': expected finite numbers"),
        ({"texts": "a", "theta": [1, 2, 3]}, r"theta has the shape \(3,\)"),
    ],
)
def test_what_cannot_be_read(folder: Path, given: dict[str, Any], told: str) -> None:
    with pytest.raises(TfxError, match=told) as caught:
        tfx.load(folder, backend="numpy")(**given)
    assert "\n" not in str(caught.value)


def test_a_plugin_without_such_things_is_named(tmp_path: Path) -> None:
    from tfx.core.pipelines.language_model import LanguageModel
    from tfx.core.pipelines.loadable import Loaded

    bare = tfx.load("gpt2-tiny", backend="numpy")
    model = LanguageModel("acme", Loaded(bare.backend, 8, bare.causal, bare.codec))
    for call, to in (
        (lambda: model("a"), "be called"),
        (lambda: model.generate("a", theta=0.5), "be steered by theta or a head mask"),
        (lambda: model.prune_heads({0: [0]}), "lose heads"),
        (lambda: model.head_importance("a b"), "weigh its heads"),
        (lambda: model.explain("a"), "be explained"),
        (lambda: model.save(tmp_path / "new"), "be saved"),
    ):
        with pytest.raises(UsageError, match=f"^acme cannot {to} from Python: its plugin does not"):
            call()


# ---- theta ---------------------------------------------------------------------------------------


def greedy(model: Any, prompt: list[int], count: int, theta: Any) -> list[int]:
    """The likeliest tokens, each computed anew from the whole text so far."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(ids, theta=theta(len(ids))).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_theta_of_a_generation_is_that_of_plain_computation(folder: Path, backend: Backend) -> None:
    """By head, and another one at each step: as if each token's queries had been multiplied by its
    own theta, in prompts of several lengths."""
    model = tfx.load(folder, backend=backend, dtype="float64")
    prompts = [model.encode(TEXTS[0]), model.encode("a")]
    steps = np.random.default_rng(3).uniform(0, 1.5, (4, LAYERS, HEADS))
    told: list[int] = []

    def at(step: int) -> Any:
        told.append(step)
        return steps[step]

    for theta, spread in ((BY_HEAD, lambda _: BY_HEAD), (at, steps.__getitem__)):
        found = model.generate(prompts, max_new_tokens=4, theta=theta)
        for prompt, text in zip(prompts, found, strict=True):
            first = len(prompt) - 1

            def of_token(length: int, first: int = first, spread: Any = spread) -> Any:
                return lambda token: spread(max(0, token - first))

            assert text.token_ids == greedy(model, prompt, 4, of_token)
        assert found[0].text == "".join(model.stream(prompts[0], max_new_tokens=4, theta=theta))
    assert told == [*range(4), *range(4)]
    assert model.generate(prompts[0], max_new_tokens=4).token_ids != found[0].token_ids


@QUICK
def test_theta_at_loading_is_that_of_each_call(folder: Path, backend: Backend) -> None:
    plain = tfx.load(folder, backend=backend)
    for theta in (0.3, [0.2, 0.7], BY_HEAD):
        model = tfx.load(folder, backend=backend, theta=theta)
        expected = plain(TEXTS[0], theta=theta).logits
        np.testing.assert_allclose(model(TEXTS[0]).logits, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(model.logits(TEXTS[0]), expected[0], rtol=1e-4, atol=1e-4)
        text = plain.generate("a", max_new_tokens=6, theta=theta).text
        assert model.generate("a", max_new_tokens=6).text == text
        write = tfx.pipeline("text-generation", plain, max_new_tokens=6, theta=theta)
        assert write("a")[0]["generated_text"] == "a" + text
    with pytest.raises(ShapeError, match=r"theta has the shape \(3,\); expected \(\) or \(2,\) or"):
        tfx.load(folder, backend=backend, theta=[1, 1, 1])
    with pytest.raises(UsageError, match="theta None: expected finite numbers"):
        plain.generate("a", theta=lambda step: None)


def test_writing_is_captured_once_for_all_masks_and_thetas() -> None:
    model = tfx.load("gpt2-tiny", backend="numpy")
    step = model.causal._reading._step  # type: ignore[attr-defined]
    masks = [np.eye(4)[head] for head in range(3)]
    texts = [model.generate("a", max_new_tokens=4, head_mask=mask).token_ids for mask in masks]
    assert len(step._kept) == 1
    assert texts[0] != texts[1]
    fresh = tfx.load("gpt2-tiny", backend="numpy")
    assert texts[2] == fresh.generate("a", max_new_tokens=4, head_mask=masks[2]).token_ids
    for theta in (0.2, 0.4):
        model.generate("a", max_new_tokens=4, theta=theta)
    assert len(step._kept) == 2  # and one for theta


@QUICK
def test_a_head_mask_holds_while_text_is_written(folder: Path, backend: Backend) -> None:
    model, mask = tfx.load(folder, backend=backend, theta=0.8), silent()
    options = {"max_new_tokens": 6, "head_mask": mask}
    texts = [model.generate("a", **options), model.generate("a", theta=BY_HEAD, **options)]
    write = tfx.pipeline("text-generation", model, **options)
    assert write("a")[0]["generated_text"] == "a" + texts[0].text
    assert "".join(model.stream("a", **options)) == texts[0].text
    plain = model.generate("a", max_new_tokens=6).token_ids
    model.prune_heads(LOST)
    pruned = [model.generate("a", max_new_tokens=6, theta=theta) for theta in (None, BY_HEAD)]
    assert [x.token_ids for x in texts] == [x.token_ids for x in pruned]
    assert texts[0].token_ids != plain
    with pytest.raises(ShapeError, match=r"head_mask has the shape \(3,\)"):
        model.generate("a", head_mask=[1, 1, 1])


# ---- pruned heads --------------------------------------------------------------------------------


def test_heads_go_in_place_and_stay_away(folder: Path, backend: Backend, tmp_path: Path) -> None:
    model = tfx.load(folder, backend=backend)
    expected = model(TEXTS, head_mask=silent(), theta=BY_HEAD).logits
    before = tfx.pipeline("perplexity", model)
    loss = before(TEXTS[2])["loss"]
    assert model.prune_heads({0: [1]}) is None
    model.prune_heads({np.int64(layer): np.array(heads) for layer, heads in LOST.items()})
    found = model(TEXTS, theta=BY_HEAD, output_attentions=True)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-4)
    assert [x.shape[1] for x in found.attentions] == [2, 3]
    assert before(TEXTS[2])["loss"] != loss  # what was made of it knows
    model.save(tmp_path / "small")
    about = json.loads((tmp_path / "small/config.json").read_text())
    assert about["pruned_heads"] == {"0": [1, 3], "1": [0]}
    again = tfx.load(tmp_path / "small", backend=backend)
    np.testing.assert_allclose(
        again(TEXTS, theta=BY_HEAD).logits, found.logits, rtol=1e-4, atol=1e-4
    )
    texts = [x.text for x in (m.generate("a", max_new_tokens=6) for m in (model, again))]
    assert texts[0] == texts[1]
    with pytest.raises(UsageError, match="layer 0 has no head 9; heads are 0 to 3"):
        model.prune_heads({0: [9]})
    with pytest.raises(UsageError, match="quantize what is pruned already"):
        tfx.load(folder, backend=backend, quantize="float16").prune_heads(LOST)
    wrong: Any
    for wrong in [1], {0: 1}, {"0": [1]}, {0: ["1"]}, {0: [True, False]}, {True: [1]}:
        with pytest.raises(UsageError, match="expected numbers by layer"):
            model.prune_heads(wrong)


@QUICK
def test_a_pruned_model_is_saved_in_fewer_bits(
    folder: Path, backend: Backend, tmp_path: Path
) -> None:
    model = tfx.load(folder, backend=backend)
    model.prune_heads(LOST)
    model.save(tmp_path / "small")
    tfx.load(tmp_path / "small", backend=backend, quantize="int8", group_size=2).save(
        tmp_path / "bits"
    )
    found = tfx.load(tmp_path / "bits", backend=backend).logits("a")
    np.testing.assert_allclose(found, model.logits("a"), rtol=0.05, atol=0.05)


def slopes(loss: Any) -> Any:
    """|d loss / d mask| by finite differences."""
    found = np.zeros((LAYERS, HEADS))
    for place in np.ndindex(found.shape):
        ends = []
        for step in (1e-5, -1e-5):
            mask = np.ones(found.shape)
            mask[place] += step
            ends.append(loss(mask))
        found[place] = abs(ends[0] - ends[1]) / 2e-5
    return found


def cross_entropy(logits: Any, targets: Any) -> float:
    return float(torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(targets)))


@QUICK
def test_importance_is_that_of_finite_differences(folder: Path, backend: Backend) -> None:
    model = tfx.load(folder, backend=backend, dtype="float64")
    ids = [model.encode(text) for text in (TEXTS[0], TEXTS[2])]
    each = [
        slopes(lambda mask, x=x: cross_entropy(model(x, head_mask=mask).logits[0, :-1], x[1:]))
        for x in ids
    ]
    found = model.head_importance([TEXTS[0], ids[1]])
    np.testing.assert_allclose(found, np.mean(each, 0), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(model.head_importance(TEXTS[0]), each[0], rtol=1e-5, atol=1e-9)
    with pytest.raises(UsageError, match="text 1: it has one token"):
        model.head_importance(["the king", [3]])


# ---- explained -----------------------------------------------------------------------------------


@QUICK
def test_an_explanation_has_the_numbers_of_a_call(folder: Path, backend: Backend) -> None:
    model = tfx.load(folder, backend=backend)
    found = model.explain(TEXTS[0], top_k=2, layers=[1], heads=[0, 2], theta=BY_HEAD)
    out = model(TEXTS[0], theta=BY_HEAD, output_attentions=True)
    assert [(one.layer, one.head) for one in found.attentions] == [(1, 0), (1, 2)]
    for one in found.attentions:
        np.testing.assert_array_equal(one.weights, out.attentions[1][0, one.head])
    ids = model.encode(TEXTS[0])
    assert found.token_ids == tuple(ids)
    assert found.loss == pytest.approx(cross_entropy(out.logits[0, :-1], ids[1:]), rel=1e-5)
    assert {len(said.top) for said in found.predictions} == {2}
    assert len(model.explain(ids).predictions[0].top) == 4
    with pytest.raises(UsageError, match=r"^layers 7: expected numbers from 0 to 1"):
        model.explain("a", layers=[7])
    with pytest.raises(UsageError, match="expected one prompt to explain, not a list"):
        model.explain(["a", "b"])


# ---- heads for something else --------------------------------------------------------------------

TASKS = {
    "text-classification": "GPT2ForSequenceClassification",
    "token-classification": "GPT2ForTokenClassification",
    "question-answering": "GPT2ForQuestionAnswering",
}


@pytest.mark.parametrize("task", TASKS)
def test_the_scores_of_heads_are_those_of_transformers(
    task: str, folders: Any, backend: Backend
) -> None:
    folder = folders(TASKS[task])
    model, reference = tfx.load(folder, backend=backend, task=task), theirs(TASKS[task], folder)
    for text in TEXTS:
        with torch.no_grad():
            expected = reference(
                torch.tensor([model.encode(text)]),
                output_attentions=True,
                output_hidden_states=True,
            )
        found = model(text, output_attentions=True, output_hidden_states=True)
        for name in ("logits", "start_logits", "end_logits"):
            ours, other = getattr(found, name), expected.get(name)
            assert (ours is None) == (other is None)
            if ours is not None:
                np.testing.assert_allclose(ours, other.numpy(), rtol=1e-4, atol=1e-4)
        for name in ("hidden_states", "attentions"):
            for ours, other in zip(getattr(found, name), expected[name], strict=True):
                np.testing.assert_allclose(ours, other.numpy(), rtol=1e-4, atol=1e-4)


@QUICK
@pytest.mark.parametrize("task", TASKS)
def test_heads_are_steered_and_pruned(
    task: str, folders: Any, backend: Backend, tmp_path: Path
) -> None:
    folder = folders(TASKS[task])
    model = tfx.load(folder, backend=backend, task=task)

    def scores(of: Any, **options: Any) -> Any:
        found = of(TEXTS[0], **options)
        return found.start_logits if task == "question-answering" else found.logits

    warm = tfx.load(folder, backend=backend, task=task, theta=BY_HEAD)
    np.testing.assert_allclose(scores(warm), scores(model, theta=BY_HEAD), rtol=1e-6, atol=1e-6)
    assert np.abs(scores(warm) - scores(model)).max() > 1e-3
    asked = {"question": "who?", "context": TEXTS[0]} if task[0] == "q" else TEXTS[0]
    assert tfx.pipeline(task, warm)(asked) != tfx.pipeline(task, model)(asked)
    expected = scores(model, head_mask=silent())
    model.prune_heads(LOST)
    np.testing.assert_allclose(scores(model), expected, rtol=1e-4, atol=1e-4)
    model.save(tmp_path / "small")
    again = tfx.load(tmp_path / "small", backend=backend, task=task)
    np.testing.assert_array_equal(scores(again), scores(model))
    assert tfx.pipeline(task, again)(asked) == tfx.pipeline(task, model)(asked)
    with pytest.raises(UsageError, match=f"have a head for {task} and are no language model"):
        model.explain("a")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "there are no records; expected at least one"),
        ("the king", "expected labelled records, as the model was trained with, not a str"),
        (5, "expected labelled records, .*, not an int"),
        ([{"text": "a", "label": 0}, "b"], "expected labelled records, .*, not a str"),
        ([[1, 2]], "expected labelled records, .*, not a list"),
        ([{"label": 0}], "record 0: there is 'label'; expected 'text'"),
        ([{"text": "a", "label": 0}, {"text": "b"}], "record 1: there is 'text'; expected 'label'"),
        ([{"text": "a", "label": 7}], "record 0: the label '7' is none of the model's"),
        ({"text": 5, "label": 0}, "record 0: text is an int; expected a text"),
    ],
)
def test_importance_is_not_that_of_other_records(folders: Any, given: Any, told: str) -> None:
    folder, task = folders(TASKS["text-classification"]), "text-classification"
    with pytest.raises(TfxError, match=f"^{told}"):
        tfx.load(folder, backend="numpy", task=task).head_importance(given)


@QUICK
def test_importance_to_labels(folders: Any, backend: Backend) -> None:
    folder, task = folders(TASKS["text-classification"]), "text-classification"
    model = tfx.load(folder, backend=backend, task=task, dtype="float64")
    records = [{"text": TEXTS[0], "label": "LABEL_1"}, {"text": TEXTS[2], "label": "LABEL_0"}]

    def loss(mask: Any, record: Any) -> float:
        logits = model(record["text"], head_mask=mask).logits
        return cross_entropy(logits, [int(record["label"][-1])])

    each = [slopes(lambda mask, record=record: loss(mask, record)) for record in records]
    found = model.head_importance(records)
    np.testing.assert_allclose(found, np.mean(each, 0), rtol=1e-5, atol=1e-9)
    model.prune_heads(LOST)
    assert ((model.head_importance(records[1]) == 0) == (silent() == 0)).all()
    with pytest.raises(TfxError, match=r"record 1: .*none"):
        model.head_importance([records[0], {"text": "a", "label": "none"}])


def test_choices_are_those_of_transformers(folders: Any, backend: Backend, tmp_path: Path) -> None:
    """Scores of both heads; and it goes on from texts as a language model does."""
    folder = folders("GPT2DoubleHeadsModel", num_labels=1)
    model = tfx.load(folder, backend=backend, task="multiple-choice")
    choices = [["the king", "the other"], ["a thin", "in there"]]
    groups = [[model.encode(text) for text in texts] for texts in choices]
    width = max(len(row) for group in groups for row in group)
    ids = np.array([[row + [0] * (width - len(row)) for row in group] for group in groups])
    last = np.array([[len(row) - 1 for row in group] for group in groups])
    with torch.no_grad():
        expected = theirs("GPT2DoubleHeadsModel", folder)(
            torch.tensor(ids), mc_token_ids=torch.tensor(last)
        )
    found = model(choices)
    np.testing.assert_allclose(found.mc_logits, expected.mc_logits, rtol=1e-4, atol=1e-4)
    seen = found.attention_mask
    assert seen.shape == ids.shape and (seen.sum(-1) == last + 1).all()
    np.testing.assert_allclose(
        found.logits[seen], expected.logits.numpy()[seen], rtol=1e-4, atol=1e-4
    )
    plain = tfx.load(folder, backend=backend)
    assert model.generate("a", max_new_tokens=5).text == plain.generate("a", max_new_tokens=5).text
    model.prune_heads(LOST)
    model.save(tmp_path / "small")
    again = tfx.load(tmp_path / "small", backend=backend, task="multiple-choice")
    np.testing.assert_allclose(
        again(choices).mc_logits, model(choices).mc_logits, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(UsageError, match="choices are as many for each question"):
        model([["a", "b"], ["c"]])
    with pytest.raises(ShapeError, match=r"expected whole numbers \(questions, choices, tokens\)"):
        model(["a", "b"])


def test_weights_with_a_head_say_how_to_load_them(folders: Any) -> None:
    folder = folders(TASKS["question-answering"])
    with pytest.raises(UsageError, match="no language model; load it with task='question-answer"):
        tfx.load(folder, backend="numpy")
    with pytest.raises(
        UsageError, match=r"^task 'token-classification': .* a head for question-an"
    ):
        tfx.load(folder, backend="numpy", task="token-classification")


def test_a_head_beside_the_language_model_is_left_out_and_named(
    folders: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = tfx.load(folders("GPT2DoubleHeadsModel"), backend="numpy")
    assert "head for multiple-choice is left out; task='multiple-choice' uses it" in caplog.text
    assert model("a").mc_logits is None
