"""Puts backends through the conformance kit and their results into docs/conformance.md:

python docs/make_conformance.py numpy torch strict

The rows of other backends stay as they are: each may be run where its library is.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tfx.core.plugins import PluginHost
from tfx.testing import Level, Result, StrictBackend, Subject, run

PAGE = Path(__file__).with_name("conformance.md")

LEVELS = [level for level in Level if level is not Level.OVERHEAD]


def tested(name: str) -> Result:
    """The kit's findings on an installed backend, or on the strict one."""
    subject = Subject(name, StrictBackend) if name == "strict" else Subject.open(name)
    return run(subject, LEVELS)


def cell(found: Counter[Any]) -> str:
    """How many checks of a level passed, how many were skipped, and how many had neither end."""
    passed, skipped = found["passed"], found["skipped"]
    wrong = found.total() - passed - skipped
    return f"{passed} + {skipped}" + (f", {wrong} failed" if wrong else "")


def reasons(result: Result) -> str:
    """Why checks were skipped, and how many."""
    found = Counter(o.message for o in result.outcomes if o.status == "skipped")
    return "; ".join(f"{why}: {count}" for why, count in found.most_common()) or "nothing"


def rows(name: str) -> dict[str, str]:
    """The row of a backend in each of the tables."""
    result = tested(name)
    passed = f"L0 to {result.passed[-1]}" if result.passed else "no level"
    return {
        "counts": _row(
            name, _library(name), *(cell(result.counts(level)) for level in LEVELS), passed
        ),
        "skipped": _row(name, reasons(result)),
    }


def _library(name: str) -> str:
    host = PluginHost()
    return (host.probe(name).version if name in host.backends() else None) or "-"


def _row(name: str, *cells: str) -> str:
    return f"| {' | '.join((f'`{name}`', *cells))} |"


def put(page: str, table: str, name: str, row: str) -> str:
    """The page with the row of a backend in a table, which begins below its comment."""
    table_of = re.compile(rf"(<!-- {table} -->\n.*\n\|[-|]+\n)((?:\|.*\n)*)")

    def with_row(found: re.Match[str]) -> str:
        others = [x for x in found[2].splitlines() if not x.startswith(f"| `{name}` |")]
        return found[1] + "".join(f"{x}\n" for x in sorted([*others, row]))

    return table_of.sub(with_row, page)


def main(names: list[str]) -> None:
    for name in names:
        found = rows(name)
        page = PAGE.read_text(encoding="utf-8")
        for table, row in found.items():
            page = put(page, table, name, row)
            print(row)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
