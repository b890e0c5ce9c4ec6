"""Puts what `benchmarks/run_all.py` measured into docs/performance.md:

python benchmarks/run_all.py --json benchmarks/results.json ...
python docs/make_performance.py

Everything between the page's two marks is written by this program, and no number by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results.json"

MARKS = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end of measured -->)", re.DOTALL)


def measured(found: dict[str, Any] | None) -> str:
    """What stands between the marks: the table, and where and with what it was measured."""
    if found is None:
        return "\nNot measured yet.\n\n"
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from run_all import table

    return f"\n{table(found['rows'])}\n\n{circumstances(found)}\n\n"


def circumstances(found: dict[str, Any]) -> str:
    """When, on which machine, how busy it was, and the versions of everybody."""
    contests = [contest for contest in found["contests"].values() if "machine" in contest]
    machine: dict[str, Any] = {}
    for contest in contests:
        machine |= contest["machine"]
    began = sorted(contest["began"] for contest in contests)
    loads = [float(c["machine"]["load"]) for c in contests if "load" in c["machine"]]
    versions: dict[str, str] = {}
    for contest in contests:
        for peer in contest["peers"].values():
            versions |= {k: v for k, v in peer.get("about", {}).items() if isinstance(v, str)}
    busy = f", load {min(loads):.1f} to {max(loads):.1f} at the end of a contest" if loads else ""
    return (
        f"Contests begun from {began[0]} to {began[-1]}; {machine.get('cpu')}, "
        f"{machine.get('cores')} cores{busy}. "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + "."
    )


def page(text: str, found: dict[str, Any] | None) -> str:
    """The page with what was measured."""
    return MARKS.sub(lambda _: measured(found), text)


def main() -> None:
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else None
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
