"""`tfx prune`: what it hands to a model, and the models that have no such thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from installing import install

MODELS = """
@hookimpl
def tfx_models():
    return [ModelSpec(name="bush", target="tfx_bush:Bush", summary="says what it was given")]

class Bush:
    name = "bush"
    train = run = evaluate = lambda *_: None

    def prune(self, settings, backend, report):
        report.result(f"wrote {settings.out}")
        return {"given": settings.given(), "backend": str(backend)}
"""


@pytest.fixture(autouse=True)
def plugin(shelf: Path) -> None:
    """A distribution with a model that can be pruned, beside the others."""
    install(shelf, "tfx-bush", MODELS)


def test_every_flag_is_passed_on(invoke: Any) -> None:
    flags = {"weights": "in", "out": "out/x", "data": "text.txt", "keep": 0.5}
    args = [f"--{name}={value}" for name, value in flags.items()]
    done = invoke("prune", "bush", *args, "--backend", "chip", "--json")
    assert json.loads(done.stdout) == {"given": flags, "backend": "chip:0"}


def test_three_heads_in_four_stay_by_default(invoke: Any) -> None:
    done = invoke("prune", "bush", "--out=x", "--data=y", "--backend", "chip", "--json")
    assert json.loads(done.stdout)["given"]["keep"] == 0.75
    done = invoke("prune", "bush", "--out=x", "--data=y", "--backend", "chip")
    assert done.stdout == "wrote x\n"


def test_a_model_with_nothing_to_prune(invoke: Any) -> None:
    done = invoke("prune", "echo", "--out=x", "--data=y", "--backend", "chip")
    assert done.exit_code == 2
    assert "echo has nothing to prune" in done.stderr


def test_heads_that_are_named_go_without_data(invoke: Any) -> None:
    named = ("prune", "bush", "--out=x", "--task", "t", "--backend", "chip", "--json", "--heads")
    for spelling in ("0:1,3;2:0", " 2:0 ; 0: 1, 3 "):
        done = invoke(*named, spelling)
        assert json.loads(done.stdout)["given"] == {
            "out": "x", "task": "t", "heads": {"0": [1, 3], "2": [0]}
        }  # fmt: skip
    for nonsense in ("", "1", "0:", ":1", "0:1;", "0:1,,2", "0:-1", "0:1 2:0", "a:b", "0:1;0:2"):
        done = invoke(*named, nonsense)
        assert done.exit_code == 2
        assert "--heads expects each layer once" in done.stderr
    done = invoke("prune", "bush", "--out=x", "--heads=0:1", "--keep=0.5")
    assert done.exit_code == 2
    assert "--heads says which heads go, --keep how many stay" in done.stderr


@pytest.mark.parametrize("left_out", ["--out=x", "--data=y"])
def test_what_must_be_given(left_out: str, invoke: Any) -> None:
    given = [flag for flag in ("--out=x", "--data=y") if flag != left_out]
    done = invoke("prune", "bush", *given)
    assert done.exit_code == 2
    assert left_out.split("=")[0] in done.stderr
