"""Where single keys come from: a terminal, or a file that somebody wrote beforehand."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

from tfx.cli.output import is_terminal
from tfx.core.errors import DataError, UsageError
from tfx.core.files import reason, shown
from tfx.core.wording import quoted

END = "\x04"  # Ctrl-D


def typed() -> Generator[str]:
    """The keys typed at the terminal, one by one, without Enter, until it is closed or Ctrl-D.

    The terminal is as it was when the iterator is closed. Ctrl-C interrupts, as ever; so does
    SIGTERM, which would else leave a terminal behind that shows nothing of what is typed.

    Raises:
        UsageError: stdin is no terminal.
    """
    if not is_terminal(sys.stdin):
        raise UsageError(
            "the keys are typed at a terminal, and stdin is none; write them to a file and name it "
            "with --feedback-file"
        )
    return _unix_keys(sys.stdin.fileno()) if find_spec("termios") else _windows_keys()


def _unix_keys(descriptor: int) -> Generator[str]:
    import termios
    import tty

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before, by_default = termios.tcgetattr(descriptor), signal.signal(signal.SIGTERM, end)
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)  # what was typed ahead counts
        while (key := _read_byte(descriptor)) not in (b"", END.encode()):
            yield key.decode("latin-1")
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, by_default)


def _read_byte(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1)
    except OSError:  # the terminal has gone
        return b""


def _windows_keys() -> Generator[str]:
    from msvcrt import getwch  # type: ignore[attr-defined]

    while (key := getwch()) not in (END, "\x1a"):
        yield key


def written(file: Path, known: str) -> Generator[str]:
    """The keys in a file: blanks mean nothing, nor does what follows `#` in its line.

    Args:
        file: `-` is stdin.
        known: the keys there are.

    Raises:
        DataError: it cannot be read, or has something else in it.
    """
    origin = "stdin" if str(file) == "-" else shown(file)
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the keys in {origin}: {reason(error)}") from None
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        for key in "".join(line.partition("#")[0].split()):
            if key not in known:
                raise DataError(
                    f"line {number} of {origin} has the key {quoted(key)}; expected "
                    f"{', '.join(known)}"
                )
            keys.append(key)
    return (key for key in keys)
