"""Where single keys come from: a terminal, or a file that somebody wrote beforehand."""

from __future__ import annotations

import os
import re
import select
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
ESCAPE = b"\x1b"
ENDED = rb"\x1b(?:\[[^@-~]*[@-~]|O.|[^\[O])"
"""What an arrow or another key without a letter sends, whole (ECMA-48, 5.4; xterm's SS3)."""
LONGEST = 16
AT_ONCE = 0.02  # seconds from one byte of a key to the next


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
        while (key := _read_key(descriptor)) not in (b"", END.encode()):
            yield key.decode("utf-8", "replace")
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, by_default)


def _read_key(descriptor: int) -> bytes:
    """What one key sends: a byte, a letter in UTF-8, or ESC and what comes with it at once."""
    key = _read_byte(descriptor)
    if key == ESCAPE:
        while len(key) < LONGEST and not re.fullmatch(ENDED, key) and _has_more(descriptor):
            key += _read_byte(descriptor)
    elif key >= b"\xc0":
        while len(key) < (2 if key < b"\xe0" else 3 if key < b"\xf0" else 4):
            key += _read_byte(descriptor) or b"?"
    return key


def _has_more(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], AT_ONCE)[0])


def _read_byte(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1)
    except OSError:  # the terminal has gone
        return b""


def _windows_keys() -> Generator[str]:
    from msvcrt import getwch  # type: ignore[attr-defined]

    while (key := getwch()) not in (END, "\x1a"):
        yield key + (getwch() if key in "\x00\xe0" else "")  # an arrow and its like send two


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
