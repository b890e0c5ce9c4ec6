"""Peers that do the same work side by side, each in a process of its own that stays open.

A benchmark calls `run` with its peers. The process it starts for each runs the same program with
`--peer NAME`: it makes its model ready once, then works through one round at a time, when told to.
So rounds are interleaved, a slow minute of the machine hits all alike, and no peer's thread pool
stands in another's way.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Round = Callable[[], tuple[float, list[float]]]
"""One round: its rate, and what all peers must agree on, such as token ids."""


@dataclass(frozen=True)
class Peer:
    """Somebody who takes part.

    Attributes:
        prepare: makes the model ready; returns what does one round of work.
        needs: the distributions it cannot do without; their versions are shown.
        environment: variables that its process has besides ours.
        exact: whether it does the same work as the other exact ones, to the last token.
    """

    prepare: Callable[[argparse.Namespace], Round]
    needs: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    exact: bool = True


@dataclass
class Contestant:
    """A peer's process, and what its rounds gave."""

    name: str
    process: subprocess.Popen[str]
    about: dict[str, Any] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with exit code {self.process.wait()}")
        return dict(json.loads(line))

    def round(self) -> list[float]:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        heard = self.hear()
        self.rates.append(heard["rate"])
        self.memory.append(heard["memory"])
        return list(heard["check"])


def run(
    parser: argparse.ArgumentParser,
    peers: Mapping[str, Peer],
    references: Sequence[str],
    unit: str,
    tolerance: float = 0.0,
) -> None:
    """The whole benchmark.

    Args:
        parser: of the benchmark's own options.
        peers: by name.
        references: the peers that ratios are given to.
        unit: of the rates, the more the better.
        tolerance: how far what peers must agree on may lie apart.
    """
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--only", nargs="+", metavar="PEER", choices=peers, help="leave out others")
    parser.add_argument("--python", metavar="PEER=PATH", action="append", default=[],
                        help="the interpreter that has a peer's libraries")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every rate here as well")
    parser.add_argument("--peer", choices=peers, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        serve(peers[args.peer], args)
        return

    pythons = dict(pair.split("=", 1) for pair in args.python)
    contest, skipped = [], {}
    for name in args.only or peers:
        python = next((p for who, p in pythons.items() if name.startswith(who)), sys.executable)
        missing = lacking(python, peers[name].needs)
        if missing:
            skipped[name] = f"{python} has no {', '.join(missing)}"
            continue
        command = [python, sys.argv[0], "--peer", name, *sys.argv[1:]]
        pipe = subprocess.PIPE
        kept = {**environment(), **peers[name].environment}
        process = subprocess.Popen(command, env=kept, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        contestant = Contestant(name, process)
        about = contestant.hear()  # one after the other: making ready takes memory
        contestant.about = about
        contest.append(contestant)
    checks: dict[str, list[float]] = {}
    for number in range(args.rounds + 1):
        print("warming up" if number == 0 else f"round {number} of {args.rounds}", file=sys.stderr)
        for peer in contest:
            checks[peer.name] = peer.round()
            if number == 0:
                peer.rates.clear()
                peer.memory.clear()
    for peer in contest:
        assert peer.process.stdin is not None
        peer.process.stdin.close()
        peer.process.wait()
    exact = {name: check for name, check in checks.items() if peers[name].exact}
    report(args, contest, skipped, exact, references, unit, tolerance)


def serve(peer: Peer, args: argparse.Namespace) -> None:
    """A peer's process: a line of JSON when it is ready, and one for each line it is told."""
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever else a library prints
    go = peer.prepare(args)
    versions = {name: importlib.metadata.version(name) for name in peer.needs}
    about = {"python": platform.python_version(), **versions, "threads": threads()}
    print(json.dumps(about), file=replies, flush=True)
    for _ in sys.stdin:
        rate, check = go()
        found = {"rate": rate, "check": check, "memory": peak_memory()}
        print(json.dumps(found), file=replies, flush=True)


def threads() -> int:
    """How many threads this process has; those of the libraries' pools are among them."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 0


def peak_memory() -> int:
    """The most memory that this process has had so far, in bytes; 0 where Linux does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def lacking(python: str, distributions: Sequence[str]) -> list[str]:
    """Which distributions an interpreter does not have."""
    code = """
import importlib.metadata, sys
for name in sys.argv[1:]:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(name)
"""
    command = [python, "-c", code, *distributions]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()


def environment() -> dict[str, str]:
    """Ours, with OpenBLAS free to choose its kernel and its block sizes, and no word to the Hub."""
    kept = {**os.environ, "HF_HUB_OFFLINE": "1"}
    kept.pop("OPENBLAS_CORETYPE", None)
    kept.pop("OPENBLAS_L2_SIZE", None)
    return kept


def report(
    args: argparse.Namespace,
    contest: Sequence[Contestant],
    skipped: Mapping[str, str],
    checks: Mapping[str, list[float]],
    references: Sequence[str],
    unit: str,
    tolerance: float,
) -> None:
    rates = {peer.name: peer.rates for peer in contest}
    against = [name for name in references if name in rates]
    host = machine()
    print(", ".join(f"{name} {value}" for name, value in host.items()))
    hidden = ("peer", "json", "python", "only")
    settings = {k: v for k, v in vars(args).items() if k not in hidden and v is not None}
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    heads = "".join(f"{'/ ' + name:>30}" for name in against)
    print(f"\n{'':<34}{unit:>10}{'min-max':>16}{'peak MB':>9}{heads}")
    for peer in contest:
        low, high = min(peer.rates), max(peer.rates)
        ratios = "".join(f"{ratio(peer.rates, rates[name]):>30.2f}" for name in against)
        spread = f"{low:.1f}-{high:.1f}"
        rate, memory = statistics.median(peer.rates), max(peer.memory) / 1e6
        print(f"{peer.name:<34}{rate:>10.1f}{spread:>16}{memory:>9.0f}{ratios}")
    for name, why in skipped.items():
        print(f"{name:<34}skipped: {why}")
    print()
    for peer in contest:
        print(f"{peer.name}: {', '.join(f'{k} {v}' for k, v in peer.about.items())}")
    tell_differences(checks, tolerance)
    if args.json:
        rows = {
            p.name: {"about": p.about, "rate": p.rates, "peak_bytes": p.memory} for p in contest
        }
        found = {
            "machine": host,
            "settings": settings,
            "unit": unit,
            "peers": rows,
            "skipped": skipped,
        }
        args.json.write_text(json.dumps(found, indent=2, default=str) + "\n")


def ratio(mine: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(mine, other, strict=True))


def tell_differences(checks: Mapping[str, list[float]], tolerance: float) -> None:
    """Rates are worth comparing only where all have done the same work."""
    if not checks:
        return
    (first, expected), *others = checks.items()
    for name, found in others:
        apart = [i for i, (a, b) in enumerate(zip(expected, found, strict=True))
                 if abs(a - b) > tolerance]  # fmt: skip
        if apart:
            print(f"{name} differs from {first} from number {apart[0]} of {len(found)} on")


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": load,
    }
