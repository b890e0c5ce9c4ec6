"""What torch has of its own that tfx does not use: products of quantized weights, and its compiler
for captured programs.

    python benchmarks/torch_own.py

Prints one row times a weight of 3072 x 768 by each product, in float32 and in bfloat16; then a
token of gpt2-tiny and a training step of microGPT as tfx replays them, and by `torch.compile`.
One core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import tfx
from tfx.backends.torch.backend import TorchBackend
from tfx.core.capture.replay import AsRecorded
from tfx.core.optim import TrainState
from tfx.core.schedules import linear
from tfx.models.microgpt.data import BUNDLED
from tfx.models.microgpt.options import Options
from tfx.models.microgpt.run import Run
from tfx.models.microgpt.training import step_of

OUTPUTS, INPUTS, GROUP, TIMES = 3072, 768, 64, 100


class Compiled(AsRecorded):
    """A replay that torch compiles."""

    def __init__(self, program: Any, homes: Any) -> None:
        super().__init__(program)
        self._run = torch.compile(self._run, dynamic=False)


def fastest(call: Callable[[], object], tries: int = 5) -> float:
    """Seconds."""
    found = []
    for _ in range(tries):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def products() -> None:
    aten: Any = torch.ops.aten
    w = torch.randn(OUTPUTS, INPUTS)
    packed = aten._convert_weight_to_int4pack_for_cpu(torch.randint(0, 16, w.shape).int(), 1)
    whole = torch.randint(-127, 128, w.shape, dtype=torch.int8)
    for dtype in (torch.float32, torch.bfloat16):
        x, scales = torch.randn(1, INPUTS).to(dtype), torch.rand(OUTPUTS).to(dtype)
        grouped = torch.rand(INPUTS // GROUP, OUTPUTS, 2).to(dtype)
        kept = w.to(dtype)
        for name, call in {
            "float": lambda x=x, w=kept: torch.nn.functional.linear(x, w),
            "_weight_int8pack_mm": lambda x=x, s=scales: aten._weight_int8pack_mm(x, whole, s),
            "_weight_int4pack_mm_for_cpu": lambda x=x, s=grouped: aten._weight_int4pack_mm_for_cpu(
                x, packed, GROUP, s
            ),
        }.items():
            print(f"{dtype} {name:30} {fastest(call, TIMES) * 1e3:8.3f} ms")


def captured() -> None:
    model = tfx.load("gpt2-tiny", backend="torch")
    steps = 300
    run = Run.begin(
        replace(Options(), steps=steps, autograd="core"), BUNDLED, tfx.backend("torch"), print
    )
    advance = step_of(run, linear(steps, 0.01, 0.0))

    def train() -> None:
        state = TrainState.start(run.model.params)
        for i in range(steps):
            state, _, _ = advance(state, i)

    works: dict[str, tuple[int, Callable[[], object]]] = {
        "gpt2-tiny, a token": (100, lambda: model.generate("ROMEO:", max_new_tokens=100)),
        "microGPT, a step": (steps, train),
    }
    for name, (count, work) in works.items():
        first = fastest(work, 1)
        print(f"{name}: {fastest(work, 3) / count * 1e6:.0f} us, at first {first:.1f} s")


def main() -> None:
    torch.set_num_threads(1)
    products()
    print("replayed:")
    captured()
    TorchBackend.replayer = lambda self: Compiled  # type: ignore[method-assign]
    print("compiled by torch:")
    captured()


if __name__ == "__main__":
    main()
