"""The heads of GPT-2 on every backend give what transformers' give: scores, losses, gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from gpt2_heads import HeadReference, Texts, drawn, our_slopes, texts
from gpt2_parity import GRADIENTS, LOGITS, assert_near
from optional import torch

from tfx.core.autograd import Autograd
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dropout import Dropout
from tfx.core.errors import UsageError
from tfx.core.tensor import Tensor
from tfx.models.gpt2.head_losses import (
    NO_LABEL,
    class_loss,
    next_token_loss,
    span_loss,
    text_loss,
)
from tfx.models.gpt2.heads import Head, Summary, choice_logits, last_token, text_logits
from tfx.models.gpt2.model import Params
from tfx.models.gpt2.passing import Pass

pytestmark = pytest.mark.usefixtures("calm")

SIDES = ("none", "right", "left")
BATCHES = list(enumerate([*SIDES, "right", "left"]))
"""Where a batch has its padding, each by the number of the configuration that reads it."""
PAD = 96


@cache
def made(task: Any, draw: int = 0, **options: Any) -> HeadReference:
    return HeadReference(task, **drawn(draw), **options)


@pytest.fixture(params=["core", "native"])
def autograd(request: pytest.FixtureRequest, backend: Backend) -> Autograd:
    if request.param == "native" and not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    return request.param  # type: ignore[no-any-return]


def on(backend: Backend, array: Any) -> Tensor:
    array = np.asarray(array)
    return tensor(array, backend, backend.index_dtype if array.dtype.kind == "i" else None)


def assert_same_slopes(
    reference: HeadReference,
    backend: Backend,
    autograd: Autograd,
    loss: Callable[[Params], Tensor],
    theirs: Any,
) -> None:
    """Loss and gradients. What moves all scores alike changes no loss: such a gradient is nothing
    but rounding, in both."""
    expected, value = reference.slopes_of(theirs), theirs.item()
    rounding = 1e-6 * max(np.abs(slope).max() for slope in expected.values())
    found = our_slopes(reference.on(backend), loss, autograd)
    assert found[0] == pytest.approx(value, rel=GRADIENTS)
    assert found[1].keys() == expected.keys()
    for name, slope in found[1].items():
        if np.abs(expected[name]).max() < rounding:
            assert np.abs(slope).max() < rounding, name
        else:
            assert_near(slope, expected[name], GRADIENTS, f"gradient by {name}")


# ---- classification of texts ---------------------------------------------------------------------

PROBLEMS: dict[str, tuple[int, Any]] = {
    "regression": (1, np.float32([0.5, -1, 2, 0.1])),
    "several numbers": (3, np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)),
    "single_label_classification": (5, np.array([0, 4, 2, 2])),
    "multi_label_classification": (
        3,
        np.float32([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
    ),
}


@pytest.mark.parametrize(("draw", "side"), BATCHES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_texts(problem: str, draw: int, side: str, backend: Backend, autograd: Autograd) -> None:
    count, labels = PROBLEMS[problem]
    named = "regression" if problem == "several numbers" else problem
    how = {"num_labels": count, "problem_type": named, "pad_token_id": PAD}
    reference, batch = made("text-classification", draw, **how), texts(side, PAD)
    out = reference.model(**batch.for_transformers, labels=torch.tensor(labels))
    found = reference.scores(reference.on(backend), batch, backend).numpy()
    assert_near(found, out.logits.detach().numpy(), LOGITS, "logits")

    def loss(p: Params) -> Tensor:
        scores = reference.scores(p, batch, backend)
        given = on(backend, labels)
        return text_loss(scores, given, reference.head.problem(given))

    assert_same_slopes(reference, backend, autograd, loss, out.loss)


@pytest.mark.parametrize("problem", [name for name in PROBLEMS if name != "several numbers"])
def test_a_problem_nobody_named_is_what_transformers_takes_it_for(
    problem: str, backend: Backend
) -> None:
    count, labels = PROBLEMS[problem]
    head = Head("text-classification", labels=tuple("abcdef"[:count]))
    assert head.problem(on(backend, labels)) == problem


def test_no_padding_token_is_needed(backend: Backend) -> None:
    """Where transformers refuses a batch."""
    reference, batch = made("text-classification", num_labels=3), texts("left")
    with pytest.raises(ValueError, match="no padding token"):
        reference.model(**batch.for_transformers)
    for side in ("left", "right"):
        batch = texts(side)
        found = reference.scores(reference.on(backend), batch, backend).numpy()
        assert batch.visible is not None
        for row, (ids, seen) in enumerate(zip(batch.ids, batch.visible, strict=True)):
            alone = reference.model(input_ids=torch.tensor(ids[seen][None])).logits[0]
            assert_near(found[row], alone.detach().numpy(), LOGITS, f"text {row}, {side}")


def test_a_text_may_end_with_the_padding_token(backend: Backend) -> None:
    """Where padding and the end of a text are one token, transformers looks before it."""
    reference = made("text-classification", num_labels=3, pad_token_id=PAD)
    ids = texts("none").ids.copy()
    ids[0, -2:], ids[1, -1], ids[2] = PAD, PAD, PAD
    batch = Texts(ids)
    expected = reference.model(**batch.for_transformers).logits.detach().numpy()
    found = reference.scores(reference.on(backend), batch, backend).numpy()
    assert_near(found, expected, LOGITS, "logits")


def test_the_last_token(backend: Backend) -> None:
    ids = on(backend, [[9, 1, 2, 9], [9, 9, 9, 9], [1, 9, 9, 9], [9, 9, 9, 1]])
    seen = on(backend, np.array([[0, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1]], bool))
    assert last_token(ids, None).tolist() == [3, 3, 3, 3]
    assert last_token(ids, seen).tolist() == [3, 3, 2, 3]
    assert last_token(ids, None, 9).tolist() == [2, 0, 0, 3]
    assert last_token(ids, seen, 9).tolist() == [2, 2, 0, 3]


# ---- classification of tokens --------------------------------------------------------------------


@pytest.mark.parametrize(("draw", "side"), BATCHES)
def test_tokens(draw: int, side: str, backend: Backend, autograd: Autograd) -> None:
    reference, batch = made("token-classification", draw, num_labels=4), texts(side)
    labels = np.random.default_rng(2).integers(0, 4, batch.ids.shape)
    labels[0] = NO_LABEL
    if batch.visible is not None:
        labels[~batch.visible] = NO_LABEL
    out = reference.model(**batch.for_transformers, labels=torch.tensor(labels))
    found = reference.scores(reference.on(backend), batch, backend).numpy()
    seen = np.ones(batch.ids.shape, bool) if batch.visible is None else batch.visible
    assert_near(found[seen], out.logits.detach().numpy()[seen], LOGITS, "logits")

    def loss(p: Params) -> Tensor:
        return class_loss(reference.scores(p, batch, backend), on(backend, labels))

    assert_same_slopes(reference, backend, autograd, loss, out.loss)


# ---- answers to questions ------------------------------------------------------------------------


def spans(side: str) -> tuple[Texts, HostArray, HostArray]:
    """Texts with the places of their answers; that of one text begins nowhere."""
    batch = texts(side)
    width = batch.ids.shape[1]
    if batch.visible is None:
        return batch, np.array([2, 5, width, 0]), np.array([3, 5, 11, width + 7])
    before = batch.visible.argmax(-1)
    return batch, before + np.array([2, 0, 11, 0]), before + np.array([8, 3, 11, 0])


@pytest.mark.parametrize(("draw", "side"), BATCHES)
def test_spans(draw: int, side: str, backend: Backend, autograd: Autograd) -> None:
    """Padding is no answer; transformers lets it compete, which is taken back here."""
    reference, (batch, starts, ends) = made("question-answering", draw), spans(side)
    where = {"start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}
    out = reference.model(**batch.for_transformers, **where)
    seen = np.ones(batch.ids.shape, bool) if batch.visible is None else batch.visible
    lowest = torch.finfo(torch.float32).min
    theirs = [
        x.masked_fill(~torch.tensor(seen), lowest) for x in (out.start_logits, out.end_logits)
    ]
    found = reference.scores(reference.on(backend), batch, backend)
    for mine, their, which in zip(found, theirs, ("first", "last"), strict=True):
        scores = mine.numpy()
        assert_near(scores[seen], their.detach().numpy()[seen], LOGITS, f"{which} tokens")
        assert (scores[~seen] < -1e30).all()

    def loss(p: Params) -> Tensor:
        scores = reference.scores(p, batch, backend)
        return span_loss(*scores, on(backend, starts), on(backend, ends))

    entropy, width = torch.nn.functional.cross_entropy, seen.shape[1]
    expected = (
        entropy(theirs[0], torch.tensor(starts).clamp(max=width), ignore_index=width)
        + entropy(theirs[1], torch.tensor(ends).clamp(max=width), ignore_index=width)
    ) / 2
    if side == "none":
        torch.testing.assert_close(out.loss, expected)
    assert_same_slopes(reference, backend, autograd, loss, expected)


# ---- choices -------------------------------------------------------------------------------------

CHOICE = {
    "usual": {},
    "tanh": {"summary_activation": "tanh"},
    "gelu": {"summary_activation": "gelu_new"},
    "no layer": {"summary_use_proj": False},
    "no labels": {"summary_proj_to_labels": False, "summary_activation": "tanh"},
    "head of its own": {"tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", CHOICE)
def test_choices(name: str, backend: Backend) -> None:
    """Two texts of two choices, judged by their last tokens or by others."""
    reference = made("multiple-choice", **CHOICE[name])
    batch = texts("none").reshaped(2, 2)
    for places in (None, np.array([[3, 0], [13, 7]])):
        given = {} if places is None else {"mc_token_ids": torch.tensor(places)}
        ours = {} if places is None else {"at": on(backend, places)}
        out = reference.model(**batch.for_transformers, **given)
        found = reference.scores(reference.on(backend), batch, backend, **ours)
        assert_near(found[0].numpy(), out.logits.detach().numpy(), LOGITS, "next tokens")
        assert_near(found[1].numpy(), out.mc_logits.detach().numpy(), LOGITS, "choices")


@pytest.mark.parametrize(
    ("name", "draw", "side"),
    [(name, *BATCHES[(i + j) % 5]) for i, name in enumerate(CHOICE) for j in (0, 2)],
)
def test_both_losses(name: str, draw: int, side: str, backend: Backend, autograd: Autograd) -> None:
    reference = made("multiple-choice", draw, **CHOICE[name])
    batch = texts(side)
    seen = np.ones(batch.ids.shape, bool) if batch.visible is None else batch.visible
    last = (seen * np.arange(seen.shape[1])).argmax(-1).reshape(2, 2)
    labels = np.where(seen, batch.ids, NO_LABEL).reshape(2, 2, -1)
    given: dict[str, Any] = {
        "input_ids": torch.tensor(batch.ids).reshape(2, 2, -1),
        "attention_mask": torch.tensor(seen).long().reshape(2, 2, -1),
        "mc_token_ids": torch.tensor(last),
        "labels": torch.tensor(labels),
        "mc_labels": torch.tensor([1, 0]),
    }
    vectors = name.startswith("no ")
    if vectors:
        del given["mc_labels"]
    if side == "left":
        theirs, scores = double_losses(reference, batch, given)
    else:
        out = reference.model(**given)
        theirs, scores = (out.loss, out.mc_loss), out.mc_logits
    of_choice = scores.square().mean() if vectors else theirs[1]

    def loss(p: Params) -> Tensor:
        next_scores, choices = reference.scores(p, batch.reshaped(2, 2), backend)
        chosen = (choices * choices).mean() if vectors else class_loss(choices, on(backend, [1, 0]))
        return chosen + next_token_loss(next_scores, on(backend, labels))

    found = reference.scores(reference.on(backend), batch.reshaped(2, 2), backend)
    assert_near(found[1].numpy(), scores.detach().numpy(), 1e-4, "choices")
    assert_same_slopes(reference, backend, autograd, loss, of_choice + theirs[0])


def double_losses(
    reference: HeadReference, batch: Texts, given: dict[str, Any]
) -> tuple[tuple[Any, Any], Any]:
    """Both losses and the scores of choices, by the parts of transformers' model: the whole takes
    positions of one row only, or of rows without choices."""
    hidden = reference.model.transformer(**batch.for_transformers).last_hidden_state
    hidden = hidden.reshape(2, 2, *hidden.shape[1:])
    scores = reference.model.multiple_choice_head(hidden, given["mc_token_ids"]).squeeze(-1)
    entropy = torch.nn.functional.cross_entropy
    logits, behind = reference.model.lm_head(hidden)[..., :-1, :], given["labels"][..., 1:]
    of_choice = entropy(scores, given["mc_labels"]) if "mc_labels" in given else None
    return (entropy(logits.flatten(0, 2), behind.flatten()), of_choice), scores


@pytest.mark.parametrize("kind", ["last", "first", "mean"])
@pytest.mark.parametrize(("draw", "side"), BATCHES[:3])
def test_summaries(kind: str, draw: int, side: str, backend: Backend, autograd: Autograd) -> None:
    """As transformers documents them; its code, given choices, would look along another axis. Each
    text is summed up as alone."""
    reference, batch = made("multiple-choice", draw, summary_type=kind), texts(side)
    seen = np.ones(batch.ids.shape, bool) if batch.visible is None else batch.visible
    rows = [torch.tensor(ids[seen[i]][None]) for i, ids in enumerate(batch.ids)]
    alone = torch.cat([reference.model(input_ids=ids).mc_logits for ids in rows])

    def scores(p: Params) -> Tensor:
        found: Tensor = reference.scores(p, batch.reshaped(2, 2), backend)[1]
        return found

    found = scores(reference.on(backend)).numpy().reshape(alone.shape)
    assert_near(found, alone.detach().numpy(), 1e-4, "choices")
    assert_same_slopes(
        reference, backend, autograd, lambda p: (scores(p) * scores(p)).sum(), alone.square().sum()
    )


def test_a_summary_that_looks_itself_is_told_nothing(backend: Backend) -> None:
    reference, batch = made("multiple-choice", summary_type="mean"), texts("none").reshaped(2, 2)
    with pytest.raises(UsageError, match="summary_type mean"):
        reference.scores(reference.on(backend), batch, backend, at=on(backend, [[1, 1], [1, 1]]))
    with pytest.raises(UsageError, match=r"texts, choices, tokens"):
        reference.scores(reference.on(backend), texts("none"), backend)


# ---- weights, and dropout ------------------------------------------------------------------------


def test_classes_count_by_their_weights(backend: Backend) -> None:
    rng = np.random.default_rng(3)
    logits, weights = rng.normal(size=(6, 3)).astype(np.float32), np.float32([0.5, 2, 7])
    labels = np.array([0, 1, NO_LABEL, 2, 2, 0])
    present = rng.integers(0, 2, (6, 3)).astype(np.float32)
    functional = torch.nn.functional
    one = functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), torch.tensor(weights)
    )
    ours = class_loss(on(backend, logits), on(backend, labels), on(backend, weights))
    assert ours.item() == pytest.approx(one.item(), rel=1e-5)
    many = functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(present), pos_weight=torch.tensor(weights)
    )
    found = text_loss(
        on(backend, logits),
        on(backend, present),
        "multi_label_classification",
        on(backend, weights),
    )
    assert found.item() == pytest.approx(many.item(), rel=1e-5)


def test_nothing_to_learn_is_no_loss(backend: Backend) -> None:
    for dtype in (np.float16, np.float32):
        logits, rare = on(backend, np.ones((2, 3), dtype)), on(backend, np.array([1, 0, 1], dtype))
        assert class_loss(logits, on(backend, [NO_LABEL, 3])).item() == 0
        assert class_loss(logits, on(backend, [1, 1]), rare).item() == 0


def test_a_large_score_does_not_overflow(backend: Backend) -> None:
    logits = on(backend, np.float32([[200, -200, 0]]))
    labels = on(backend, np.float32([[0, 1, 1]]))
    found = text_loss(logits, labels, "multi_label_classification")
    assert found.item() == pytest.approx((200 + 200 + np.log(2)) / 3)


def test_dropout_is_where_transformers_has_it(backend: Backend) -> None:
    """Before the classifier of tokens, and before the layer of choices; nowhere else in a head."""
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    batch = texts("none")
    through = Pass(dropout=Dropout((1, 2), tensor(0, backend, backend.index_dtype)))
    for task, dropped in (("text-classification", False), ("multiple-choice", True)):
        reference = made(task, num_labels=2, **quiet)
        p, ids = reference.on(backend), on(backend, batch.ids)
        if task == "text-classification":
            plain, noisy = (
                text_logits(p, reference.config, reference.head, ids, way)
                for way in (Pass(), through)
            )
        else:
            ids = ids.reshape(2, 2, -1)
            plain, noisy = (
                choice_logits(p, reference.config, reference.head, ids, way)
                for way in (Pass(), through)
            )
        assert (np.abs(plain.numpy() - noisy.numpy()).max() > 1e-3) == dropped
    assert Summary().first_dropout == 0.1 and Head("token-classification").dropout == 0.1
