"""What a command writes where somebody says takes the place of its like, and of nothing else."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tfx.cli import options
from tfx.cli.destination import PAGE, PICTURE, REPORT, Kind, check_destination
from tfx.cli.main import COMMANDS
from tfx.core.errors import TfxError, UsageError

EXPLAIN = ("explain", "bush", "x", "--backend=chip")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ((*EXPLAIN, "--html"), "mine.html"),
        (("train", "echo", "--plot"), "mine.png"),
        (("bench", "echo", "--plot"), "mine.png"),
        (("compare", "echo", "-b", "chip", "-b", "chip", "--plot"), "mine.svg"),
        (("resonate", "--report", "--plot"), "mine.pdf"),
        (("conformance", "chip", "--out"), "mine.json"),
    ],
)
def test_what_somebody_else_wrote_stays(invoke: Any, command: tuple[str, ...], name: str) -> None:
    pytest.importorskip("matplotlib")
    for path, code in ((Path(name), 1), (Path("mine.safetensors"), 2)):
        path.write_bytes(b'{"mine": 1}')
        done = invoke(*command, str(path))
        assert (done.exit_code, done.stdout) == (code, "")
        assert str(path) in done.stderr and command[-1] in done.stderr
        assert path.read_bytes() == b'{"mine": 1}'
    assert "is there was not written by tfx; choose" in invoke(*command, name).stderr


def test_what_is_made_again_may_be(invoke: Any) -> None:
    report = ("conformance", "numpy", "--level=0", "--out=x.json")
    Path("x.json").touch()  # nothing would be lost
    for _ in range(2):
        assert invoke(*report, env={"TFX_DISABLE_PLUGINS": ""}).exit_code == 0


@pytest.mark.parametrize("suffix", PICTURE.suffixes)
def test_a_picture_is_known_again(tmp_path: Path, suffix: str) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    path = tmp_path / f"x{suffix}"
    figure.savefig(path)
    drawn = path.read_bytes()
    check_destination("--plot", path, PICTURE)
    assert path.read_bytes() == drawn
    path.write_bytes(drawn.replace(b"Matplotlib", b"GIMP"))
    with pytest.raises(TfxError, match="choose another name"):
        check_destination("--plot", path, PICTURE)


@pytest.mark.parametrize(
    ("kind", "name", "complaint"),
    [
        (PAGE, "x.txt", "expected a name that ends in .html, .htm"),
        (REPORT, "none/x.json", "there is no folder none"),
    ],
)
def test_a_name_that_will_not_do(kind: Kind, name: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--it {name}: {complaint}")):
        check_destination("--it", Path(name), kind)


# ---- flags that take the name of a file ----------------------------------------------------------


def test_every_flag_with_a_file_asks_for_its_name() -> None:
    apps = [get_command(import_module(f"tfx.cli.{name}").app) for name in COMMANDS]
    every = [part for app in apps for part in getattr(app, "commands", {"": app}).values()]
    named = {
        f"{command.name} {option.opts[0]}": option.type
        for command in every
        for option in command.params
        if option.metavar in ("FILE", "PATH", "DIR")
    }
    assert len(named) > 30
    asking = options.path
    assert [flag for flag, kind in named.items() if getattr(kind, "func", None) != asking] == []


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (
            ["--jsonl="],
            "Invalid value for '--jsonl': expected the name of a file or folder, got ''",
        ),
        (["--jsonl", "--stats"], "got '--stats'; ./--stats would be one"),
        (["--stats", "--jsonl"], "--jsonl expects FILE: Prompts, one object a line"),
    ],
)
def test_a_name_that_was_forgotten(invoke: Any, given: list[str], complaint: str) -> None:
    done = invoke("run", "echo", *given)
    assert (done.exit_code, done.stdout) == (2, "")
    assert complaint in done.stderr and "Try 'tfx run --help' for help." in done.stderr
    assert len(done.stderr.splitlines()) == 2
