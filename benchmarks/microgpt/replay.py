"""Where the time of a captured microGPT goes: computing, recording and replaying its steps.

    python benchmarks/microgpt/replay.py

The same 1000 steps three times, on NumPy alone: computed, captured with a step recorded when it
first comes, and once more when it is there. All in this process, one after the other.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.capture import eager
from tfx.core.optim import TrainState
from tfx.core.schedules import linear
from tfx.models.microgpt.data import BUNDLED
from tfx.models.microgpt.options import Options
from tfx.models.microgpt.run import Run
from tfx.models.microgpt.training import step_of

Step = Callable[[TrainState, int], tuple[TrainState, object, object]]


def seconds(advance: Step, run: Run, steps: int) -> float:
    """What so many steps take, from the parameters that the run begins with."""
    state = TrainState.start(run.model.params.replaced(run.model.params.flat * 1.0))
    began = time.perf_counter()
    for step in range(steps):
        state, _, _ = advance(state, step)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="how many (default 1000)")
    steps = parser.parse_args().steps

    options = replace(Options(), steps=steps)
    run = Run.begin(options, BUNDLED, NumpyBackend(), print)
    advance = step_of(run, linear(steps, options.lr, options.min_lr))
    with eager():
        seconds(advance, run, min(steps, 50))
        computed = seconds(advance, run, steps)
    first = seconds(advance, run, steps)
    replayed = seconds(advance, run, steps)
    for name, taken in (("computed", computed), ("captured", first), ("replayed", replayed)):
        print(f"{name:10} {taken / steps * 1e6:7.0f} us/step")
    print(f"{(first - replayed) * 1e3:.1f} ms to record")


if __name__ == "__main__":
    main()
