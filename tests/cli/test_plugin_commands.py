"""Commands that plugins bring: listed without an import, run as ours are, named when at fault."""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from imports import imports_of
from installing import install

from tfx.cli.main import COMMANDS
from tfx.core import hookspecs
from tfx.core.plugins import PluginHost

GREET = """
import typer
from typing import Annotated
from tfx.core.errors import NonFiniteError, TfxError, UsageError

ENDINGS = {
    "refused": lambda: TfxError("nobody is there; try later"),
    "usage": lambda: UsageError("--end: expected another"),
    "nonfinite": lambda: NonFiniteError("the greeting became nan"),
    "code": lambda: typer.Exit(7),
    "interrupt": KeyboardInterrupt,
    "bug": lambda: ZeroDivisionError("division by zero"),
}

def greet(
    name: str, times: Annotated[int, typer.Option(min=1)] = 1, end: str | None = None
) -> None:
    "Say hello to NAME."
    for _ in range(times):
        typer.echo(f"Hello, {name}!")
    if end:
        raise ENDINGS[end]()
"""


@pytest.fixture
def acme(shelf: Path) -> None:
    """The distribution tfx-acme, with the command `greet`."""
    install(shelf, "tfx-acme", GREET, commands={"greet": "tfx_acme:greet"})


def listed(help_text: str) -> dict[str, str]:
    """The commands that `tfx --help` lists, and what it says of each."""
    lines = help_text.split("Commands:")[1].splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line)


