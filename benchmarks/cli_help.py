"""Time `tfx --help` against an empty Typer application with as many commands."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EMPTY_APP = """\
import typer

app = typer.Typer({options})


def nothing() -> None:
    pass


for number in range({commands}):
    app.command(name=f"command{{number}}")(nothing)
app()
"""


def number_of_commands() -> int:
    from tfx.cli.main import app

    return len(app.registered_commands)


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="rounds (default 15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every rate here as well")
    args = parser.parse_args()
    repeats = args.repeats

    commands = number_of_commands()
    with tempfile.TemporaryDirectory() as folder:
        plain, usual = Path(folder) / "plain.py", Path(folder) / "usual.py"
        plain.write_text(EMPTY_APP.format(options="rich_markup_mode=None", commands=commands))
        usual.write_text(EMPTY_APP.format(options="", commands=commands))
        contest = {
            "empty Typer app, plain help": [sys.executable, str(plain), "--help"],
            "empty Typer app, as it comes": [sys.executable, str(usual), "--help"],
            "tfx --help": [str(Path(sys.executable).with_name("tfx")), "--help"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        times: dict[str, list[float]] = {name: [] for name in contest}
        for command in contest.values():
            seconds(command)  # fills the disk cache and writes the byte code
        for _ in range(repeats):
            for name, command in contest.items():
                times[name].append(seconds(command))

    baseline = next(iter(times.values()))
    print(f"{commands} commands, {repeats} rounds\n")
    print(f"{'':<30}{'ms':>7}{'min-max':>13}{'ratio':>8}")
    for name, found in times.items():
        low, middle, high = (1e3 * f(found) for f in (min, statistics.median, max))
        ratio = statistics.median(a / b for a, b in zip(found, baseline, strict=True))
        print(f"{name:<30}{middle:>7.0f}{f'{low:.0f}-{high:.0f}':>13}{ratio:>8.2f}")
    if args.json:
        found = {
            "machine": {"cores": os.cpu_count()},
            "settings": {"commands": commands, "rounds": repeats},
            "unit": "runs/s",
            "peers": {name: {"rate": [1 / t for t in found]} for name, found in times.items()},
            "skipped": {},
        }
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
