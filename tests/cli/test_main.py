"""`tfx` itself: help, version, typos, completion, and how little all of that imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from imports import imports_of

from tfx.cli.main import COMMANDS

HEAVY = {"numpy", "torch", "cupy", "rich", "pluggy", "pooch", "tqdm", "importlib.metadata"}


@pytest.mark.installed
@pytest.mark.parametrize(
    ("args", "code", "allowed"),
    [
        (["--help"], 0, set()),
        ([], 2, set()),
        (["trian"], 2, set()),
        (["backends"], 0, {"importlib.metadata", "pluggy"}),
        (["models"], 0, {"importlib.metadata", "pluggy"}),
        (["train", "--help"], 0, set()),
        (["train", "--stpes", "5"], 2, set()),
        (["--version"], 0, {"importlib.metadata"}),
    ],
)
def test_what_needs_no_array_imports_none(args: list[str], code: int, allowed: set[str]) -> None:
    done, imported = imports_of(args)
    assert done.returncode == code, done.stderr
    assert not imported & (HEAVY - allowed)


@pytest.mark.installed
def test_the_first_token_waits_for_nothing_that_another_command_needs() -> None:
    args = ["run", "gpt2-tiny", "ROMEO:", "-n", "1", "--seed", "1", "--backend", "numpy"]
    done, imported = imports_of(args)
    assert done.returncode == 0, done.stderr
    others = {"training", "evaluation", "convert", "example"}
    assert not imported & {f"tfx.models.gpt2.{name}" for name in others}
    assert not imported & {"tfx.core.optim", "tfx.core.training", "tfx.core.hub", "torch", "cupy"}


def test_help_lists_the_commands_that_exist(tfx: Any) -> None:
    done = tfx("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    listed = done.stdout.split("Commands:")[1].splitlines()
    assert [line.split()[0] for line in listed if line] == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_begins_as_listed(invoke: Any, command: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[2].strip() == COMMANDS[command]


def test_help_is_not_cut_short(tfx: Any) -> None:
    assert "..." not in tfx("--help").stdout.split("Commands:")[1]


def test_a_typo_gets_a_suggestion(tfx: Any) -> None:
    done = tfx("trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "tfx: No such command 'trian'. Did you mean 'train'?",
        "Try 'tfx --help' for help.",
    ]


def test_a_mistyped_option_gets_a_suggestion(tfx: Any) -> None:
    done = tfx("train", "echo", "--stesp", "5")
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert "--stesp" in first
    assert "--steps" in first
    assert second == "Try 'tfx train --help' for help."


def test_without_a_command_the_help_goes_to_stderr(tfx: Any) -> None:
    done = tfx()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


def test_version(tfx: Any) -> None:
    from importlib.metadata import version

    done = tfx("--version")
    assert (done.returncode, done.stdout) == (0, f"tfx {version('tfx-lm')}\n")


def test_the_installed_script_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("tfx")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("tfx ")


@pytest.mark.parametrize(
    "args",
    [["--help"], ["train", "--help"], ["trian"], ["train", "echo"], ["backends"], ["plugins"]],
    ids=" ".join,
)
def test_no_escape_codes_in_a_pipe(tfx: Any, args: list[str]) -> None:
    done = tfx(*args, env={"FORCE_COLOR": "1", "GITHUB_ACTIONS": "true", "PY_COLORS": "1"})
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tfx tr", ["train"]),
        ("tfx train --bat", ["--batch-size"]),
        ("tfx train ec", ["echo"]),
        ("tfx train echo --backend ", ["absent", "chip", "dead"]),
        ("tfx run echo --dtype fl", ["float16", "float32", "float64"]),
        ("tfx train echo --autograd n", ["native"]),
    ],
)
def test_completion(tfx: Any, words: str, expected: list[str]) -> None:
    asking = {"_TFX_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = tfx(env=asking | {"_TYPER_COMPLETE_ARGS": words})
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == expected


def test_completion_can_be_installed(tfx: Any) -> None:
    done = tfx("--show-completion", "bash")
    assert done.returncode == 0
    assert "_TFX_COMPLETE=complete_bash" in done.stdout


EMPTY_APP = f"""
import typer
app = typer.Typer(rich_markup_mode=None)
for name, purpose in {COMMANDS!r}.items():
    app.command(name, help=purpose)(lambda: None)
app()
"""


@pytest.mark.slow
def test_help_is_as_fast_as_that_of_an_empty_app() -> None:
    def seconds(*command: str) -> float:
        begun = perf_counter()
        subprocess.run([sys.executable, *command, "--help"], check=True, capture_output=True)
        return perf_counter() - begun

    pairs = [(seconds("-m", "tfx"), seconds("-c", EMPTY_APP)) for _ in range(10)]
    ours, empty = (min(times) for times in zip(*pairs, strict=True))
    assert ours < 2 * empty
