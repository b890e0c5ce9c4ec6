"""`tfx compare`: what it takes, what it prints, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpt2_checkpoints import write_gpt2
from microgpt_cli import ENVIRONMENT
from typer.testing import CliRunner

from tfx.models.microgpt.data import BUNDLED

Invoke = Callable[..., Any]

BACKENDS = """
import math

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec, ModelSpec, Probe


@hookimpl
def tfx_backends():
    return [
        BackendSpec(name=name, target=f"tfx_off:{name}", summary="", probe="tfx_off:probe")
        for name in ("tilted", "broken")
    ]


@hookimpl
def tfx_models():
    return [ModelSpec(name="mute", target="tfx_off:Mute", summary="")]


def probe():
    return Probe(ready=True, devices=("left", "right"))


class Mute:
    name = "mute"
    train = run = evaluate = lambda *_: None


class Tilted(NumpyBackend):
    name = "tilted"
    factor = 1.001

    def __init__(self, device):
        super().__init__(None)
        self.device = device
        self.fused.clear()

    def tanh(self, x):
        return super().tanh(x) * self.factor


class Broken(Tilted):
    name = "broken"
    factor = math.nan


tilted, broken = Tilted, Broken
"""
"""Two backends whose `tanh` is wrong, and a model that offers nothing to compare."""

PNG = b"\x89PNG"


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run `tfx compare ARGS` in this process, in an empty folder, where a connection is a fault."""
    from tfx.cli.main import app

    site = tmp_path / "site"
    info = site / "tfx_off-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tfx_off.py").write_text(BACKENDS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tfx-off\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tfx]\noff = tfx_off\n")
    monkeypatch.syspath_prepend(str(site))
    for name in os.environ.keys() - ENVIRONMENT.keys():
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TFX_OFFLINE")
    monkeypatch.setenv("TFX_LOAD_PLUGINS", "tfx-off")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def connect(*_: object) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", connect)

    def call(*args: object, command: str = "compare", env: dict[str, str] | None = None) -> Any:
        return CliRunner().invoke(app, [command, *map(str, args)], env=env)

    return call


def found(done: Any) -> dict[str, Any]:
    """The object that was printed, of which no number is without an end."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    described: dict[str, Any] = json.loads(done.stdout, parse_constant=refuse)
    return described


# ---- the result ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt2-tiny", "microgpt"])
def test_what_agrees_ends_with_0(invoke: Invoke, model: str) -> None:
    pytest.importorskip("torch")
    done = invoke(model, "--backend", "numpy", "-b", "torch")
    assert (done.exit_code, done.stderr) == (0, "")
    head, *rows, verdict = done.stdout.splitlines()
    assert head.split() == ["phase", "what", "shape", "largest", "difference", "relative", "apart"]
    assert {row.split()[0] for row in rows} == {"forward", "backward", "parameter"}
    assert all(row.endswith("  -") for row in rows)
    assert verdict.startswith("numpy and torch agree within ")


def test_what_parts_ends_with_1_and_says_where(invoke: Invoke) -> None:
    done = invoke("gpt2-tiny", "-b", "numpy", "-b", "tilted:left")
    assert (done.exit_code, done.stderr) == (1, "")
    _, *rows, verdict = done.stdout.splitlines()
    first = "h.0.mlp.c_fc linear"
    assert verdict.startswith(f"numpy and tilted:left part first at {first} (forward): ")
    assert next(row for row in rows if row.endswith("  yes")).startswith(f"forward    {first} ")


def test_json_is_one_object(invoke: Invoke) -> None:
    done = invoke("gpt2-tiny", "-b", "tilted:left", "-b", "tilted:right", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    described = found(done)
    assert described["model"] == "gpt2-tiny"
    assert described["backends"] == ["tilted:left", "tilted:right"]
    assert (described["dtype"], described["tolerance"]) == ("float32", 3e-5)
    assert (described["agree"], described["first_apart"]) == (True, None)
    assert described["autograd"] == ["core", "core"]
    row = described["rows"][2]
    assert row == {
        "phase": "forward",
        "name": "h.0.ln_1 layer_norm",
        "shape": [1, 35, 128],
        "difference": 0.0,
        "magnitude": row["magnitude"],
        "relative": 0.0,
        "apart": False,
    }
    assert row["magnitude"] > 0
    assert described["largest"]["relative"] == 0.0


def test_what_is_no_number_is_null_and_told(invoke: Invoke) -> None:
    done = invoke("gpt2-tiny", "-b", "numpy", "-b", "broken:left", "--json")
    assert done.exit_code == 1
    assert done.stderr == "the loss is not finite on broken:left\n"
    described = found(done)
    assert described["first_apart"]["name"] == "h.0.mlp.c_fc linear"
    assert described["first_apart"]["difference"] is None
    assert described["losses"][1] is None


def test_the_tolerance_decides(invoke: Invoke) -> None:
    both = ("gpt2-tiny", "-b", "numpy", "-b", "tilted:left")
    assert invoke(*both, "--tolerance", "0.5").exit_code == 0
    assert invoke(*both, "--tolerance", "1e-9").exit_code == 1
    assert invoke("microgpt", "-b", "numpy", "-b", "numpy", "--tolerance", "0").exit_code == 0


def test_without_kernels_both_are_composed(invoke: Invoke) -> None:
    """Composed forms give other bits than NumPy's kernels, and the same as each other."""
    both = ("microgpt", "-b", "numpy", "-b", "tilted:left", "--tolerance", "0")
    from tfx.core.fused import composed

    assert invoke(*both).exit_code == 1
    with composed():
        assert invoke(*both).exit_code == 0


