"""How a command ends: the one place that turns what went wrong into a line and an exit code.

A wrong command line gets a second line, which points to the help.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an expected failure: `TfxError`, a refusal of the operating system, no memory left |
| 2 | a wrong command line |
| 3 | a loss or gradient that is not finite |
| 130 | Ctrl-C |
| 141 | whoever read our output has gone |

Anything else is a bug, ours or a plugin's, and keeps its traceback. `TFX_TRACEBACK=1` shows
the traceback of the others too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import typer

from tfx.cli.output import tell
from tfx.core.errors import TfxError, UsageError
from tfx.core.wording import one_line

INTERRUPTED = 130
CLOSED_PIPE = 141

# The base of every complaint about a command line, by way of the one that Typer exports.
CommandLineError: Any = typer.BadParameter.__mro__[1]


def guarded(action: Callable[[], object]) -> int:
    """Run `action`, say on stderr what went wrong, and return the exit code."""
    try:
        code = _attempt(action)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout, sys.stderr)
        return CLOSED_PIPE
    except OSError as error:
        with contextlib.suppress(OSError):
            _say(_refusal(error), error)
        _discard(sys.stdout)
        return TfxError.exit_code
    return code


def _attempt(action: Callable[[], object]) -> int:
    try:
        action()
    except typer.Exit as done:
        return done.exit_code
    except CommandLineError as error:
        _say(_complaint(error), error)
        return UsageError.exit_code
    except TfxError as error:
        _say(str(error), error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort) as error:
        _say("interrupted", error)
        return INTERRUPTED
    except MemoryError as error:
        _say(f"out of memory: {error or 'no room for the next array'}", error)
        return TfxError.exit_code
    except OSError:
        raise
    except Exception as error:
        error.add_note(
            "This is a bug in tfx or in a plugin, not in what you typed; "
            "`tfx conformance` finds those of a backend."
        )
        raise
    return 0


def _say(message: str, error: BaseException) -> None:
    if os.environ.get("TFX_TRACEBACK", "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    notes = getattr(error, "__notes__", ())
    tell(f"tfx: {message}" + (f" ({'; '.join(notes)})" if notes else ""))


def _refusal(error: OSError) -> str:
    """What the operating system refused, and of which file."""
    if error.strerror is None:
        return one_line(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _complaint(error: Any) -> str:
    """What is wrong with the command line, where the value came from, and where help is."""
    message = error.format_message()
    context = error.ctx
    if context is None:
        return str(message)
    if (flag := getattr(error, "option_name", None)) and "requires an argument" in message:
        wanted = next((x for x in context.command.params if flag in x.opts), None)
        message = f"{flag} expects {wanted.metavar}: {wanted.help}" if wanted else message
    parameter = getattr(error, "param", None)
    source = parameter and context.get_parameter_source(parameter.name)
    if source is not None and source.name == "DEFAULT_MAP":
        message = f"{message} (in {context.params['config']})"
    return f"{message}\nTry '{context.command_path} --help' for help."


def _discard(*streams: TextIO | None) -> None:
    """Let what a broken stream still holds go nowhere, or Python would complain at its exit."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[union-attr]
