"""microGPT through the command line: a caller, and a run that was trained."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from microgpt_cli import ENVIRONMENT, Invoke, finish
from typer.testing import CliRunner

from tfx.models.microgpt.data import BUNDLED


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run `tfx ARGS` in this process, in an empty folder, without a connection."""
    from tfx.cli.main import app

    for name in os.environ.keys() - ENVIRONMENT.keys():
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TFX_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> Any:
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return call


@pytest.fixture
def train(invoke: Invoke) -> Invoke:
    """Train on the bundled names with NumPy; the result, which must be a success."""

    def call(*args: object) -> Any:
        result = invoke("train", "microgpt", "-b", "numpy", "--data", BUNDLED, *args)
        assert result.exit_code == 0, result.stderr
        return result

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of 30 steps, and the names that it printed."""
    folder = tmp_path_factory.mktemp("trained")
    out, _ = finish(
        *("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--steps", 30),
        *("--save-every", 10, "--out", "run"),
        cwd=folder,
    )
    return folder / "run", out.splitlines()[-20:]


@pytest.fixture
def run(trained: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A copy of the trained run."""
    copied = shutil.copytree(trained[0], tmp_path / "copy")
    return Path(copied)
