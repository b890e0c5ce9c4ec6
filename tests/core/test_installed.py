"""Whether anybody may declare a command: a look into folders that must miss none."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tfx.core.installed import COMMANDS, commands_may_be_declared, installed_plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place on the path, with packages that declare no command of ours."""
    for name, text in (("one.dist-info", "[tfx]\na = b\n"), ("two.egg-info", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "METADATA").write_text(f"Name: {name[:3]}\nVersion: 1\n")
        if text:
            (tmp_path / name / "entry_points.txt").write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "gone")])
    return tmp_path


def declare(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text("Name: acme\nVersion: 1\n")
    (folder / "PKG-INFO").write_text("Name: acme\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(f"[{COMMANDS}]\ngreet = acme:greet\n")


def test_nobody_declares_one(site: Path) -> None:
    assert not commands_may_be_declared()


@pytest.mark.parametrize("folder", ["acme-1.dist-info", "Acme.EGG-INFO", "two.egg-info"])
def test_somebody_does(site: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(site / folder)
    assert commands_may_be_declared()
    assert "greet" in [plugin.name for plugin in installed_plugins()]
    monkeypatch.chdir(site)
    monkeypatch.setattr(sys, "path", [""])
    assert commands_may_be_declared()


def test_what_takes_more_than_a_look_may(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = site / "packages.zip"
    archive.write_bytes(b"PK")
    monkeypatch.setattr(sys, "path", [str(archive)])
    assert commands_may_be_declared()

    class Elsewhere:
        @staticmethod
        def find_distributions(context: object = None) -> list[EntryPoint]:
            return []

    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Elsewhere])
    assert commands_may_be_declared()
