"""`tfx doctor`: the installation described, and what is broken in it named."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfx


def test_a_sound_installation(invoke: Any) -> None:
    done = invoke("doctor")
    assert done.exit_code == 0, done.stdout
    topics = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert topics == [
        "tfx",
        "python",
        "machine",
        "numpy",
        "backends",
        "plugins",
        "environment",
        "problems",
    ]
    assert "chip: ready (chipware 7, 0, 1)" in done.stdout
    assert done.stdout.splitlines()[-1].split(maxsplit=1) == ["problems", "none found"]


def test_json(invoke: Any) -> None:
    found = json.loads(invoke("doctor", "--json", env={"OMP_NUM_THREADS": "1"}).stdout)
    assert found["tfx"]["version"] == version("tfx-lm")
    assert Path(found["tfx"]["location"]) == Path(tfx.__file__).parent
    assert found["python"]["version"] == platform.python_version()
    assert found["numpy"]["version"] == np.__version__
    assert found["numpy"]["blas"]
    assert found["environment"]["OMP_NUM_THREADS"] == "1"
    assert found["environment"]["TFX_DISABLE_PLUGINS"] == "tfx-lm"
    assert [backend["name"] for backend in found["backends"]] == ["absent", "chip", "dead"]
    assert {plugin["name"] for plugin in found["plugins"]} >= {"fake", "numpy"}
    assert found["problems"] == []


def install(folder: Path, name: str, entry_points: str = "") -> None:
    info = folder / f"{name.replace('-', '_')}-1.16.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.16\n")
    (info / "entry_points.txt").write_text(entry_points)


def problem(done: Any) -> str:
    """The one problem of a call with `--json`, which ends in exit code 1."""
    (only,) = json.loads(done.stdout)["problems"]
    assert done.exit_code == 1
    return str(only)


def test_googles_tfx_beside_ours(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "more", "tfx")
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    said = problem(invoke("doctor", "--json"))
    assert "Google's tfx 1.16" in said
    assert "pip uninstall tfx" in said


@pytest.mark.parametrize("strict", ["", "1"])
def test_a_broken_plugin(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: str
) -> None:
    install(tmp_path / "more", "tfx-broken", "[tfx]\nbroken = no_such_module_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    said = problem(invoke("doctor", "--json", env={"TFX_STRICT_PLUGINS": strict}))
    assert "tfx-broken 1.16" in said
    assert "no_such_module_at_all" in said
    assert "pip uninstall tfx-broken" in said


def test_an_environment_that_asks_for_what_cannot_run(invoke: Any) -> None:
    said = problem(invoke("doctor", "--json", env={"TFX_BACKEND": "dead:0"}))
    assert said == "TFX_BACKEND asks for 'dead'; ready here: chip"
    assert invoke("doctor", env={"TFX_BACKEND": "chip:1"}).exit_code == 0


def test_no_backend_at_all(invoke: Any) -> None:
    said = problem(invoke("doctor", "--json", env={"TFX_DISABLE_PLUGINS": "tfx-lm,fake"}))
    assert said == "no backend can run here"
