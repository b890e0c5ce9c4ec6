"""`tfx quantize`: what it hands to a model, and the models that have no such thing."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tfx.core.recipe import QuantizeSettings

MODELS = """
from tfx.core.errors import UsageError
from tfx.core.hookspecs import hookimpl
from tfx.core.specs import ModelSpec

@hookimpl
def tfx_models():
    return [ModelSpec(name="round", target="tfx_round:Round", summary="writes what it was given")]

class Round:
    name = "round"
    train = run = evaluate = lambda *_: None

    def quantize(self, settings, backend, report):
        report.note("a note")
        report.result(f"wrote {settings.out}")
        if settings.group_size == 7:
            raise UsageError("--group-size 7: it is odd")
        return {"given": settings.given(), "backend": str(backend)}
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with a model that can be quantized, beside the others."""
    site = tmp_path / "more"
    info = site / "tfx_round-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tfx_round.py").write_text(MODELS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tfx-round\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tfx]\nround = tfx_round\n")
    monkeypatch.syspath_prepend(str(site))


def test_every_flag_is_passed_on(invoke: Any) -> None:
    flags = {
        "weights": "in",
        "out": "out/x",
        "quantize": "int4",
        "quantize_embeddings": "none",
        "group_size": 32,
        "scale_dtype": "float32",
        "data": "text.txt",
    }
    args = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    done = invoke("quantize", "round", *args, "--backend", "chip", "--json")
    assert json.loads(done.stdout) == {"given": flags, "backend": "chip:0"}
    assert done.stderr == "a note\n"
    assert {f.name for f in fields(QuantizeSettings)} == {*flags}


def test_eight_bits_where_nobody_says(invoke: Any) -> None:
    done = invoke("quantize", "round", "--out", "out", "-b", "chip", "--json")
    assert json.loads(done.stdout)["given"] == {"out": "out", "quantize": "int8"}
    done = invoke("quantize", "round", "--out", "out", "-b", "chip")
    assert (done.exit_code, done.stdout) == (0, "wrote out\n")


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("round",), "Missing option '--out'"),
        (("round", "--out", "x", "--group-size", "0"), "'--group-size'"),
        (("round", "--out", "x", "--scale-dtype", "half"), "no dtype named 'half'"),
        (("round", "--out", "x", "--group-size", "7"), "--group-size 7: it is odd"),
        (("rond", "--out", "x"), "Did you mean 'round'?"),
        (("echo", "--out", "x"), "echo has no quantized form; its weights stay floats"),
    ],
)
def test_a_wrong_command_line(invoke: Any, args: tuple[str, ...], fault: str) -> None:
    done = invoke("quantize", *args, "-b", "chip")
    assert done.exit_code == 2
    assert fault in done.stderr
