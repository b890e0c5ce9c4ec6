"""`tfx convert`: what it hands to a model, and the models that have no such thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

MODELS = """
from pathlib import Path

from tfx.core.errors import WeightsError
from tfx.core.hookspecs import hookimpl
from tfx.core.specs import ModelSpec

@hookimpl
def tfx_models():
    return [ModelSpec(name="copy", target="tfx_copy:Copy", summary="writes what it was given")]

class Copy:
    name = "copy"
    train = run = evaluate = lambda *_: None

    def convert(self, settings, report):
        report.note("a note")
        report.result(f"wrote {settings.out}")
        if settings.weights == Path("broken"):
            raise WeightsError("broken: it is broken")
        return {"given": settings.given()}
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with a model that can be converted, beside the others."""
    site = tmp_path / "more"
    info = site / "tfx_copy-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tfx_copy.py").write_text(MODELS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tfx-copy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tfx]\ncopy = tfx_copy\n")
    monkeypatch.syspath_prepend(str(site))


def test_the_model_gets_the_settings_and_reports(invoke: Any) -> None:
    done = invoke("convert", "copy", "--weights", "in", "--out", "out/x")
    assert (done.exit_code, done.stdout) == (0, "wrote out/x\n")
    assert done.stderr == "a note\n"


def test_json_is_one_object_and_nothing_else(invoke: Any) -> None:
    flags = ("--weights", "in", "--out", "out", "--dtype", "bfloat16", "--json")
    done = invoke("convert", "copy", *flags)
    given = {"weights": "in", "out": "out", "dtype": "bfloat16"}
    assert json.loads(done.stdout) == {"given": given}
    assert done.stderr == "a note\n"


def test_no_weights_means_the_model_s_own(invoke: Any) -> None:
    done = invoke("convert", "copy", "--out", "out", "--json")
    assert json.loads(done.stdout) == {"given": {"out": "out"}}


def test_no_dtype_means_as_it_is_whatever_the_environment_says(invoke: Any) -> None:
    flags = ("--weights", "in", "--out", "out", "--json")
    done = invoke("convert", "copy", *flags, env={"TFX_DTYPE": "float64"})
    assert json.loads(done.stdout) == {"given": {"weights": "in", "out": "out"}}


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("copy", "--weights", "x"), "Missing option '--out'"),
        (("copy", "--weights", "x", "--out", "y", "--dtype", "half"), "no dtype named 'half'"),
        (("copied", "--weights", "x", "--out", "y"), "Did you mean 'copy'?"),
        (("echo", "--weights", "x", "--out", "y"), "echo has no form that other programs read"),
    ],
)
def test_a_wrong_command_line(invoke: Any, args: tuple[str, ...], fault: str) -> None:
    done = invoke("convert", *args)
    assert done.exit_code == 2
    assert fault in done.stderr
    assert done.stdout == ""


def test_a_failure_of_the_model_is_one_line(invoke: Any) -> None:
    done = invoke("convert", "copy", "--weights", "broken", "--out", "x")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "tfx: broken: it is broken"
