"""Writing to the two streams: results to stdout, all other words to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from tfx.core.errors import TfxError


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches; Python has None for a stream that was closed from the start."""
    return stream is not None and stream.isatty()


def tell(text: str) -> None:
    """Print `text` on stderr at once; where there is none, nobody wants to know."""
    if sys.stderr is not None:  # print would turn to stdout
        print(text, file=sys.stderr, flush=True)


def emit(text: str, end: str = "\n") -> None:
    """Print `text` on stdout at once; a result that cannot be written is an error."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TfxError(f"cannot write the result to stdout: {error.strerror}") from error


def emit_json(result: Mapping[str, Any]) -> None:
    """Print `result` as one JSON object; paths become text."""
    import json

    emit(json.dumps(result, indent=2, default=str, allow_nan=False))


def emit_table(head: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Print aligned columns; a cell with nothing in it shows as `-`."""
    table = [list(head), *([cell or "-" for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        emit("  ".join(cells).rstrip())
