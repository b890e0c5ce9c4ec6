"""`tfx conformance NAME`."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from tfx.cli import options
from tfx.cli.destination import REPORT, check_destination
from tfx.cli.output import emit, emit_json, is_terminal, tell
from tfx.core.errors import TfxError, UsageError
from tfx.core.files import reason, replace_file, shown

if TYPE_CHECKING:
    from tfx.testing import Check, Level, Result
    from tfx.testing.running import Outcome

MOST_SHOWN = 25
"""Faults in the text; all are in the file."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def conformance(
    backend: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME[:DEVICE]",
            help="'tfx backends' lists them.",
            autocompletion=options.complete_backend,
        ),
    ] = None,
    level: Annotated[
        list[str] | None,
        typer.Option(metavar="LEVEL", help="L0 to L6, or a span such as L0-L2; repeatable."),
    ] = None,
    keyword: Annotated[
        str, typer.Option("-k", metavar="TEXT", help="Only checks with this text in their name.")
    ] = "",
    xfails: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="FILE",
            help="Names of checks known to fail, one a line; # begins a comment.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            parser=options.path, metavar="FILE", help="Where the report goes: a .json file."
        ),
    ] = Path("conformance.json"),
    list_checks: Annotated[
        bool, typer.Option("--list", help="Print the names of the checks, and run none.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    from tfx.testing import Subject, checks, run
    from tfx.testing.known_gaps import read_known_gaps
    from tfx.testing.running import asked, summed_up

    levels = _levels(level or [])
    if list_checks:
        names = [str(check) for check in asked(checks(levels), keyword)]
        emit_json({"checks": names}) if as_json else emit("\n".join(names))
        return
    if backend is None:
        raise UsageError("which backend? `tfx backends` lists those that are here")
    known = read_known_gaps(xfails) if xfails else {}
    check_destination("--out", out, REPORT)
    subject = Subject.open(backend)
    table = _Table(quiet=as_json)
    try:
        result = run(subject, levels, keyword, known, table.begins, table.ended)
    except KeyboardInterrupt as error:
        table.close()
        if not as_json:
            emit("\n".join(_findings(summed_up(subject, table.outcomes))))
        error.add_note(f"in {table.check}")
        raise
    table.close()
    if as_json:
        emit_json(result.as_json())
    else:
        emit("\n".join(_findings(result)))
    _write(result, out)
    if result.failures:
        raise typer.Exit(TfxError.exit_code)


def _levels(texts: Iterable[str]) -> list[Level]:
    """`L2`, `2`, `L0-L2`; without any, all of them."""
    from tfx.testing import Level

    chosen: set[Level] = set()
    for text in texts:
        match = re.fullmatch(r"L?([0-6])(?:-L?([0-6]))?", text, re.IGNORECASE)
        if match is None:
            raise UsageError(f"--level {text!r}: expected L0 to L6, or a span such as L0-L2")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(f"--level {text!r}: the first of a span is the lower one")
        chosen.update(Level(n) for n in range(first, last + 1))
    return sorted(chosen) or list(Level)


def _write(result: Result, out: Path) -> None:
    try:
        replace_file(out, [json.dumps(result.as_json(), indent=2).encode() + b"\n"])
    except OSError as error:
        raise TfxError(
            f"cannot write {shown(out)}: {reason(error)}; --out names another file"
        ) from None
    tell(f"all of it: {shown(out)}")


# ---- the table -----------------------------------------------------------------------------------

_COLUMNS = ("passed", "failed", "missing", "skipped")


class _Table:
    """A line for each level, shown when the next one begins, and on a terminal what runs now.

    Attributes:
        outcomes: of the checks so far.
        check: the one that runs now.
    """

    def __init__(self, quiet: bool) -> None:
        self.outcomes: list[Outcome] = []
        self.check: Check | None = None
        self._quiet = quiet

    def begins(self, check: Check) -> None:
        if self.check is None:
            self._row("LEVEL", (column.upper() for column in _COLUMNS), "WHAT IT MEANS TO PASS")
        elif check.level is not self.check.level:
            self.close()
        self.check = check
        _show_for_now(str(check))

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def close(self) -> None:
        """The line of the level that was under way."""
        _show_for_now("")
        if self.check is not None:
            level = self.check.level
            counts = Counter[str](o.status for o in self.outcomes if o.level is level)
            self._row(str(level), (str(counts[column]) for column in _COLUMNS), level.meaning)

    def _row(self, level: str, cells: Iterable[str], meaning: str) -> None:
        if not self._quiet:
            emit("  ".join([level.ljust(5), *(cell.rjust(7) for cell in cells), meaning]))


def _show_for_now(text: str) -> None:
    """In place of what was shown for now, on a terminal: the check that hangs, if one does."""
    if is_terminal(sys.stderr):
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


# ---- what is to be said below it -----------------------------------------------------------------


def _findings(result: Result) -> Iterator[str]:
    yield from _to_be_written(result)
    yield from _told(result, "failed", "failed:")
    yield from _told(result, "xpassed", "known to fail, and passed; take them off the list:")
    yield from _told(result, "xfailed", "known to fail:")
    yield from _left_out(result)
    yield from _measured(result)
    yield ""
    yield _verdict(result)


def _to_be_written(result: Result) -> Iterator[str]:
    """The methods that are missing, with what each owes, in the order of the interface."""
    from tfx.core.backend import Backend

    waiting = Counter(o.told for o in result.outcomes if o.status == "missing")
    if result.unwritten:
        yield "\nto be written (and how many checks stopped there):"
    for name in result.unwritten:
        owed = cleandoc(getattr(Backend, name).__doc__ or "").split("\n\n")[0]
        title = f"  {name:<13} {waiting[name]:>4}  "
        yield from wrap(owed, 100, initial_indent=title, subsequent_indent=" " * len(title))
    for message in waiting.keys() - set(result.unwritten):
        yield f"  {message}"


def _told(result: Result, status: str, title: str) -> Iterator[str]:
    """The outcomes of a status; of several that say the same, the first."""
    alike: dict[str, list[Outcome]] = {}
    for outcome in result.outcomes:
        if outcome.status == status:
            alike.setdefault(outcome.told or outcome.name, []).append(outcome)
    if alike:
        yield f"\n{title}"
    for first, *others in list(alike.values())[:MOST_SHOWN]:
        told = f": {first.message}" if first.message else ""
        yield f"  {first.level} {first.name}{told}"
        if others:
            more = "one more says" if len(others) == 1 else f"{len(others)} more say"
            rest = ", ..." if others[1:] else ""
            yield f"     and {more} the same: {others[0].level} {others[0].name}{rest}"
    if len(alike) > MOST_SHOWN:
        yield f"  and {len(alike) - MOST_SHOWN} other faults"


def _left_out(result: Result) -> Iterator[str]:
    """Why checks were skipped, by what the backend declares."""
    reasons = Counter(o.message for o in result.outcomes if o.status == "skipped")
    if reasons:
        yield "\nskipped, by what the backend declares:"
        yield from (f"  {count:>4}  {why}" for why, count in reasons.most_common())


def _measured(result: Result) -> Iterator[str]:
    from tfx.testing import Level

    costs = [o for o in result.outcomes if o.level is Level.OVERHEAD and o.status == "passed"]
    if costs:
        yield "\nmeasured:"
        yield from (f"  {o.name}: {o.message}" for o in costs)


def _verdict(result: Result) -> str:
    if result.failures:
        first = result.failures[0]
        return f"{_passed(result)} First to mend: {first.level} {first.name}."
    return _passed(result)


def _passed(result: Result) -> str:
    name, levels = result.backend, result.passed
    if levels:
        span = f"{levels[0]} to {levels[-1]}" if len(levels) > 1 else str(levels[0])
        return f"{name} passes {span}."
    if not result.failures:
        return f"{name} passes what was asked, which is no whole level from L0 on."
    return f"{name} passes no level yet."
