"""GPT-2 through the command line: small checkpoints, and callers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpt2_checkpoints import write_gpt2
from microgpt_cli import ENVIRONMENT
from typer.testing import CliRunner

Invoke = Callable[..., Any]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with a tokenizer."""
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "words")


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 without one."""
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "bare", tokenizer=False)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No connection, and an empty cache."""
    return ENVIRONMENT | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")}


@pytest.fixture
def invoke(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run `tfx ARGS` in this process, in an empty folder."""
    from tfx.cli.main import app

    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def call(*args: object, **more: Any) -> Any:
        return CliRunner().invoke(app, [str(arg) for arg in args], **more)

    return call


@pytest.fixture
def tfx(tmp_path: Path, environment: dict[str, str]) -> Invoke:
    """Run `tfx ARGS` in a process of its own, in an empty folder; streams are bytes."""

    def call(*args: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        command = [sys.executable, "-m", "tfx", *map(str, args)]
        given = {"cwd": tmp_path, "env": environment, "timeout": 120} | options
        return subprocess.run(command, capture_output=True, **given)

    return call
