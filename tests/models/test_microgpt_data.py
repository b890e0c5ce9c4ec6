"""Which names microGPT trains on, and that it says so."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tfx.core.errors import DataError
from tfx.models.microgpt import data


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFX_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFX_OFFLINE", "1")
    return tmp_path


def test_a_given_file_is_read_in_its_order(tmp_path: Path, notes: list[str]) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("zoe\nadam\n")
    assert data.load_documents(path, notes.append) == ["zoe", "adam"]
    assert notes == []


def test_a_given_file_is_never_replaced_by_another(empty_cache: Path, notes: list[str]) -> None:
    with pytest.raises(DataError, match=r"mine\.txt"):
        data.load_documents(empty_cache / "mine.txt", notes.append)
    assert notes == []


def test_offline_the_bundled_names_with_one_note(empty_cache: Path, notes: list[str]) -> None:
    source = data.default_names(notes.append)
    assert source is data.Names.census
    assert len(data.load_documents(source, notes.append)) == 5163
    assert len(notes) == 1
    assert "\n" not in notes[0]
    for word in ("census", "names.txt does not exist", "TFX_OFFLINE", "--data"):
        assert word in notes[0]


def test_a_damaged_cache_is_not_trained_on(empty_cache: Path, notes: list[str]) -> None:
    (empty_cache / "names.txt").write_text("emma\noliv")
    assert data.default_names(notes.append) is data.Names.census
    assert "is damaged" in notes[0]


def test_a_cached_file_with_the_right_sum_is_used(
    empty_cache: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = b"emma\nolivia\n"
    (empty_cache / "names.txt").write_bytes(contents)
    stand_in = replace(data.NAMES, sha256=hashlib.sha256(contents).hexdigest())
    monkeypatch.setattr(data, "NAMES", stand_in)
    source = data.default_names(notes.append)
    assert source is data.Names.reference
    assert data.load_documents(source, notes.append) == ["emma", "olivia"]
    assert notes == []


def test_a_list_that_was_asked_for_is_never_replaced_by_another(
    empty_cache: Path, notes: list[str]
) -> None:
    with pytest.raises(DataError, match=r"names\.txt does not exist.*give names\.txt with --data"):
        data.load_documents(data.Names.reference, notes.append)
    assert len(data.load_documents(data.Names.census, notes.append)) == 5163
    assert notes == []


def test_the_references_names(
    shared_data: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFX_DATA_DIR", str(shared_data))
    documents = data.load_documents(data.default_names(notes.append), notes.append)
    assert (len(documents), documents[0], documents[-1]) == (32033, "emma", "zzyzx")
    assert notes == []


def test_the_bundled_list() -> None:
    lines = data.BUNDLED.read_text(encoding="ascii").split("\n")
    assert lines.pop() == ""
    assert len(lines) == 5163
    assert lines == sorted(set(lines))
    assert all(re.fullmatch("[a-z]{2,11}", line) for line in lines)
    assert {"mary", "james", "providencia", "wm"} <= set(lines)
    assert set("".join(lines)) == set("abcdefghijklmnopqrstuvwxyz")