@pytest.mark.usefixtures("acme")
class TestInOrder:
    def test_help_lists_it_below_ours_with_its_distribution(self, invoke: Any) -> None:
        commands = listed(invoke("--help").stdout)
        assert list(commands) == [*COMMANDS, "greet"]
        assert commands["greet"] == "from tfx-acme 1.0"
        assert "tfx_acme" not in sys.modules

    def test_it_runs(self, invoke: Any) -> None:
        done = invoke("greet", "Ann", "--times", "2")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "Hello, Ann!\n" * 2, "")

    def test_its_help_is_made_of_the_function(self, invoke: Any) -> None:
        done = invoke("greet", "-h")
        assert done.exit_code == 0
        assert done.stdout.split()[:3] == ["Usage:", "tfx", "greet"]
        assert "Say hello to NAME." in done.stdout
        assert "--times" in done.stdout

    @pytest.mark.parametrize(
        ("ending", "code", "line"),
        [
            ("refused", 1, "tfx: nobody is there; try later"),
            ("usage", 2, "tfx: --end: expected another"),
            ("nonfinite", 3, "tfx: the greeting became nan"),
            ("code", 7, ""),
            ("interrupt", 130, "tfx: interrupted"),
        ],
    )
    def test_it_ends_as_ours_do(self, invoke: Any, ending: str, code: int, line: str) -> None:
        done = invoke("greet", "Ann", "--end", ending)
        assert (done.exit_code, done.stdout) == (code, "Hello, Ann!\n")
        assert done.stderr.strip() == line

    def test_a_bug_of_its_own_keeps_its_traceback(self, invoke: Any) -> None:
        done = invoke("greet", "Ann", "--end", "bug")
        assert isinstance(done.exception, ZeroDivisionError)

    def test_a_wrong_command_line_points_to_its_help(self, invoke: Any) -> None:
        done = invoke("greet", "Ann", "--tiems", "2")
        assert done.exit_code == 2
        assert "--times" in done.stderr.splitlines()[0]
        assert done.stderr.splitlines()[1] == "Try 'tfx greet --help' for help."

    def test_a_typo_may_mean_it(self, invoke: Any) -> None:
        assert "No such command 'gret'. Did you mean 'greet'?" in invoke("gret").stderr
        assert "tfx_acme" not in sys.modules

    def test_plugins_lists_it(self, invoke: Any) -> None:
        (row,) = [line for line in invoke("plugins").stdout.splitlines() if "greet" in line]
        assert row.split(maxsplit=4) == ["greet", "tfx-acme", "1.0", "ok", "tfx greet"]
        assert "tfx_acme" not in sys.modules

    def test_ours_do_not_ask_for_it(self, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(PluginHost, "commands", lambda self: pytest.fail("asked"))
        assert invoke("run", "echo", "--backend", "chip").exit_code == 0
        assert invoke("models").exit_code == 0

    @pytest.mark.parametrize(
        ("words", "expected"), [("tfx gr", ["greet"]), ("tfx greet --ti", ["--times"])]
    )
    def test_completion(self, tfx: Any, shelf: Path, words: str, expected: list[str]) -> None:
        assert complete(tfx, shelf, words) == expected


def complete(tfx: Any, shelf: Path, words: str) -> list[str]:
    """What a shell would offer to complete `words` with."""
    asking = {"_TFX_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    env = asking | {"_TYPER_COMPLETE_ARGS": words, "PYTHONPATH": str(shelf)}
    done = tfx(env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.installed
@pytest.mark.parametrize(("args", "code"), [(["--help"], 0), (["gret"], 2)])
def test_listing_imports_neither_it_nor_the_plugin_machinery(
    shelf: Path, acme: None, environment: dict[str, str], args: list[str], code: int
) -> None:
    done, imported = imports_of(args, env=environment | {"PYTHONPATH": str(shelf)})
    assert done.returncode == code
    assert "greet" in done.stdout + done.stderr.splitlines()[0]
    assert not imported & {"tfx_acme", "numpy", "torch", "cupy", "rich", "pluggy"}


@pytest.mark.parametrize(
    ("code", "target", "fault"),
    [
        (
            "import acme_arrays",
            "tfx_acme:greet",
            "it cannot be imported (ModuleNotFoundError: No module named 'acme_arrays'). It needs"
            " 'acme_arrays'; reinstall it with what it needs:"
            " pip install --force-reinstall tfx-acme",
        ),
        (
            "raise SystemExit(3)",
            "tfx_acme:greet",
            "it cannot be imported (SystemExit: 3). Upgrade it, or: pip uninstall tfx-acme",
        ),
        (
            "",
            "tfx_acme:greet",
            "it cannot be imported (AttributeError: module 'tfx_acme' has no attribute 'greet')."
            " Upgrade it, or: pip uninstall tfx-acme",
        ),
        (
            "import typer\napp = typer.Typer()",
            "tfx_acme:app",
            "tfx_acme:app is a Typer, not a function. Upgrade it, or: pip uninstall tfx-acme",
        ),
        (
            "async def greet(): print('Hello')",
            "tfx_acme:greet",
            "tfx_acme:greet is a coroutine function, not a function. Upgrade it, or: pip uninstall"
            " tfx-acme",
        ),
        (
            "def greet(): yield print('Hello')",
            "tfx_acme:greet",
            "tfx_acme:greet is a generator function, not a function. Upgrade it, or: pip uninstall"
            " tfx-acme",
        ),
        (
            "async def greet(): yield print('Hello')",
            "tfx_acme:greet",
            "tfx_acme:greet is an asynchronous generator function, not a function. Upgrade it, or:"
            " pip uninstall tfx-acme",
        ),
        (
            "",
            "tfx_acme",
            "tfx_acme is a module, not a function. Upgrade it, or: pip uninstall tfx-acme",
        ),
    ],
)
def test_one_that_cannot_be_loaded_is_named_when_it_is_called(
    invoke: Any, shelf: Path, code: str, target: str, fault: str
) -> None:
    install(shelf, "tfx-acme", code, commands={"greet": target})
    done = invoke("greet")
    assert done.exit_code == 1
    assert done.stderr == f"tfx: command 'greet' of tfx-acme 1.0 is broken: {fault}\n"
    assert "greet" in listed(invoke("--help").stdout)
    assert invoke("models").exit_code == 0


def test_completion_is_silent_about_one_that_cannot_be_loaded(tfx: Any, shelf: Path) -> None:
    install(shelf, "tfx-acme", "import acme_arrays", commands={"greet": "tfx_acme:greet"})
    assert complete(tfx, shelf, "tfx greet --ti") == []


class TestNames:
    @pytest.fixture
    def rivals(self, shelf: Path) -> None:
        for name in ("acme", "best"):
            code = f"def greet():\n    print({name!r})"
            install(shelf, f"tfx-{name}", code, commands={"greet": f"tfx_{name}:greet"})

    @pytest.mark.usefixtures("rivals")
    def test_of_two_with_one_name_neither_runs(self, invoke: Any) -> None:
        done = invoke("greet")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == (
            "tfx: command 'greet' of tfx-acme 1.0 is broken: the name is also claimed by "
            "tfx-best 1.0, and none of them runs. "
            "Uninstall one, or name one in TFX_DISABLE_PLUGINS\n"
        )
        assert list(listed(invoke("--help").stdout)) == list(COMMANDS)
        faults = invoke("plugins").stdout.split("\n\n")[1:]
        assert [fault.split(":")[0] for fault in faults if "claimed" in fault] == [
            "greet (tfx-acme 1.0)",
            "greet (tfx-best 1.0)",
        ]

    @pytest.mark.usefixtures("rivals")
    @pytest.mark.parametrize(("disabled", "runs"), [("acme", "best"), ("best", "acme")])
    def test_the_user_can_choose(self, invoke: Any, disabled: str, runs: str) -> None:
        choice = {"TFX_DISABLE_PLUGINS": f"tfx-{disabled}"}
        assert invoke("greet", env=choice).stdout == f"{runs}\n"
        assert listed(invoke("--help", env=choice).stdout)["greet"] == f"from tfx-{runs} 1.0"

    @pytest.mark.usefixtures("rivals")
    @pytest.mark.parametrize("args", [["plugins"], ["--help"], ["greet"]], ids=" ".join)
    def test_where_plugins_are_strict_nothing_that_lists_them_runs(
        self, invoke: Any, args: list[str]
    ) -> None:
        done = invoke(*args, env={"TFX_STRICT_PLUGINS": "1"})
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("tfx: command 'greet' of tfx-acme 1.0 is broken: ")

    def test_ours_win(self, invoke: Any, shelf: Path) -> None:
        install(shelf, "tfx-acme", "raise OSError", commands={"models": "tfx_acme:models"})
        assert "echo" in invoke("models").stdout
        assert listed(invoke("--help").stdout)["models"] == COMMANDS["models"]
        assert invoke("plugins").stdout.split("\n\n")[-1] == (
            "models (tfx-acme 1.0): tfx has a command of its own by that name\n"
            "  Upgrade it, or: pip uninstall tfx-acme\n"
        )

    @pytest.mark.parametrize("name", ["Greet", "greet me", "--greet"])
    def test_what_nobody_can_type(self, invoke: Any, shelf: Path, name: str) -> None:
        install(shelf, "tfx-acme", GREET, commands={name: "tfx_acme:greet"})
        assert list(listed(invoke("--help").stdout)) == list(COMMANDS)
        fault = invoke("plugins").stdout.split("\n\n")[-1]
        assert fault.startswith(
            f"{name} (tfx-acme 1.0): nobody can type it; names are lower case letters, digits"
        )

    @pytest.mark.usefixtures("acme")
    @pytest.mark.parametrize(
        ("environ", "state"),
        [
            (
                {"TFX_DISABLE_PLUGINS": "greet"},
                "disabled: TFX_DISABLE_PLUGINS names it. Take it out of there",
            ),
            (
                {"TFX_LOAD_PLUGINS": "fake"},
                "not loaded: TFX_LOAD_PLUGINS leaves it out. Add it there",
            ),
        ],
    )
    def test_one_that_is_kept_out(self, invoke: Any, environ: dict[str, str], state: str) -> None:
        assert "greet" not in listed(invoke("--help", env=environ).stdout)
        done = invoke("greet", "Ann", env=environ)
        assert done.exit_code == 2
        assert done.stderr == f"tfx: command 'greet' of tfx-acme 1.0 is {state}\n"
        assert "tfx_acme" not in sys.modules


def test_the_documented_example_is_a_working_command(invoke: Any, shelf: Path) -> None:
    documented = inspect.getdoc(hookspecs) or ""
    _, _, example = documented.partition("`tfx_acme/commands.py`:\n")
    code = textwrap.dedent("".join(line for line in example.splitlines(True) if line[:1] in " \n"))
    install(shelf, "tfx-acme", code, commands={"greet": "tfx_acme:greet"})
    assert invoke("greet", "Ann", "--times", "2").stdout == "Hello, Ann!\n" * 2
    refused = invoke("greet", "Ann", "--times", "101")
    assert (refused.exit_code, refused.stderr[:5]) == (1, "tfx: ")
