"""A text judged token by token: what each judgement does, and undoing it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from steered import Alphabet, spelled

from tfx.core.errors import NonFiniteError, UsageError
from tfx.core.resonance import RANKED, Bounds, Resonance


@pytest.fixture
def model() -> Alphabet:
    return Alphabet()


def session_of(model: Alphabet, **given: Any) -> Resonance:
    return Resonance(model, spelled, [0, 1], **given)


def press(session: Resonance, keys: str) -> None:
    for key in keys:
        {"s": session.satisfied, "n": session.not_satisfied, "u": session.undo}[key]()


def test_a_token_is_shown_with_what_else_there_is(model: Alphabet) -> None:
    session = session_of(model)
    assert session.text_of(session.proposed) == "c"
    assert session.proposed.probability == pytest.approx(128 / 255)
    others = session.alternatives(3)
    assert spelled([x.token_id for x in others]) == "def"
    assert [x.probability for x in others] == pytest.approx([64 / 255, 32 / 255, 16 / 255])
    assert len(session.alternatives(100)) == 7


def test_satisfaction_takes_it_and_raises_theta(model: Alphabet) -> None:
    session = session_of(model)
    press(session, "ss")
    assert (session.response, session.theta, session.score) == ("cd", 0.85, 1.0)
    assert session.proposed.token_id == 4
    assert model.text == [0, 1, 2, 3]
    assert model.thetas == [0.75, 0.75, 0.8, 0.85]


def test_dissatisfaction_offers_the_next_and_lowers_theta(model: Alphabet) -> None:
    session = session_of(model)
    press(session, "nn")
    assert session.text_of(session.proposed) == "e"
    assert (session.response, session.theta, session.score) == ("", 0.65, 0.0)
    press(session, "s")
    assert (session.response, session.theta) == ("e", 0.7)
    assert session.text_of(session.proposed) == "f"
    assert model.thetas == [0.75, 0.75, 0.7]
    assert [(d.key, d.token, d.theta) for d in session.decisions] == [
        ("n", "c", 0.75),
        ("n", "d", 0.7),
        ("s", "e", 0.65),
    ]
    assert session.score == pytest.approx(1 / 3)


def state(session: Resonance, model: Alphabet) -> Any:
    open_now = None
    if session.finish_reason is None:
        open_now = session.proposed, session.alternatives(9)
    shown = session.theta, session.response, session.score, list(session.decisions)
    return shown, open_now, session.finish_reason, list(model.text), list(model.thetas)


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("keys", ["s", "n", "snsnnssns", "ssssssss", "nnnnnn"])
def test_undo_is_as_if_it_had_not_been(keys: str, look: bool, model: Alphabet) -> None:
    """Whether or not anybody looked at what a judgement led to."""
    session = session_of(model, ends=[7], room=6, theta=0.9)
    done = []
    states = []
    for key in keys:
        if session.finish_reason:
            break
        states.append(state(session, model))
        done.append(key)
        press(session, key)
        if look:
            state(session, model)
    while done:
        done.pop()
        session.undo()
        assert state(session, model) == states.pop()
    with pytest.raises(UsageError, match="nothing to undo"):
        session.undo()


def test_theta_keeps_to_its_bounds(model: Alphabet) -> None:
    session = session_of(model, theta=0.95)
    press(session, "sss")
    assert session.theta == 1.0
    press(session, "u")
    assert session.theta == 1.0
    press(session, "uu")
    assert session.theta == 0.95
    wide = session_of(Alphabet(), theta=5, bounds=Bounds(0.5, 1.5, 0.4))
    assert wide.theta == 1.5
    press(wide, "nnn")
    assert wide.theta == 0.5
    with pytest.raises(UsageError, match="expected bounds of at least 0"):
        Bounds(1.0, 0.5)
    with pytest.raises(UsageError, match="a step of at least 0"):
        Bounds(step=-0.1)


def test_nothing_is_read_before_somebody_looks(model: Alphabet) -> None:
    """So that a decision can be kept first."""
    session = session_of(model)
    assert model.text == []
    press(session, "s")
    assert model.text == [0, 1]
    assert session.proposed
    assert model.text == [0, 1, 2]


def test_an_end_ends_it(model: Alphabet) -> None:
    session = session_of(model, ends=[3])
    press(session, "ss")
    assert (session.finish_reason, session.response, session.token_ids) == ("eos", "c", [2, 3])
    for judge in (session.satisfied, session.not_satisfied):
        with pytest.raises(UsageError, match="the text is at its end; undo, or quit"):
            judge()
    press(session, "un")
    assert (session.finish_reason, session.text_of(session.proposed)) == (None, "e")


def test_there_is_only_so_much_room(model: Alphabet) -> None:
    session = session_of(model, room=2)
    press(session, "ss")
    assert session.finish_reason == "length"
    assert model.text == [0, 1, 2]  # the last token is not read
    press(session, "u")
    assert session.text_of(session.proposed) == "d"


def test_alternatives_come_to_an_end() -> None:
    session = session_of(Alphabet())
    press(session, "n" * 7)
    assert session.text_of(session.proposed) == "b"
    with pytest.raises(UsageError, match="no alternative is left"):
        session.not_satisfied()
    assert len(session.decisions) == 7
    many = session_of(Alphabet(5000))
    assert len(many.alternatives(5000)) == RANKED - 1


def test_scores_that_are_not_finite_are_refused(model: Alphabet) -> None:
    model.read = lambda ids, theta: np.array([np.nan, 1.0])  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="scores are not finite"):
        session_of(model).satisfied()
