"""Judging a text: whatever interrupts at whatever point, what was decided is kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from steered import Alphabet, spelled

from tfx.cli.judging import Judging
from tfx.cli.report import TextReporter
from tfx.core.errors import DataError
from tfx.core.experiences import ExperienceStore
from tfx.core.resonance import Resonance

KEYS = "ssnsunnsus"


class Interrupted(Alphabet):
    """Ctrl-C comes while it reads for the n-th time."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def read(self, ids: Sequence[int], theta: float) -> Any:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return super().read(ids, theta)


def standing(keys: str) -> str:
    """The keys that were not undone."""
    left: list[str] = []
    for key in keys:
        if key == "u":
            left.pop()
        else:
            left.append(key)
    return "".join(left)


def judge(store: ExperienceStore, model: Alphabet, keys: str, alternatives: int = 2) -> str:
    """Judge a text; how many keys were asked for before it ended, as those keys."""
    asked: list[str] = []

    def typed() -> Any:
        for key in keys:
            asked.append(key)
            yield key

    session = Resonance(model, spelled, [0], room=30)
    judging = Judging.begin(session, store, "a", "alphabet", alternatives, written=False)
    with suppress(KeyboardInterrupt):
        judging.run(typed(), TextReporter())
    return "".join(asked)


def kept(store: ExperienceStore) -> str:
    [found] = store.experiences()
    return "".join(decision.key for decision in found.decisions)


@pytest.mark.parametrize("at", range(1, 9))
def test_ctrl_c_while_the_model_reads(at: int, tmp_path: Path) -> None:
    store = ExperienceStore(tmp_path / "store")
    asked = judge(store, Interrupted(at), KEYS)
    assert kept(store) == standing(asked)


@pytest.mark.parametrize("torn", [0, 1, 20])
@pytest.mark.parametrize("at", range(1, len(KEYS) + 2))
def test_a_kill_while_a_line_is_written(
    at: int, torn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first bytes of the line are there, and nothing follows."""
    store = ExperienceStore(tmp_path / "store")
    written = 0
    write = os.write

    def cut(descriptor: int, data: bytes) -> int:
        nonlocal written
        written += 1
        if written == at:
            write(descriptor, data[:torn])
            raise KeyboardInterrupt
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", cut)
    if at == 1:
        with pytest.raises(KeyboardInterrupt):
            judge(store, Alphabet(), KEYS)
        assert store.experiences() == []
    else:
        asked = judge(store, Alphabet(), KEYS)
        assert kept(store) == standing(asked[:-1])
        [found] = store.experiences()
        store.note(found.id, notes="later")
        assert store.experience(found.id).notes == "later"
        assert kept(store) == standing(asked[:-1])


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    store = ExperienceStore(tmp_path / "store")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DataError, match=r"cannot write .*store: No space left on device"):
        judge(store, Alphabet(), KEYS)


def test_no_alternatives_need_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(ExperienceStore(tmp_path / "store"), Alphabet(), "s", alternatives=0)
    shown = capsys.readouterr().err.splitlines()
    assert shown[1:] == ["a|  'b' 50.2%  theta 0.75", "ab|  'c' 50.2%  theta 0.8"]
