"""`tfx conformance`: the table, the to-do list, the report, and how it ends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SLOPPY = '''
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec

class Sloppy(NumpyBackend):
    """Two primitives to be written, and one wrong."""

    name = "sloppy"

    def tanh(self, x):
        """Hyperbolic tangent."""
        raise NotImplementedError

    def sqrt(self, x):
        raise NotImplementedError("sqrt")

    def exp(self, x):
        return self._array(self.xp.exp(x) * 1.01)

@hookimpl
def tfx_backends():
    return [BackendSpec("sloppy", "tfx_sloppy:Sloppy", "mistakes on purpose")]
'''


@pytest.fixture
def conformance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> Iterator[Callable[..., Any]]:
    """Run `tfx conformance ARGS` where a backend called sloppy is installed."""
    folder = tmp_path / "site"
    info = folder / "tfx_sloppy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tfx-sloppy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tfx]\nsloppy = tfx_sloppy\n")
    (folder / "tfx_sloppy.py").write_text(SLOPPY)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("TFX_DISABLE_PLUGINS")
    yield lambda *args: invoke("conformance", *args)
    sys.modules.pop("tfx_sloppy", None)


def test_a_sound_backend(conformance: Any, tmp_path: Path) -> None:
    done = conformance("numpy", "--level", "L0-L1")
    lines = done.stdout.splitlines()
    assert done.exit_code == 0 and lines[-1] == "numpy passes L0 to L1."
    assert lines[0].split()[:5] == ["LEVEL", "PASSED", "FAILED", "MISSING", "SKIPPED"]
    assert [line.split()[0] for line in lines[1:3]] == ["L0", "L1"]
    assert done.stderr == "all of it: conformance.json\n"
    report = json.loads((tmp_path / "conformance.json").read_text())
    assert report["passed"] == ["L0", "L1"] and set(report["levels"]) == {"L0", "L1"}


def test_what_is_to_be_written_and_what_is_wrong(conformance: Any) -> None:
    done = conformance("sloppy", "--level", "L0-1")
    assert done.exit_code == 1
    said = done.stdout
    owed = said.split("to be written (and how many checks stopped there):\n")[1].splitlines()[:2]
    assert [line.split(maxsplit=2)[::2] for line in owed] == [
        ["tanh", "Hyperbolic tangent."],
        ["sqrt", "Square root; NaN below 0."],
    ]
    assert "  L1 exp float32: " in said and "expected" in said
    assert said.splitlines()[-1] == "sloppy passes no level yet. First to mend: L0 tanh."


def test_what_says_the_same_is_said_once(conformance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tfx.backends.numpy.backend import NumpyBackend

    monkeypatch.setattr(NumpyBackend, "dtype", lambda self, x: x.dtype)
    said = conformance("numpy", "--level", "L0").stdout
    assert said.count("not a DType") < 4  # of 40 checks that fail
    same = r"^     and \d+ more say the same: L0 arrays of bool, \.\.\.$"
    assert re.search(same, said, re.MULTILINE)


def test_an_interrupt_says_where_and_what_was_found(
    conformance: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tfx.backends.numpy.backend import NumpyBackend

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(NumpyBackend, "log", interrupted)
    done = conformance("sloppy", "--level", "L1")
    assert done.exit_code == 130 and "interrupted (on [" in done.stderr
    assert "in L1-log-float32)" in done.stderr
    assert "L1 exp float32: " in done.stdout  # what was found until then
    done = conformance("sloppy", "--level", "L1", "--json")
    assert (done.exit_code, done.stdout) == (130, "")
    assert not (tmp_path / "conformance.json").exists()


def test_json_is_the_report_and_nothing_else(conformance: Any, tmp_path: Path) -> None:
    done = conformance("sloppy", "--level", "0", "--json", "--out", "mine.json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == json.loads((tmp_path / "mine.json").read_text())
    assert not (tmp_path / "conformance.json").exists()


def test_known_gaps(conformance: Any, tmp_path: Path) -> None:
    (tmp_path / "gaps").write_text("L1-exp-float32 # later\nL1-exp-float64\nL1-exp-float16\n")
    done = conformance("sloppy", "-k", "L1-exp", "--xfails", "gaps")
    assert done.exit_code == 0 and "known to fail:" in done.stdout
    done = conformance("numpy", "-k", "L1-exp", "--xfails", "gaps")
    assert done.exit_code == 1 and "passed; take them off the list:" in done.stdout


def test_the_names_of_the_checks(conformance: Any, tmp_path: Path) -> None:
    done = conformance("--list", "--level", "L2", "-k", "matmul")
    assert done.exit_code == 0 and "L2-matmul-float64-core" in done.stdout.splitlines()
    assert not (tmp_path / "conformance.json").exists()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], 2, "which backend? `tfx backends` lists those that are here"),
        (["slopy"], 2, "no backend named 'slopy'. Did you mean 'sloppy'?"),
        (["numpy", "--level", "L7"], 2, "--level 'L7': expected L0 to L6, or a span"),
        (["numpy", "-k", "xyz"], 2, "no check has 'xyz' in its name"),
        (["numpy", "--xfails", "gaps"], 1, "cannot read known gaps from gaps: No such file"),
        (["numpy", "--out", "no/where.json"], 2, "--out no/where.json: there is no folder no"),
        (["numpy:gpu"], 1, "backend 'numpy' has no device 'gpu'"),
    ],
)
def test_what_will_not_do(
    conformance: Any, tmp_path: Path, args: list[str], code: int, said: str
) -> None:
    done = conformance(*args)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith(f"tfx: {said}")
    assert not list(tmp_path.glob("*.json"))
