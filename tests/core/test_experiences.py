"""Experiences: what is noted is there, whatever interrupts, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tfx.core.errors import DataError
from tfx.core.experiences import Decision, Experience, ExperienceStore, summary

DECISION = {"key": "s", "token_id": 5, "token": " é", "probability": 0.5, "theta": 0.75}
REFUSED = DECISION | {"key": "n", "token_id": 7, "token": "\n", "theta": 0.8}


@pytest.fixture
def store(tmp_path: Path) -> ExperienceStore:
    return ExperienceStore(tmp_path / "new" / "experiences.jsonl")


def test_a_store_begins_empty(store: ExperienceStore) -> None:
    assert store.experiences() == []
    assert store.theta_for("x", "gpt2") is None
    assert not store.path.exists()


def test_lines_add_up(store: ExperienceStore) -> None:
    name = store.begin(prompt="To be", model="gpt2", theta=0.75, theta_start=0.75)
    other = store.begin(prompt="Other")
    store.note(name, decision=DECISION, theta=0.8, response=" é", score=1.0)
    store.note(name, decision=REFUSED, theta=0.75, response=" é", score=0.5)
    store.note(name, undone=1, theta=0.8, score=1.0)
    store.note(name, decision=DECISION, theta=0.85, response=" é é", score=1.0)
    found = store.validate(name, status="accepted", notes="good\nindeed")
    assert found == store.experience(name)
    time = found.time
    assert time.endswith("+00:00")
    assert found == Experience(
        id=name,
        prompt="To be",
        response=" é é",
        decisions=(Decision(**DECISION), Decision(**DECISION)),  # type: ignore[arg-type]
        status="accepted",
        score=1.0,
        theta=0.85,
        notes="good\nindeed",
        time=time,
        model="gpt2",
        theta_start=0.75,
    )
    assert [x.id for x in store.experiences()] == [name, other]
    assert json.loads(json.dumps(found.described()))["decisions"] == [DECISION, DECISION]
    assert found.thetas == [0.75, 0.75, 0.85]


def test_the_time_is_when_it_began(store: ExperienceStore) -> None:
    name = store.begin(prompt="x")
    time = store.experience(name).time
    store.note(name, time="later")
    assert store.experience(name).time == time


def test_a_file_cut_anywhere_is_what_it_was_before_the_cut_line(store: ExperienceStore) -> None:
    name = store.begin(prompt="To be — ☃", theta=0.75)
    states = [store.experience(name)]
    for decision in (DECISION, REFUSED):
        store.note(name, decision=decision)
        states.append(store.experience(name))
    whole = store.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for length in range(len(whole) + 1):
        store.path.write_bytes(whole[:length])
        lines = sum(end <= length for end in ends)
        assert store.experiences() == states[max(lines - 1, 0) : lines]
        if lines:
            store.note(name, notes="on")  # what was torn makes room
            assert store.path.read_bytes().startswith(whole[: ends[lines - 1]])
            assert store.experience(name).notes == "on"
            assert len(store.experience(name).decisions) == lines - 1


def test_a_long_torn_line_is_cut_off_as_well(store: ExperienceStore) -> None:
    name = store.begin(prompt="x" * 10000)
    with store.path.open("ab") as file:
        file.write(b'{"id": "' + b"y" * 10000)
    store.note(name, notes="z")
    assert store.experience(name).notes == "z"
    store.path.write_bytes(b'{"id": "' + b"q" * 10000)  # no whole line at all
    other = store.begin(prompt="y")
    assert [x.id for x in store.experiences()] == [other]


def test_several_processes_may_write(store: ExperienceStore) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tfx.core.experiences import ExperienceStore\n"
        "store = ExperienceStore(Path(sys.argv[1]))\n"
        "for i in range(30): store.begin(prompt=sys.argv[2] * 3000)"
    )
    command = [sys.executable, "-c", code, str(store.path)]
    running = [subprocess.Popen([*command, letter]) for letter in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    found = store.experiences()
    assert len({x.id for x in found}) == 90
    assert {x.prompt for x in found} == {letter * 3000 for letter in "abc"}


def test_theta_is_the_mean_of_accepted_beginnings(store: ExperienceStore) -> None:
    for prompt, status, theta, model in [
        ("To be", "accepted", 0.5, "gpt2"),
        ("To be, or", "accepted", 0.9, "gpt2"),
        ("To be", "rejected", 0.1, "gpt2"),
        ("To be", "unvalidated", 0.1, "gpt2"),
        ("To be", "accepted", 0.1, "other"),
        ("To be, or not to be", "accepted", 0.1, "gpt2"),
        ("be", "accepted", 0.1, "gpt2"),
    ]:
        store.begin(prompt=prompt, status=status, theta=theta, model=model)
    assert store.theta_for("To be, or not", "gpt2") == pytest.approx(0.7)
    assert store.theta_for("To be", "gpt2") == pytest.approx(0.5)
    assert store.theta_for("Not", "gpt2") is None


def test_a_summary(store: ExperienceStore) -> None:
    assert summary([])["mean_theta"] is None
    good = store.begin(prompt="a", theta=0.5)
    store.note(good, decision=DECISION, score=1.0, theta=0.6)
    store.validate(good, status="accepted")
    bad = store.begin(prompt="b", theta=0.4)
    store.note(bad, decision=REFUSED, score=0.0, theta=0.2, status="rejected")
    assert summary(store.experiences()) == {
        "experiences": 2,
        "accepted": 1,
        "rejected": 1,
        "unvalidated": 0,
        "decisions": 2,
        "satisfied": 1,
        "mean_theta": pytest.approx(0.4),
        "mean_theta_accepted": 0.6,
        "mean_score": 0.5,
    }


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("no", "it is no JSON"),
        ("[1]", "expected an object with an id"),
        ("[" * 100000, "it is no JSON"),
        ('{"prompt": "x"}', "expected an object with an id"),
        ('{"id": "new"}', "'new' was never begun with a prompt"),
        ('{"id": "new", "prompt": 3}', "prompt is '3'"),
        ('{"id": "new", "prompt": "x", "theta": "y"}', "theta is"),
        ('{"id": "new", "prompt": "x", "theta": true}', "theta is 'true'"),
        ('{"id": "new", "prompt": "x", "status": "good"}', "status is 'good'; expected accepted"),
        ('{"id": "new", "prompt": "x", "undone": 1}', "1 decisions are undone of 0"),
        ('{"id": "new", "prompt": "x", "decision": {"key": "s"}}', "a decision is"),
        ('{"id": "new", "prompt": "x", "decision": 3}', "decision is '3'"),
    ],
)
def test_what_is_no_such_line_is_refused(line: str, fault: str, store: ExperienceStore) -> None:
    store.begin(prompt="x")
    with store.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError) as caught:
        store.experiences()
    assert str(caught.value).startswith(f"line 2 of {store.path}: ")
    assert fault in str(caught.value)
    assert len(str(caught.value)) < 400


def test_keys_of_later_versions_are_passed_over(store: ExperienceStore) -> None:
    name = store.begin(prompt="x", mood="fair")
    assert store.experience(name).prompt == "x"


def test_what_cannot_be_is_one_line(store: ExperienceStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no experience 'gone'"):
        store.validate("gone", status="accepted")
    folder: Any = ExperienceStore(tmp_path)
    with pytest.raises(DataError, match=r"cannot write .*: it is a folder"):
        folder.note("x", prompt="x")
    with pytest.raises(DataError, match=r"cannot read .*: it is a folder"):
        folder.experiences()


@pytest.mark.parametrize("text", ["one line", "a note\n", '{"id": 3', '{"name": "x"}\n'])
def test_what_is_no_store_is_never_written_to(text: str, store: ExperienceStore) -> None:
    store.path.parent.mkdir()
    store.path.write_text(text)
    with pytest.raises(DataError, match=r"^line 1 of "):
        store.begin(prompt="x")
    assert store.path.read_text() == text


def test_the_beginning_of_an_id_will_do(store: ExperienceStore) -> None:
    for name in ("5f0c11", "5f0c22", "5f"):
        store.note(name, prompt=name)
    assert store.experience("5f0c1").id == "5f0c11"
    assert store.experience("5f").id == "5f"
    assert store.validate("5f0c2", notes="x").notes == store.experience("5f0c22").notes == "x"
    with pytest.raises(
        DataError, match=r"2 experiences in .* begin with '5f0c', as 5f0c11 and 5f0"
    ):
        store.validate("5f0c", notes="x")
    with pytest.raises(DataError, match="holds no experience ''"):
        store.experience("")
