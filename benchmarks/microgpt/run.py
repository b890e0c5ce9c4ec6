"""Train microGPT with every peer, round after round, and print medians side by side.

Each peer is a process of its own, timed inside (its training loop) and from outside (the
whole process). Rounds are interleaved, so that a slow minute of the machine hits all alike,
and a ratio is the median over the rounds of a peer's time by that of the hand-written NumPy
in the same round. A first round is not counted: kernels are compiled and files read in it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import shutil
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
PORT_STEPS = 1000


@dataclass
class Peer:
    """A program to time, the library it cannot do without, and what its rounds gave."""

    name: str
    command: list[str]
    needs: str
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)
    skipped: str | None = None
    train_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    final_loss: float = math.nan

    def probe(self) -> None:
        """Find out whether the library is there, in the interpreter that will run the peer."""
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({self.needs!r}) is None)"
        if subprocess.run([self.python, "-c", code], check=False).returncode:
            self.skipped = f"{self.needs} is not installed for {self.python}"

    def run(self, counted: bool) -> None:
        """One round; a failure ends the benchmark with the last thing the peer said."""
        with tempfile.TemporaryDirectory() as out:
            command = [self.python, *(part.replace("{out}", out) for part in self.command)]
            kept = {**environment(), **self.environment}
            start = time.perf_counter()
            done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
            wall_s = time.perf_counter() - start
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            sys.exit(f"{self.name} failed with exit code {done.returncode}: {last}")
        result = json.loads(done.stdout)
        self.final_loss = result["final_loss"]
        if counted:
            self.wall_s.append(wall_s)
            self.train_s.append(result.get("timing", result)["train_s"])


@dataclass
class Port(Peer):
    """microGPT in another language: a program that takes no options, trains for its 1000 steps on
    `input.txt` in the folder where it is run, and draws numbers of its own. It is timed from
    outside, and its loss is nobody else's."""

    data: Path = Path()

    def probe(self) -> None:
        """Nothing to find out: whoever named it has it."""

    def run(self, counted: bool) -> None:
        """One round."""
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(self.data, Path(folder) / "input.txt")
            start = time.perf_counter()
            done = subprocess.run(self.command, cwd=folder, capture_output=True, check=False)
            seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{self.name} failed with exit code {done.returncode}")
        if counted:
            self.train_s.append(seconds)
            self.wall_s.append(seconds)


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

    kernels = Peer("tfx numpy + numba", program("tfx_warm.py"), "numba")
    if "numba" not in {point.name for point in importlib.metadata.entry_points(group="tfx")}:
        kernels.skipped = "this tfx has no kernels by Numba"
    alone = {"TFX_DISABLE_PLUGINS": "numba"}
    ports = [Port(name, [path], "", data=args.data) for name, path in args.ports.items()]
    if ports and args.steps != PORT_STEPS:
        sys.exit(f"--steps {args.steps}: ports take {PORT_STEPS} steps, whatever the others do")
    return [
        Peer(BASELINE, program("hand_numpy.py"), "numpy"),
        Peer("tfx numpy", tfx("numpy"), "tfx", environment=alone),
        kernels,
        Peer("tfx torch", tfx("torch"), "torch", environment=alone),
        Peer("torch eager", program("torch_eager.py"), "torch"),
        Peer("torch eager, 1 thread", program("torch_eager.py", "--threads", "1"), "torch"),
        Peer(
            "torch.compile, 1 thread",
            program("torch_eager.py", "--threads", "1", "--compile"),
            "torch",
        ),
        Peer("JAX jit", program("jax_jit.py"), "jax", args.jax_python),
        *ports,
    ]


def check_same_task(contest: list[Peer], baseline: Peer) -> None:
    """Times are worth comparing only where all have trained the same model on the same data."""
    for peer in contest:
        same = math.isclose(peer.final_loss, baseline.final_loss, abs_tol=1e-6)
        if not (peer.skipped or same or isinstance(peer, Port)):
            sys.exit(
                f"{peer.name} ended at loss {peer.final_loss}, {baseline.name} at "
                f"{baseline.final_loss}: they have not done the same work"
            )


def ratio(peer: Peer, baseline: Peer) -> float:
    pairs = zip(peer.train_s, baseline.train_s, strict=True)
    return statistics.median(mine / base for mine, base in pairs)


def row(peer: Peer, baseline: Peer, steps: int) -> str:
    if peer.skipped:
        return f"{peer.name:<24}skipped: {peer.skipped}"
    low, middle, high = (
        1e6 * seconds / steps
        for seconds in (min(peer.train_s), statistics.median(peer.train_s), max(peer.train_s))
    )
    return (
        f"{peer.name:<24}{middle:>9.0f}{f'{low:.0f}-{high:.0f}':>13}"
        f"{ratio(peer, baseline):>8.2f}{statistics.median(peer.wall_s):>9.2f}"
        + ("" if math.isnan(peer.final_loss) else f"{peer.final_loss:>13.8f}")
    )


def record(peer: Peer, steps: int) -> dict[str, Any]:
    loss = None if math.isnan(peer.final_loss) else peer.final_loss
    rates = [steps / seconds for seconds in peer.train_s]
    return {"about": {"final_loss": loss}, "rate": rates, "wall_s": peer.wall_s}


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
    parser.add_argument(
        "--port",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a microGPT in another language, as in 'Rust port=target/release/microgpt'",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every rate here as well")
    args = parser.parse_args()
    args.ports = {
        name: str(Path(path).resolve()) for name, path in (port.split("=", 1) for port in args.port)
    }

    contest = peers(args)
    for peer in contest:
        if not peer.skipped:
            peer.probe()
    for number in range(args.repeats + 1):
        say = "warming up" if number == 0 else f"round {number} of {args.repeats}"
        print(say, file=sys.stderr)
        for peer in contest:
            if not peer.skipped:
                peer.run(counted=number > 0)

    host, baseline = machine(), contest[0]
    check_same_task(contest, baseline)
    print(", ".join(f"{name} {value}" for name, value in host.items()))
    print(f"{args.steps} steps, {args.repeats} rounds, {args.data}\n")
    print(f"{'':<24}{'us/step':>9}{'min-max':>13}{'ratio':>8}{'wall s':>9}{'final loss':>13}")
    for peer in contest:
        print(row(peer, baseline, args.steps))
    if args.json:
        found = {
            "machine": host,
            "settings": {"data": str(args.data), "steps": args.steps, "rounds": args.repeats},
            "unit": "steps/s",
            "peers": {p.name: record(p, args.steps) for p in contest if not p.skipped},
            "skipped": {p.name: p.skipped for p in contest if p.skipped},
        }
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
