"""What a training step needs in memory, and what it costs to need less: activations checkpointed or
kept, and freed memory given back to the system after every use or retained for the next step.

Each variant is a process of its own in every round: one step to warm up, then `--steps` of them.
Seconds are of the processor, user and system, of all threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
from random_gpt2 import SIZES, random_weights

VARIANTS = {
    "kept": (False, False),
    "checkpointed": (True, False),
    "kept, memory retained": (False, True),
    "checkpointed, memory retained": (True, True),
}
"""Whether activations are checkpointed, and whether freed memory is retained."""


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """A step of one variant in this process: seconds, bytes above what was there before, faults."""
    import resource

    import tfx
    from tfx.core.autograd import value_and_grad
    from tfx.core.creation import tensor
    from tfx.core.dtypes import DType
    from tfx.core.host_memory import retained
    from tfx.core.memory import forget_peak, peak_resident
    from tfx.core.optim import AdamW, TrainState
    from tfx.core.parameters import Parameters
    from tfx.models.gpt2.model import Config, loss
    from tfx.models.gpt2.passing import Pass

    checkpoint, retain = VARIANTS[args.variant]
    B = tfx.backend(args.backend)
    config = Config(**SIZES[args.size] | {"n_layer": args.layers}, eos_token_id=None)
    weights = {k: v for k, v in random_weights(args.size, 0.02).items() if k in config.shapes()}
    params = Parameters.from_host(weights, B, DType.float32)
    del weights
    optimizer = AdamW(np.full(args.steps + 1, 6e-4), params, grad_clip=1.0)
    through = Pass(checkpoint=checkpoint)
    differentiate = value_and_grad(lambda p, x, y: loss(p, config, x, y, through))
    state = TrainState.start(params)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, config.vocab_size, (args.batch, args.length + 1))
    batch = tensor(ids[:, :-1], B), tensor(ids[:, 1:], B)

    def step(state: TrainState) -> TrainState:
        value, grads = differentiate(state.params, *batch)
        return optimizer.update(state, value, state.params.flatten(grads))[0]

    forget_peak()
    before = peak_resident()
    with retained() if retain else nullcontext():
        state = step(state)
        began = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(args.steps):
            state = step(state)
        ended = resource.getrusage(resource.RUSAGE_SELF)
    peak = peak_resident()
    spent = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return {
        "seconds": spent / args.steps,
        "bytes": None if peak is None or before is None else peak - before,
        "faults": (ended.ru_minflt - began.ru_minflt) / args.steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["numpy", "torch"])
    parser.add_argument("--size", choices=SIZES, default="124M")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args)))
        return
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(args.rounds):
        for backend in args.backends:
            for variant in VARIANTS:
                command = [sys.executable, *sys.argv, "--backend", backend, "--variant", variant]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found.setdefault((backend, variant), []).append(json.loads(done.stdout))
    show(found)


def show(found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Medians; in brackets, the median of the ratios to `kept` in the same round."""
    print(f"{'':<38}{'s a step':>16}{'MB above the rest':>22}{'page faults':>14}")
    for (backend, variant), rounds in found.items():
        base = found[backend, "kept"]
        cells = []
        for name, scale in (("seconds", 1.0), ("bytes", 1e-6)):
            middle = statistics.median(r[name] for r in rounds) * scale
            ratio = statistics.median(r[name] / b[name] for r, b in zip(rounds, base, strict=True))
            cells.append(f"{middle:.3g} ({ratio:.2f})")
        faults = statistics.median(r["faults"] for r in rounds)
        print(f"{backend + ', ' + variant:<38}{cells[0]:>16}{cells[1]:>22}{faults:>14.0f}")


if __name__ == "__main__":
    main()
