"""L6: what a call costs beside its arithmetic. Measured and reported, never failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from tfx.core.creation import full
from tfx.core.dtypes import DType
from tfx.testing.kit import Checks, Level, Subject
from tfx.testing.levels.gradients import ways_of
from tfx.testing.network import Network

CHECKS = Checks(Level.OVERHEAD)

REPEATS = 7
ENOUGH = 0.01  # seconds of work in one repeat


def cost(action: Callable[[], Any], synchronize: Callable[[], None]) -> float:
    """Seconds of one call: the median of several repeats, each of many calls."""
    count = 1
    while True:
        seconds = _timed(action, synchronize, count)
        if seconds > ENOUGH:
            break
        count *= 2
    return median(_timed(action, synchronize, count) for _ in range(REPEATS)) / count


def _timed(action: Callable[[], Any], synchronize: Callable[[], None], count: int) -> float:
    synchronize()
    began = time.perf_counter()
    for _ in range(count):
        action()
    synchronize()
    return time.perf_counter() - began


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us"


@CHECKS.check
def a_primitive_on_four_numbers(subject: Subject) -> str:
    B = subject.backend
    x = B.full(shape=(1, 4), value=1.5, dtype=DType.float32)
    w = B.full(shape=(4, 4), value=1.5, dtype=DType.float32)
    calls = {
        "add": lambda: B.add(x, x),
        "exp": lambda: B.exp(x),
        "sum": lambda: B.sum(x, axis=(1,), keepdims=True),
        "matmul": lambda: B.matmul(x, w),
        "reshape": lambda: B.reshape(x, shape=(4,)),
    }
    costs = {name: microseconds(cost(call, B.synchronize)) for name, call in calls.items()}
    return ", ".join(f"{name} {time}" for name, time in costs.items())


@CHECKS.check
def a_tensor_beside_its_array(subject: Subject) -> str:
    B = subject.backend
    x = full((1, 4), 1.5, B, DType.float32)
    raw = cost(lambda: B.add(x.data, x.data), B.synchronize)
    checked = cost(lambda: x + x, B.synchronize)
    return f"add {microseconds(raw)} raw, {microseconds(checked)} as tensors"


@CHECKS.check
def a_training_step_of_a_tiny_network(subject: Subject) -> str:
    costs = {}
    for way in ways_of(subject.backend):
        network = Network(subject.backend, way)
        costs[way] = microseconds(cost(network.train_step, subject.backend.synchronize))
    return ", ".join(f"{way} {time}" for way, time in costs.items())
