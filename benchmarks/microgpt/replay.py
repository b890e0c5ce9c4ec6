"""Where the time of a captured microGPT goes: computing, recording and replaying its steps.

    TFX_DISABLE_PLUGINS=numba python benchmarks/microgpt/replay.py
    python benchmarks/microgpt/replay.py        # with Numba's kernels, where Numba is

The same 1000 steps three times on NumPy: computed, captured with a step recorded when it first
comes, and when it is there, the least of three tries. Then the calls of a replay one after the
other, and each kind of them by itself. All in this process; the loop that `tfx train` puts around
is left out.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import tfx
from tfx.core.capture import eager
from tfx.core.capture import replay as replays
from tfx.core.optim import TrainState
from tfx.core.schedules import linear
from tfx.models.microgpt.data import BUNDLED
from tfx.models.microgpt.options import Options
from tfx.models.microgpt.run import Run
from tfx.models.microgpt.training import step_of

Step = Callable[[TrainState, int], tuple[TrainState, object, object]]

KINDS = {"dot": "products", "adamw": "AdamW", "weigh": "attention", "attend": "attention"}
"""Of a call, by what is in its name; the rest is elementwise, or moves numbers."""


def seconds(advance: Step, run: Run, steps: int) -> float:
    """What so many steps take, from the parameters that the run begins with."""
    state = TrainState.start(run.model.params.replaced(run.model.params.flat * 1.0))
    began = time.perf_counter()
    for step in range(steps):
        state, _, _ = advance(state, step)
    return time.perf_counter() - began


def microseconds(call: Callable[[], object], times: int = 2000) -> float:
    """What a call takes, the least of five tries."""
    found = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            call()
        found.append(time.perf_counter() - began)
    return min(found) / times * 1e6


def by_kind(calls: Sequence[tuple[Callable[..., object], Sequence[Any]]]) -> dict[str, list[float]]:
    """How many calls there are of each kind, and what they take, the call from Python left out."""
    empty = microseconds(lambda: None)
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for function, args in calls:
        name = getattr(function, "__qualname__", "") or getattr(function, "__name__", "")
        kind = next((k for part, k in KINDS.items() if part in name.lower()), "others")
        found[kind][0] += 1
        found[kind][1] += microseconds(lambda f=function, a=args: f(*a)) - empty  # type: ignore[misc]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="how many (default 1000)")
    steps = parser.parse_args().steps

    rows: list[Any] = []
    row_of = replays.row_of
    replays.row_of = lambda calls: (rows.append(calls), row_of(calls))[1]  # type: ignore[func-returns-value]
    options = replace(Options(), steps=steps)
    run = Run.begin(options, BUNDLED, tfx.backend("numpy"), print)
    advance = step_of(run, linear(steps, options.lr, options.min_lr))
    with eager():
        seconds(advance, run, min(steps, 50))
        computed = seconds(advance, run, steps)
    first = seconds(advance, run, steps)
    replayed = min(seconds(advance, run, steps) for _ in range(3))
    for name, taken in (("computed", computed), ("captured", first), ("replayed", replayed)):
        print(f"{name:10} {taken / steps * 1e6:7.0f} us/step")
    print(f"{(first - replayed) * 1e3:.1f} ms to record")

    calls = rows[-1]
    print(f"\n{len(calls)} calls of a replay, in a row: {microseconds(row_of(calls)):.0f} us")
    for kind, (count, taken) in by_kind(calls).items():
        print(f"{count:4.0f} {kind:10} {taken:5.0f} us")


if __name__ == "__main__":
    main()
