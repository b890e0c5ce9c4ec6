"""`pytest --pyargs tfx.testing.suite`, from a folder that has nothing to do with tfx."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def pytest_in(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_it_puts_a_backend_to_the_test(tmp_path: Path) -> None:
    done = pytest_in(
        tmp_path, "--pyargs", "tfx.testing.suite", "--tfx-backend=numpy", "-k", "L0", "-rs"
    )
    assert done.returncode == 0, done.stdout
    assert "bfloat16 is not among its dtypes" in done.stdout and " passed" in done.stdout


def test_known_gaps_have_to_be_gaps(tmp_path: Path) -> None:
    (tmp_path / "gaps").write_text("L0-exp  # it is sound\n")
    done = pytest_in(
        tmp_path,
        "--pyargs",
        "tfx.testing.suite",
        "--tfx-backend=numpy",
        "--tfx-xfails=gaps",
        "-k",
        "L0-exp",
    )
    assert done.returncode == 1 and "[XPASS(strict)] it is sound" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "which backend? --tfx-backend=NAME says"),
        (["--tfx-backend=numpy", "--tfx-xfails=none"], "cannot read known gaps from none"),
    ],
)
def test_what_is_missing_is_said_once(tmp_path: Path, args: list[str], said: str) -> None:
    done = pytest_in(tmp_path, "--pyargs", "tfx.testing.suite", *args)
    assert done.returncode == 4 and (done.stdout + done.stderr).count(said) == 1


@pytest.mark.installed
def test_the_plugin_costs_other_peoples_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\ndef test(): assert not {'numpy', 'tfx.core.backend'} & set(sys.modules)\n"
    )
    done = pytest_in(tmp_path, "-p", "no:hypothesispytest", "-p", "no:anyio")
    assert done.returncode == 0, done.stdout
