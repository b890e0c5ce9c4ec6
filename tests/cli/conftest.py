"""Ways to call `tfx` with a made-up plugin in place of the real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from installing import forget
from typer.testing import CliRunner

SITE = Path(__file__).parent / "site"
"""A folder as pip would leave it, with the distribution tfx-fake."""

PLUGINS = {"PYTHONPATH": str(SITE), "TFX_DISABLE_PLUGINS": "tfx-lm"}
TELLING = ("TFX_", "_TFX", "FORCE_COLOR", "NO_COLOR", "GITHUB_ACTIONS", "PYTHON")


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment without what would change the behaviour of `tfx`, with our plugin."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TELLING)}
    return kept | PLUGINS


@pytest.fixture
def tfx(
    tmp_path: Path, environment: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `tfx ARGS` in a process of its own, in an empty folder; keywords go to `run`."""

    def call(
        *args: str, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": tmp_path,
            "encoding": "utf-8",
        } | options
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        command = [sys.executable, "-m", "tfx", *args]
        return subprocess.run(command, env=environment | (env or {}), timeout=60, **options)

    return call


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on `sys.path` for made-up distributions."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    forget(folder)


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `tfx ARGS` in this process, in an empty folder: quick, but with no real streams."""
    from tfx.cli.main import app

    for name in list(os.environ):
        if name.startswith(TELLING):
            monkeypatch.delenv(name)
    for name, value in PLUGINS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(SITE))
    monkeypatch.chdir(tmp_path)

    def call(*args: str, env: dict[str, str] | None = None) -> Any:
        return CliRunner().invoke(app, args, env=env)

    return call
