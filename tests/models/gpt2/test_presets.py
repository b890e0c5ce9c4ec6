"""What each name stands for, and where its weights are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfx.core import hub
from tfx.core.errors import HubError
from tfx.core.plugins import import_target
from tfx.models.gpt2.plugin import tfx_models
from tfx.models.gpt2.presets import BUNDLED, PRESETS, find_weights

TINY = "or run gpt2-tiny, which comes with tfx"


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Hub without repositories, in an empty folder; what it was asked for."""
    repositories: list[str] = []

    def snapshot(repo: str, note: object) -> Path:
        repositories.append(repo)
        raise HubError(f"{repo} cannot be reached: connect once")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "snapshot", snapshot)
    return repositories


def find(name: str, path: str | None = None) -> Path:
    return find_weights(PRESETS[name], None if path is None else Path(path), lambda line: None)


def fault(name: str, path: str | None = None) -> str:
    with pytest.raises(HubError) as caught:
        find(name, path)
    return str(caught.value)


def test_every_name_opens_what_it_says() -> None:
    specs = tfx_models()
    assert [spec.name for spec in specs] == list(PRESETS)
    for spec in specs:
        recipe = import_target(spec.target)()
        assert (recipe.name, recipe._preset) == (spec.name, PRESETS[spec.name])


def test_the_bundled_one_needs_no_hub(asked: list[str]) -> None:
    assert find("gpt2-tiny") == BUNDLED
    assert asked == []


def test_the_others_are_on_the_hub(asked: list[str]) -> None:
    assert fault("gpt2-xl") == (
        "openai-community/gpt2-xl cannot be reached: connect once, "
        f"or give a folder with --weights DIR, {TINY}"
    )
    assert asked == ["openai-community/gpt2-xl"]


def test_what_is_here_is_taken(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert find("gpt2", "runs/mine") == Path("runs/mine")
    assert asked == []


def test_another_preset_may_be_named(tmp_path: Path, asked: list[str]) -> None:
    assert find("gpt2", "gpt2-tiny") == BUNDLED
    fault("gpt2-tiny", "gpt2-medium")
    assert asked == ["openai-community/gpt2-medium"]
    (tmp_path / "gpt2-tiny").mkdir()
    assert find("gpt2", "gpt2-tiny") == Path("gpt2-tiny")


def test_a_mistyped_run_is_no_repository(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "runs").mkdir()
    assert find("gpt2", "runs/nope") == Path("runs/nope")  # whoever reads it says what is wrong
    assert find("gpt2", "./nope") == Path("nope")
    assert asked == []


@pytest.mark.parametrize("name", ["gpt2", "gpt2-tiny"])
def test_neither_a_folder_nor_a_repository(name: str, asked: list[str]) -> None:
    assert fault(name, "runs/nope") == (
        "there is no folder runs/nope here, and as a repository of the Hub: runs/nope cannot be "
        "reached: connect once, or give a folder with --weights DIR"
    )
    assert asked == ["runs/nope"]
