"""`--config`: the file stands behind flags and environment, and is checked as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TOML = """
steps = 5
batch-size = 4
lr = 0.25
seed = 1
dtype = "float32"
backend = "chip:1"

[set]
n_layer = 2
"""


def given(done: Any) -> dict[str, Any]:
    assert done.exit_code == 0, done.stderr
    settings: dict[str, Any] = json.loads(done.stdout)["given"]
    return settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    return path


def test_toml(invoke: Any, config: Path) -> None:
    done = invoke("train", "echo", "--config", str(config), "--json")
    assert given(done) == {
        "steps": 5,
        "batch_size": 4,
        "lr": 0.25,
        "seed": 1,
        "dtype": "float32",
        "overrides": {"n_layer": "2"},
    }
    assert json.loads(done.stdout)["backend"] == "chip:1"


def test_json(invoke: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"steps": 5, "grad_accum": 2, "lr": null, "set": {"pause": 0}, "json": true}')
    assert given(invoke("train", "echo", "--config", str(path))) == {
        "steps": 5,
        "grad_accum": 2,
        "overrides": {"pause": "0"},
    }


def test_flag_before_environment_before_file(invoke: Any, config: Path) -> None:
    args = ["train", "echo", "--config", str(config), "--json"]
    environ = {"TFX_SEED": "2"}
    assert given(invoke(*args))["seed"] == 1
    assert given(invoke(*args, env=environ))["seed"] == 2
    assert given(invoke(*args, "--seed", "3", env=environ))["seed"] == 3


def test_the_place_of_config_among_the_flags_does_not_matter(invoke: Any, config: Path) -> None:
    done = invoke("train", "--steps", "9", "--json", "--config", str(config), "echo")
    assert given(done)["steps"] == 9


def test_set_adds_to_the_table_of_the_file(invoke: Any, config: Path) -> None:
    args = ["train", "echo", "--config", str(config), "--json"]
    assert given(invoke(*args, "--set", "pause=0"))["overrides"] == {"n_layer": "2", "pause": "0"}
    assert given(invoke(*args, "--set", "n_layer=3"))["overrides"] == {"n_layer": "3"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "stesp = 5", "unknown key 'stesp'. Did you mean 'steps'?"),
        ("a.toml", "bacth-size = 5", "Did you mean 'batch-size'?"),
        ("a.toml", "config = 'b.toml'", "unknown key 'config'"),
        ("a.toml", "model = 'echo'", "unknown key 'model'"),
        ("a.toml", "steps = -5", "'--steps': -5 is not in the range"),
        ("a.toml", "steps = 1.5", "'1.5' is not a valid int"),
        ("a.toml", "steps = true", "'true' is not a valid int"),
        ("a.toml", "lr = nan", "expected a number above 0, got 'nan'"),
        ("a.toml", "steps = [1, 2]", "'steps' in"),
        ("a.toml", "[steps]\nn = 1", "'steps' in"),
        ("a.toml", "steps = ", "is not valid toml"),
        ("a.json", "[1]", "must hold an object"),
        ("a.json", "{", "is not valid json"),
        ("a.yaml", "steps: 5", "must end in .toml or .json"),
    ],
)
def test_a_bad_file(invoke: Any, tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    done = invoke("train", "echo", "--config", str(path))
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert str(path) in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_file_that_is_not_text(invoke: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xff\xfe")
    done = invoke("train", "echo", "--config", str(path))
    assert done.exit_code == 2
    assert "is not valid toml" in done.stderr
