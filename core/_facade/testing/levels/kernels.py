"""L3: composed operations are right, and every kernel is what it replaces, value and gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tfx.core.autograd import Autograd
from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.fused import composed
from tfx.core.tensor import Tensor
from tfx.testing.calling import PLAIN, fetch, told
from tfx.testing.composed_table import FUSED_OPS, OPS
from tfx.testing.kit import Checks, Level, Skipped, Subject
from tfx.testing.levels.gradients import WAYS, check_way
from tfx.testing.levels.values import same
from tfx.testing.records import Op
from tfx.testing.trials import Trial, check_gradients, check_values

CHECKS = Checks(Level.KERNELS)


def operation(subject: Subject, op: Op, dtype: DType) -> None:
    """Composed of primitives: its value, and its gradient by the tape."""
    subject.needs(dtype)
    with composed():
        check_values(op, subject.backend, dtype, PLAIN)
        if op.differentiable:
            check_gradients(op, subject.backend, dtype, layouts=PLAIN)


def kernel(subject: Subject, name: str, dtype: DType, way: Autograd) -> None:
    """The override of a fused op, against the same reference; and it does run."""
    if name not in subject.backend.fused:
        raise Skipped("it has no kernel")
    subject.needs(dtype)
    check_way(subject, way)
    with _counted(subject.backend, name) as runs:
        for op in FUSED_OPS:
            if op.name.split()[0] == name:
                check_values(op, subject.backend, dtype)
                check_gradients(op, subject.backend, dtype, way)
    if not runs:
        raise Skipped(f"the kernel supports none of the samples in {dtype}")


def leaves_its_arguments(subject: Subject, name: str) -> None:
    """A kernel reads; what it works on is memory of its own."""
    B = subject.backend
    if name not in B.fused:
        raise Skipped("it has no kernel")
    for op in FUSED_OPS:
        if op.name.split()[0] == name:
            for sample in op.samples:
                trial = Trial(op, sample, DType.float32)
                args = trial.tensors(B)
                op.call(*args, **sample.statics)
                for i, (x, given) in enumerate(zip(args, trial.arrays, strict=True)):
                    with told(f"argument {i}", trial):
                        if isinstance(x, Tensor):
                            same(fetch(B, x.data), given)


@contextmanager
def _counted(B: Backend, name: str) -> Iterator[list[None]]:
    """Inside, each run of a kernel adds an element to the list."""
    runs: list[None] = []
    original = B.fused[name]

    def forward(*args: Any, **params: Any) -> Any:
        runs.append(None)
        return original.forward(*args, **params)

    B.fused[name] = replace(original, forward=forward)
    try:
        yield runs
    finally:
        B.fused[name] = original


_NAMES = list(dict.fromkeys(op.name.split()[0] for op in FUSED_OPS))

for _dtype in (DType.float32, DType.float64):
    for _op in (*OPS, *FUSED_OPS):
        CHECKS.add(f"{_op.name} {_dtype} composed", operation, _op, _dtype)
    for _name in _NAMES:
        for _way in WAYS:
            CHECKS.add(f"{_name} {_dtype} kernel {_way}", kernel, _name, _dtype, _way)

for _name in _NAMES:
    CHECKS.add(f"{_name} kernel changes no argument", leaves_its_arguments, _name)
