"""L3: composed operations are right, and every kernel is what it replaces, value and gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

from tfx.core.autograd import Autograd
from tfx.core.backend import Backend
from tfx.core.dtypes import FLOATS, HALVES, DType
from tfx.core.errors import TfxError
from tfx.core.fused import composed
from tfx.core.tape import no_grad
from tfx.testing.calling import PLAIN, told
from tfx.testing.composed_table import FUSED_OPS, OPS
from tfx.testing.kit import Checks, Level, Skipped, Subject
from tfx.testing.levels.gradients import WAYS, check_way
from tfx.testing.levels.values import same
from tfx.testing.nearness import Mismatch
from tfx.testing.records import Op
from tfx.testing.trials import Trial, check_gradients, check_values, samples_for
from tfx.testing.wrong_calls import WRONG_CALLS, ones_on

CHECKS = Checks(Level.KERNELS)


def operation(subject: Subject, op: Op, dtype: DType) -> None:
    """Composed of primitives: its value, and its gradient by the tape."""
    subject.needs(dtype, *sorted(op.own_dtypes))
    B = subject.backend
    samples = samples_for(op, B, dtype)
    with composed():
        check_values(op, B, samples, dtype, PLAIN)
        if op.differentiable:
            check_gradients(op, B, samples, dtype, layouts=PLAIN)


def kernel(subject: Subject, name: str, dtype: DType, way: Autograd) -> None:
    """The override of a fused op, against the same reference, on every sample; and it does run."""
    subject.needs(dtype)
    check_way(subject, way)
    B = subject.backend
    with _watched(subject, name) as runs:
        for op in ops_of(name):
            subject.needs(*sorted(op.own_dtypes))
            share = op.rounding if dtype is DType.float32 else 0.0
            check_values(op, B, op.samples, dtype, share=share)
            if op.differentiable and dtype not in HALVES:  # whose slopes are too coarse
                check_gradients(op, B, op.samples, dtype, way)
    if not runs:
        raise Skipped(f"the kernel supports none of the samples in {dtype}")


def leaves_its_arguments(subject: Subject, name: str) -> None:
    """A kernel reads, and its derivative too; what they work on is memory of their own."""
    B = subject.backend
    with _watched(subject, name) as runs:
        for op, dtype in product(ops_of(name), sorted(FLOATS & B.dtypes - HALVES)):
            for trial in (Trial(op, sample, dtype) for sample in op.samples):
                with told(trial):
                    op.call(*trial.tensors(B), **trial.sample.statics)
                    if op.differentiable:
                        trial.gradients(B)
    if not runs:
        raise Mismatch("it runs on none of the samples in any dtype")


def refuses_wrong_input(subject: Subject, name: str) -> None:
    """What the composed form refuses, with the same words."""
    B = subject.backend
    if name not in B.fused:
        raise Skipped("it has no kernel")
    for n, wrong in enumerate(WRONG_CALLS[name]):
        said = []
        for form in (composed, no_grad):
            try:
                with form():
                    wrong(ones_on(B))
                said.append("nothing")
            except TfxError as error:
                said.append(f"{type(error).__name__}: {error}")
        if said[0] != said[1]:
            raise Mismatch(f"on wrong call {n} it says {said[1]}; the composed form, {said[0]}")


def ops_of(name: str) -> list[Op]:
    """The records of a fused op."""
    return [op for op in FUSED_OPS if op.name.split()[0] == name]


@contextmanager
def _watched(subject: Subject, name: str) -> Iterator[list[None]]:
    """Inside, each run of a kernel adds an element to the list; nothing that it reads may change.

    Raises:
        Skipped: there is no such kernel.
    """
    B = subject.backend
    if name not in B.fused:
        raise Skipped("it has no kernel")
    runs: list[None] = []
    original = B.fused[name]

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(own: Backend, *args: Any, **params: Any) -> Any:
            runs.append(None)
            kept = [(i, x, own.to_numpy(x)) for i, x in enumerate(args) if _is_still(own, x)]
            out = function(own, *args, **params)
            for i, x, before in kept:
                with told(f"argument {i} afterwards"):
                    same(own.to_numpy(x), before)
            return out

        return call

    vjp = original.vjp and watched(original.vjp)
    B.fused[name] = replace(original, forward=watched(original.forward), vjp=vjp)
    try:
        yield runs
    finally:
        B.fused[name] = original


def _is_still(B: Backend, x: Any) -> bool:
    """Whether it is an array whose values can be looked at without a trace in the derivative."""
    return B.is_array(x) and not B.recording_natively(x)


_NAMES = list(dict.fromkeys(op.name.split()[0] for op in FUSED_OPS))

for _dtype in (DType.float32, DType.float64):
    for _op in (*OPS, *FUSED_OPS):
        CHECKS.add(f"{_op.name} {_dtype} composed", operation, _op, _dtype)
    for _name in _NAMES:
        for _way in WAYS:
            CHECKS.add(f"{_name} {_dtype} kernel {_way}", kernel, _name, _dtype, _way)

for _name in _NAMES:
    for _dtype in sorted(HALVES):
        CHECKS.add(f"{_name} {_dtype} kernel", kernel, _name, _dtype, "core")
    CHECKS.add(f"{_name} kernel changes no argument", leaves_its_arguments, _name)
    CHECKS.add(f"{_name} kernel refuses wrong input", refuses_wrong_input, _name)
