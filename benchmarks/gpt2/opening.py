"""Opening a checkpoint before its first use: how long, and how much memory it takes.

A folder as transformers has it is written with random weights. Each round opens it in a new process
of each peer, whose libraries are imported before the clock runs; the median of a few openings
counts, and the memory that the process has at most, beyond what it had before the first.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import environment, lacking, machine, peak_memory, ratio
from random_gpt2 import SIZES, add_size, random_weights

AT_ONCE = 5

Open = Callable[[Path], Any]


def tfx() -> Open:
    import tfx
    from tfx.models.gpt2.language_model import LanguageModel

    backend = tfx.backend("numpy")
    return lambda path: LanguageModel.load(path, backend, lambda line: None)


def safetensors() -> Open:
    from safetensors.numpy import load_file

    return lambda path: load_file(path / "model.safetensors")


def transformers() -> Open:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained  # type: ignore[no-any-return]


PEERS: dict[str, tuple[Callable[[], Open], tuple[str, ...]]] = {
    "safetensors to NumPy": (safetensors, ("safetensors", "numpy")),
    "transformers": (transformers, ("transformers", "torch")),
    "tfx numpy": (tfx, ("tfx-lm", "numpy")),
}


def measure(peer: str, path: Path) -> None:
    """A peer's process: prints the seconds and the bytes."""
    opened = PEERS[peer][0]()
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")  # the peak so far is forgotten
    before, seconds = peak_memory(), []
    for _ in range(AT_ONCE):
        start = time.perf_counter()
        model = opened(path)
        seconds.append(time.perf_counter() - start)
        del model
    print(json.dumps({"s": statistics.median(seconds), "bytes": peak_memory() - before}))


def write(path: Path, size: str) -> None:
    from tfx.core.dtypes import DType
    from tfx.core.weights import StoredTensor
    from tfx.models.gpt2.model import Config
    from tfx.models.gpt2.weights import write_pretrained

    weights = random_weights(size, 0.02)
    stored = {name: StoredTensor(DType.float32, array) for name, array in weights.items()}
    write_pretrained(path, Config(**SIZES[size]), stored, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_size(parser)
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here as well")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        measure(args.peer, args.path)
        return

    missing = {name: lacking(sys.executable, needs) for name, (_, needs) in PEERS.items()}
    skipped = {name: f"no {', '.join(lacks)}" for name, lacks in missing.items() if lacks}
    found: dict[str, list[dict[str, float]]] = {n: [] for n in PEERS if n not in skipped}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write(path, args.size)
        for number in range(args.rounds + 1):  # the first one fills the disk's cache
            for name, rounds in found.items():
                command = [sys.executable, __file__, "--peer", name, "--path", str(path)]
                done = subprocess.run(command, env=environment(), capture_output=True, check=True)
                if number:
                    rounds.append(json.loads(done.stdout))

    rates = {name: [1 / r["s"] for r in rounds] for name, rounds in found.items()}
    grown = {name: [r["bytes"] for r in rounds] for name, rounds in found.items()}
    reference = next(iter(rates))
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"size {args.size}, rounds {args.rounds}\n")
    print(f"{'':<26}{'ms':>9}{'MB':>9}{'times as fast':>16}")
    for name, values in rates.items():
        ms, mb = 1e3 / statistics.median(values), statistics.median(grown[name]) / 1e6
        print(f"{name:<26}{ms:>9.2f}{mb:>9.1f}{ratio(values, rates[reference]):>16.1f}")
    for name, why in skipped.items():
        print(f"{name:<26}skipped: {why}")
    if args.json:
        about = {n: {d: importlib.metadata.version(d) for d in PEERS[n][1]} for n in rates}
        described = {
            "machine": machine(),
            "settings": {"size": args.size, "rounds": args.rounds},
            "unit": "openings/s",
            "peers": {
                n: {"about": about[n], "rate": rates[n], "grown_bytes": grown[n]} for n in rates
            },
            "skipped": skipped,
        }
        args.json.write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
