"""Train microGPT with every peer, round after round, and print medians side by side.

Each peer is a process of its own, timed inside (its training loop) and from outside (the
whole process). Rounds are interleaved, so that a slow minute of the machine hits all alike,
and a ratio is the median over the rounds of a peer's time by that of the hand-written NumPy
in the same round.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from task import arguments

HERE = Path(__file__).resolve().parent
BASELINE = "hand-written NumPy"


@dataclass
class Peer:
    """A program to time, the library it cannot do without, and what its rounds gave."""

    name: str
    command: list[str]
    needs: str
    python: str = sys.executable
    skipped: str | None = None
    train_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    final_loss: float = math.nan

    def probe(self) -> None:
        """Find out whether the library is there, in the interpreter that will run the peer."""
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({self.needs!r}) is None)"
        if subprocess.run([self.python, "-c", code], check=False).returncode:
            self.skipped = f"{self.needs} is not installed for {self.python}"

    def run(self) -> None:
        """One round; a failure ends the benchmark with the last thing the peer said."""
        with tempfile.TemporaryDirectory() as out:
            command = [self.python, *(part.replace("{out}", out) for part in self.command)]
            start = time.perf_counter()
            done = subprocess.run(
                command, env=environment(), capture_output=True, text=True, check=False
            )
            self.wall_s.append(time.perf_counter() - start)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            sys.exit(f"{self.name} failed with exit code {done.returncode}: {last}")
        result = json.loads(done.stdout)
        self.train_s.append(result.get("timing", result)["train_s"])
        self.final_loss = result["final_loss"]


def environment() -> dict[str, str]:
    """Ours, with OpenBLAS free to choose its kernel and its block sizes."""
    kept = dict(os.environ)
    kept.pop("OPENBLAS_CORETYPE", None)
    kept.pop("OPENBLAS_L2_SIZE", None)
    return kept


def peers(args: argparse.Namespace) -> list[Peer]:
    common = ["--data", str(args.data), "--steps", str(args.steps)]

    def program(file: str, *more: str) -> list[str]:
        return [str(HERE / file), *common, *more]

    def tfx(backend: str, *more: str) -> list[str]:
        train = ["-m", "tfx", "train", "microgpt", "--backend", backend, *common, *more]
        return [*train, "--num-samples", "0", "--out", "{out}/run", "--json"]

    return [
        Peer(BASELINE, program("hand_numpy.py"), "numpy"),
        Peer("tfx numpy", tfx("numpy"), "tfx"),
        Peer("tfx torch", tfx("torch"), "torch"),
        Peer("torch eager", program("torch_eager.py"), "torch"),
        Peer("torch eager, 1 thread", program("torch_eager.py", "--threads", "1"), "torch"),
        Peer("JAX jit", program("jax_jit.py"), "jax", args.jax_python),
    ]


def check_same_task(contest: list[Peer], baseline: Peer) -> None:
    """Times are worth comparing only where all have trained the same model on the same data."""
    for peer in contest:
        same = math.isclose(peer.final_loss, baseline.final_loss, abs_tol=1e-6)
        if not (peer.skipped or same):
            sys.exit(
                f"{peer.name} ended at loss {peer.final_loss}, {baseline.name} at "
                f"{baseline.final_loss}: they have not done the same work"
            )


def ratio(peer: Peer, baseline: Peer) -> float:
    pairs = zip(peer.train_s, baseline.train_s, strict=True)
    return statistics.median(mine / base for mine, base in pairs)


def row(peer: Peer, baseline: Peer, steps: int) -> str:
    if peer.skipped:
        return f"{peer.name:<22}skipped: {peer.skipped}"
    low, middle, high = (
        1e6 * seconds / steps
        for seconds in (min(peer.train_s), statistics.median(peer.train_s), max(peer.train_s))
    )
    return (
        f"{peer.name:<22}{middle:>9.0f}{f'{low:.0f}-{high:.0f}':>13}"
        f"{ratio(peer, baseline):>8.2f}{statistics.median(peer.wall_s):>9.2f}"
        f"{peer.final_loss:>13.8f}"
    )


def record(peer: Peer, baseline: Peer) -> dict[str, Any]:
    found = {"name": peer.name, "skipped": peer.skipped}
    if peer.skipped:
        return found
    return {
        **found,
        "train_s": peer.train_s,
        "wall_s": peer.wall_s,
        "ratio": ratio(peer, baseline),
        "final_loss": peer.final_loss,
    }


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument(
        "--jax-python", default=sys.executable, help="an interpreter that has jax and numpy"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time here as well")
    args = parser.parse_args()

    contest = peers(args)
    for peer in contest:
        peer.probe()
    for number in range(args.repeats):
        print(f"round {number + 1} of {args.repeats}", file=sys.stderr)
        for peer in contest:
            if not peer.skipped:
                peer.run()

    host, baseline = machine(), contest[0]
    check_same_task(contest, baseline)
    print(", ".join(f"{name} {value}" for name, value in host.items()))
    print(f"{args.steps} steps, {args.repeats} rounds, {args.data}\n")
    print(f"{'':<22}{'us/step':>9}{'min-max':>13}{'ratio':>8}{'wall s':>9}{'final loss':>13}")
    for peer in contest:
        print(row(peer, baseline, args.steps))
    if args.json:
        rows = [record(peer, baseline) for peer in contest]
        found = {"machine": host, "data": str(args.data), "steps": args.steps, "peers": rows}
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
