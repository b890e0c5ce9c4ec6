"""`tfx bench`: what it takes, what it prints, and how it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from microgpt_cli import ENVIRONMENT, assert_refused
from typer.testing import CliRunner

from tfx.cli.bench import draw, shown
from tfx.core.benchmark import Benchmark, Measured

Invoke = Callable[..., Any]

MUTE = """
from tfx.core.hookspecs import hookimpl
from tfx.core.specs import ModelSpec


@hookimpl
def tfx_models():
    return [ModelSpec(name="mute", target="tfx_mute:Mute", summary="")]


class Mute:
    name = "mute"
    train = run = lambda *_: None
"""
"""A model of which nothing can be timed."""


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run `tfx bench ARGS` from an empty folder."""
    from tfx.cli.main import app

    site = tmp_path / "site"
    info = site / "tfx_mute-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tfx_mute.py").write_text(MUTE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tfx-mute\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tfx]\nmute = tfx_mute\n")
    monkeypatch.syspath_prepend(str(site))
    for name in os.environ.keys() - ENVIRONMENT.keys():
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TFX_LOAD_PLUGINS", "tfx-mute")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *args: CliRunner().invoke(app, ["bench", *map(str, args)])


def test_a_table_with_a_row_for_each_part_and_backend(invoke: Invoke) -> None:
    done = invoke("microgpt", "-b", "numpy", "-b", "numpy", "--repeats", 2, "--only", "load")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines() == [
        "weights: random ones; --weights names others",
        "load: 2 rounds",
    ]
    head, first, second, counts = done.stdout.splitlines()
    assert " ".join(head.split()) == (
        "part step dtype backend ms/step quartiles tokens/s speed peak MB"
    )
    assert first.startswith("load  open the weights  float64  numpy  ")
    assert " 1.00x " in first
    assert second.startswith("load  open the weights  float64  numpy  ")
    assert counts == "microgpt: medians of 2 rounds, after 1 to warm up"
    assert list(Path().iterdir()) == []


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_json_is_one_object_and_the_picture_is_drawn(invoke: Invoke) -> None:
    sizes = ("--prompt-tokens", 9, "-n", 3, "--batch-size", 2)
    parts = ("--only", "decode", "--only", "prefill")
    done = invoke(
        "gpt2-tiny", *parts, *sizes, "-b", "numpy", "--repeats", 1, "--json", "--plot", "b.svg"
    )
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    prefill, decode = found["rows"]  # in the order of the work
    assert (prefill["part"], prefill["tokens"]) == ("prefill", 18)
    assert (decode["part"], decode["tokens"]) == ("decode", 2)
    assert decode["what"] == "2 x 1 token, 3 times after 9"
    rate, ms = decode["tokens_per_s"]["median"], decode["ms"]["median"]
    assert rate == pytest.approx(2 / (ms / 1e3))
    if prefill["memory"]["peak_host_bytes"]:
        assert prefill["memory"]["peak_host_bytes"] >= prefill["memory"]["idle_host_bytes"] > 0
    assert found["plot"] == "b.svg"
    assert "</svg>" in Path("b.svg").read_text()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("gpt3",), 2, ("no model named 'gpt3'", "gpt2")),
        (("mute",), 2, ("mute has nothing that could be timed",)),
        (("gpt2-tiny", "--only", "sing"), 2, ("--only sing", "load, prefill, decode, train")),
        (("gpt2-tiny", "-b", "nupmy"), 2, ("no backend named 'nupmy'", "numpy")),
        (("gpt2-tiny", "--repeats", 0), 2, ("--repeats", "0")),
        (("gpt2-tiny", "--plot", "b.gif"), 2, ("--plot", "b.gif", ".png")),
        (
            ("gpt2-tiny", "-b", "numpy", "--only", "decode", "--prompt-tokens", 255, "-n", 9),
            2,
            ("--prompt-tokens 255", "--max-new-tokens 9", "256 positions"),
        ),
        (
            ("gpt2-tiny", "-b", "numpy", "--only", "train", "--block-size", 999),
            2,
            ("block_size=999", "256"),
        ),
        (
            ("gpt2-tiny", "-b", "numpy", "--only", "load", "--weights", "nowhere/at-all/x"),
            1,
            ("nowhere",),
        ),
    ],
)
def test_refused_in_one_line(
    invoke: Invoke, args: tuple[object, ...], code: int, words: tuple[str, ...]
) -> None:
    done = invoke(*args)
    done_lines = [line for line in done.stderr.splitlines() if not line.startswith("Try ")]
    assert len(done_lines) == 1, done.stderr
    assert_refused(done, code, *words)
    assert done.stdout == ""


def test_numbers_have_three_digits() -> None:
    assert [shown(x) for x in (0.5, 9.999, 99.99, 100.4)] == ["0.500", "10.0", "100", "100"]


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_a_picture_has_a_panel_for_each_part(tmp_path: Path) -> None:
    rows = tuple(
        Measured(part, backend, "a step", "float32", tokens, (1.0, 2.0, 4.0), 1.0, {})
        for part, tokens in (("load", 0.0), ("train", 8.0))
        for backend in ("one", "two")
    )
    draw(Benchmark("acme", 3, 1, rows), tmp_path / "b.svg")
    text = (tmp_path / "b.svg").read_text()
    for comment in ("load: a step", "train: a step", "one", "two", "tokens/s", "ms (less"):
        assert f"<!-- {comment}" in text
