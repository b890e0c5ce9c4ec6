"""Where a recipe's words go: results to stdout, notes and progress to stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from tfx.cli.output import emit, emit_json, is_terminal, tell
from tfx.cli.progress import Bar, Lines, step_line


class TextReporter:
    """Shows results as lines. The recipe's words pass through here as they come."""

    def __init__(self) -> None:
        self._progress: Bar | Lines | None = None
        self._reached: tuple[int, int, float] | None = None
        self._in_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:  # left open by an error
            self._progress.close()
        if self._in_line:
            self.piece("\n")

    def result(self, line: str) -> None:
        self.piece(f"{line}\n")

    def piece(self, text: str) -> None:
        with self._aside():
            emit(text, end="")
        if text:
            self._in_line = not text.endswith("\n")

    def note(self, line: str) -> None:
        with self._aside():
            tell(line)

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None:
        if self._progress is None:
            self._progress = (Bar if is_terminal(sys.stderr) else Lines)(step, total)
        self._progress.update(step, loss, seconds)
        self._reached = step, total, loss

    def progress_done(self, *, is_result: bool = True) -> None:
        if self._progress is None:
            return
        self._progress.close()
        seen = isinstance(self._progress, Bar) and is_terminal(sys.stdout)
        self._progress = None
        if is_result and not seen and self._reached:
            self.result(step_line(*self._reached))

    def _aside(self) -> AbstractContextManager[None]:
        return nullcontext() if self._progress is None else self._progress.aside()

    def finish(self, result: Mapping[str, Any]) -> None:
        """The command is done: nothing to add to the lines already shown."""


class LateReporter(TextReporter):
    """Shows the same as a `TextReporter`, all at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []

    def piece(self, text: str) -> None:
        self._pieces.append(text)

    def finish(self, result: Mapping[str, Any]) -> None:
        super().piece("".join(self._pieces))


class JsonReporter(TextReporter):
    """Shows nothing on stdout but, at the end, the result as one object."""

    def piece(self, text: str) -> None:
        pass

    def finish(self, result: Mapping[str, Any]) -> None:
        emit_json(result)


def reporter(as_json: bool, live: bool = True) -> TextReporter:
    """The reporter for a command: with `--json`, or with text that is shown as it comes, or not."""
    if as_json:
        return JsonReporter()
    return TextReporter() if live else LateReporter()