# ---- what it is of -------------------------------------------------------------------------------


def losses(done: Any) -> list[float]:
    assert done.exit_code == 0, done.stderr
    return list(found(done)["losses"])


def test_of_a_prompt_it_is_the_loss_that_eval_measures(invoke: Invoke) -> None:
    text = "The dog had a ball, and the cat had none."
    Path("text.txt").write_text(text)
    done = invoke("gpt2-tiny", "-b", "numpy", "--data", "text.txt", "--json", command="eval")
    expected = json.loads(done.stdout)["loss"]
    done = invoke("gpt2-tiny", "-b", "numpy", "-b", "numpy", "--prompt", text, "--json")
    assert losses(done) == pytest.approx([expected, expected], rel=1e-5)


def test_of_a_new_model_it_is_the_first_loss_of_its_training(invoke: Invoke) -> None:
    flags = ("-b", "numpy", "--data", BUNDLED, "--steps", 1, "--out", "run", "--seed", 7)
    done = invoke("microgpt", *flags, "--num-samples", 0, "--json", command="train")
    expected = json.loads(done.stdout)["final_loss"]
    both = ("microgpt", "-b", "numpy", "-b", "numpy", "--json")
    assert losses(invoke(*both, "--seed", 7)) == pytest.approx([expected] * 2)
    default = losses(invoke(*both))
    assert default == losses(invoke(*both, "--seed", 42)) != pytest.approx([expected] * 2)
    trained = losses(invoke(*both, "--seed", 7, "--weights", "run"))
    assert trained < [expected] * 2


def test_weights_without_a_tokenizer(invoke: Invoke) -> None:
    folder = write_gpt2(Path("bare"), tokenizer=False, n_positions=8)
    both = ("gpt2", "--weights", folder, "-b", "numpy", "-b", "numpy")
    described = found(invoke(*both, "--dtype", "float64", "--json"))
    assert described["rows"][0]["shape"] == [1, 8, 32]
    assert described["dtype"] == "float64"
    done = invoke(*both, "--prompt", "the")
    assert done.exit_code == 2
    assert "without a tokenizer" in done.stderr


# ---- what is refused -----------------------------------------------------------------------------

TWICE = ("-b", "numpy", "-b", "numpy")


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("microgpt",), "takes two backends, as in -b numpy -b torch, not 0"),
        (("microgpt", "-b", "numpy"), "takes two backends, as in -b numpy -b torch, not 1"),
        (("microgpt", *TWICE, "-b", "numpy"), "takes two backends, .*, not 3"),
        (("microgpt", "-b", "numpy", "-b", "tilde"), "no backend named 'tilde'. Did you mean"),
        (("micro", *TWICE), "no model named 'micro'"),
        (("mute", *TWICE), "mute has no example to compare backends on"),
        (("gpt2-tiny", *TWICE, "--seed", "1"), "gpt2-tiny has no use for --seed; leave it out"),
        (("gpt2-tiny", *TWICE, "-p", "a"), "tokens in the prompt: 1; expected from 2 to 257"),
        (("gpt2-tiny", *TWICE, "-p", "7" * 300), "tokens in the prompt: 3"),
        (("gpt2-tiny", *TWICE, "--dtype", "int8"), "gpt2-tiny cannot compute in int8 on numpy"),
        (("microgpt", *TWICE, "-p", "a" * 16), "the prompt has 16 characters; .* at most 15"),
        (("microgpt", *TWICE, "--tolerance", "-1"), "expected a number of at least 0, got '-1'"),
        (("microgpt", *TWICE, "--autograd", "native"), "backend numpy has no autograd of its own"),
        (("microgpt", *TWICE, "--plot", "no/x.png"), "--plot no/x.png: there is no folder no"),
    ],
)
def test_a_wrong_command_line(invoke: Invoke, args: tuple[str, ...], fault: str) -> None:
    done = invoke(*args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert re.search(fault, done.stderr), done.stderr


def test_a_character_the_model_never_saw_is_one_line(invoke: Invoke) -> None:
    done = invoke("microgpt", *TWICE, "--prompt", "Éva")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("tfx: the model was not trained on 'É'")
    assert done.stderr.count("\n") == 1


def test_the_environment_names_no_backend(invoke: Invoke) -> None:
    named = {"TFX_BACKEND": "nonsense", "TFX_DEVICE": "nowhere"}
    assert invoke("microgpt", *TWICE, env=named).exit_code == 0
    assert invoke("microgpt", "-b", "numpy", env={"TFX_BACKEND": "numpy"}).exit_code == 2


# ---- the picture ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "name", "start"),
    [(["--plot"], "compare.png", PNG), (["--plot", "x.svg"], "x.svg", b"<?xml")],
)
def test_a_picture(invoke: Invoke, flag: list[str], name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    done = invoke(*flag, "microgpt", *TWICE, "--json")
    assert (done.exit_code, done.stderr) == (0, f"picture: {name}\n")
    assert found(done)["plot"] == name
    assert Path(name).read_bytes().startswith(start)


def test_the_picture_names_every_row(invoke: Invoke) -> None:
    pytest.importorskip("matplotlib")
    done = invoke("gpt2-tiny", "-b", "numpy", "-b", "broken:left", "--plot", "x.svg", "--json")
    picture = Path("x.svg").read_text()
    assert all(f"<!-- {row['name']} -->" in picture for row in found(done)["rows"])


def test_a_picture_that_fails_takes_nothing_with_it(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "compare.png")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    done = invoke("microgpt", *TWICE, "--plot", "--json")
    assert done.exit_code == 1
    assert found(done)["agree"] is True
    assert done.stderr == "tfx: compare.png: No space left on device\n"
