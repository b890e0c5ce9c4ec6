"""Run every contest in turn, and hold the ratios against the targets.

Each contest is a program of its own, with its peers in rounds; here it is told what it needs, and
what it found becomes rows of one table. A peer or a feature that is not here is said to be so.
`--only decode` runs one contest, and leaves what the file of `--json` has of others as it is: a
ratio is of one contest in one run. `--table FILE` prints the table of such a file again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from targets import CONTESTS, TARGETS, Contest, Target

HERE = Path(__file__).resolve().parent

Found = dict[str, Any]
"""What a contest wrote: peers by name, each with lists of numbers, and why others were skipped."""


# ---- running -------------------------------------------------------------------------------------


def run(contest: Contest, args: argparse.Namespace) -> Found:
    """What a contest found, or why it failed, and when it began."""
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"began": began, **outcome(contest, args)}


def outcome(contest: Contest, args: argparse.Namespace) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, str(HERE / contest.program), *contest.arguments]
        command += ["--json", str(path), *passed_on(contest, args)]
        print(f"--- {contest.name}: {' '.join(command[1:])}", file=sys.stderr, flush=True)
        if "data" in contest.takes and args.data is None:
            return {"failed": "needs a text: --data FILE"}
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        if code:
            return {"failed": f"{contest.program} ended with exit code {code}"}
        return dict(json.loads(path.read_text()))


def passed_on(contest: Contest, args: argparse.Namespace) -> list[str]:
    words = [contest.rounds, str(args.rounds)] if contest.rounds else []
    for name in contest.takes:
        value = getattr(args, name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        words += [word for each in values for word in (f"--{name.replace('_', '-')}", str(each))]
    return words


# ---- judging -------------------------------------------------------------------------------------


def row(target: Target, found: Found) -> dict[str, Any]:
    """A target beside what was measured: the median, quartiles, and whether it was met."""
    described: dict[str, Any] = {
        "work": target.work,
        "ours": target.ours,
        "theirs": None,
        "target": told(target),
        "measured": None,
        "quartiles": None,
        "verdict": None,
    }
    why = missing(target, found)
    if why:
        return {**described, "theirs": wanted(target), "verdict": why}
    peers = found["peers"]
    ours = numbers(peers[target.ours], target.measure)
    if target.theirs:
        theirs = fastest(target, found)
        described["theirs"] = theirs
        values = [a / b for a, b in zip(ours, numbers(peers[theirs], target.measure), strict=True)]
    else:
        values = [target.scale * number for number in ours]
    median = statistics.median(values)
    spread = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values
    return {
        **described,
        "measured": median,
        "quartiles": [spread[0], spread[-1]],
        "unit": target.unit,
        "verdict": verdict(target, median),
    }


def numbers(peer: dict[str, Any], measure: str) -> list[float]:
    if measure == "time":
        return [1 / rate for rate in peer["rate"]]
    return list(peer[measure])


def fastest(target: Target, found: Found) -> str:
    """The best of those that the target may be compared with, and who are here."""
    here = [name for name in names(target) if name in found["peers"]]
    return max(here, key=lambda name: statistics.median(found["peers"][name].get("rate", [0])))


def names(target: Target) -> tuple[str, ...]:
    return (target.theirs,) if isinstance(target.theirs, str) else target.theirs


def wanted(target: Target) -> str | None:
    return " or ".join(names(target)) or None


def missing(target: Target, found: Found) -> str | None:
    """Why there is nothing to judge; None where there is."""
    if "failed" in found:
        return str(found["failed"])
    if target.ours not in found["peers"]:
        return f"not available: {found['skipped'].get(target.ours, 'not asked for')}"
    if target.theirs and not any(name in found["peers"] for name in names(target)):
        return f"not available: {found['skipped'].get(names(target)[0], 'not asked for')}"
    return None


def told(target: Target) -> str | None:
    if target.at_least is not None:
        return f"at least {target.at_least:g}x"
    if target.at_most is None:
        return None
    return f"at most {target.at_most:g}{' ' + target.unit if target.unit else 'x'}"


def verdict(target: Target, median: float) -> str | None:
    if target.at_least is not None:
        return "met" if median >= target.at_least else "missed"
    if target.at_most is not None:
        return "met" if median <= target.at_most else "missed"
    return None


# ---- the table -----------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| work | of | against | target | measured | quartiles | |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in rows:
        measured, quartiles = "-", "-"
        if found["measured"] is not None:
            unit = f" {found['unit']}" if found["unit"] else "x"
            measured = f"{found['measured']:.3g}{unit}"
            quartiles = "-".join(f"{value:.3g}" for value in found["quartiles"])
        theirs, target = found["theirs"] or "-", found["target"] or "-"
        cells = (found["work"], found["ours"], theirs, target, measured, quartiles)
        lines.append(f"| {' | '.join(cells)} | {found['verdict'] or ''} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = [contest.name for contest in CONTESTS]
    parser.add_argument("--only", nargs="+", metavar="CONTEST", choices=known, help="no others")
    parser.add_argument("--rounds", type=int, default=7, help="of each contest (default 7)")
    parser.add_argument("--size", metavar="SIZE", help="a trial with a model smaller than 124M")
    parser.add_argument("--data", type=Path, metavar="FILE", help="the text for perplexity")
    parser.add_argument("--jax-python", metavar="PATH", help="an interpreter that has jax")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH",
                        help="the interpreter of peers whose name begins so")  # fmt: skip
    parser.add_argument("--port", action="append", default=[], metavar="NAME=PATH",
                        help="a microGPT in another language: 'Rust port=PATH'")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print that of an earlier run")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text())["rows"]))
        return
    found: dict[str, Found] = {}
    if args.only and args.json and args.json.exists():
        found = json.loads(args.json.read_text())["contests"]
    for contest in CONTESTS:
        if not args.only or contest.name in args.only:
            found[contest.name] = run(contest, args)
        rows = [row(target, found[target.contest]) for target in TARGETS if target.contest in found]
        if args.json:
            everything = {"rows": rows, "contests": found}
            args.json.write_text(json.dumps(everything, indent=2) + "\n")
    if args.size:
        print(f"A trial with {args.size}: nothing here is about 124M.")
    print(table(rows))


if __name__ == "__main__":
    main()
