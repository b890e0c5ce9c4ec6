"""What `docs/explain.md` shows can be done."""

from __future__ import annotations

import math
import re
import shlex
from importlib import import_module

import pytest
import typer
from source_tree import ROOT

from tfx.cli.explain import WEIGHTS_AT_ONCE

PAGE = (ROOT / "docs/explain.md").read_text(encoding="utf-8")
COMMANDS, CODE = (
    re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0]
    for language in ("sh", "python")
)


@pytest.mark.parametrize("line", COMMANDS.splitlines())
def test_every_command_is_one_that_tfx_takes(line: str) -> None:
    program, name, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(import_module(f"tfx.cli.{name}").app)
    assert (program, name) == ("tfx", "explain")
    with command.make_context(name, arguments):
        pass  # an unknown option or a bad value has raised


def test_the_example_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    exec(CODE, {})
    assert "(1, 8, 768) (1, 4, 8, 8) (1, 8, 128)" in capsys.readouterr().out


def test_the_numbers_in_the_text() -> None:
    assert f"{WEIGHTS_AT_ONCE:,} numbers, 12 layers of\n12 heads over 170 tokens" in PAGE
    assert 144 * 170**2 <= WEIGHTS_AT_ONCE < 144 * 171**2
    assert f"{math.log(50257):.2f}" == "10.82" and f"{1 / math.log(2):.3f}" == "1.443"
