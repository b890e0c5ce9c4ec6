"""L2: derivatives, by the tape over the primitives and by the backend's own autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from tfx.core import ops
from tfx.core.autograd import Autograd, grad, value_and_grad
from tfx.core.backend import Backend
from tfx.core.checkpointing import checkpointed
from tfx.core.creation import tensor
from tfx.core.dtypes import FLOATS, DType
from tfx.core.errors import OnlyOnTape
from tfx.core.tape import no_grad
from tfx.core.tensor import Tensor
from tfx.testing.calling import PLAIN
from tfx.testing.contract import require
from tfx.testing.kit import Checks, Level, Skipped, Subject
from tfx.testing.nearness import Mismatch
from tfx.testing.primitive_table import PRIMITIVE_OPS
from tfx.testing.records import Op
from tfx.testing.trials import check_gradients, samples_for

CHECKS = Checks(Level.GRADIENTS)

WAYS: tuple[Autograd, ...] = ("core", "native")


def ways_of(B: Backend) -> tuple[Autograd, ...]:
    """Those that the backend has."""
    return WAYS[: 1 + B.native_autograd]


def check_way(subject: Subject, way: Autograd) -> None:
    """Skip what is for native autograd where there is none."""
    if way == "native" and not subject.backend.native_autograd:
        raise Skipped("native_autograd is False")


def gradients(subject: Subject, op: Op, dtype: DType, way: Autograd) -> None:
    """Against finite differences of NumPy's values, in a random direction."""
    subject.needs(dtype)
    check_way(subject, way)
    B = subject.backend
    check_gradients(op, B, samples_for(op, B, dtype), dtype, way, PLAIN)


for _op in PRIMITIVE_OPS.values():
    if _op.differentiable:
        for _way in WAYS:
            for _dtype in (DType.float64, DType.float32):
                CHECKS.add(f"{_op.name} {_dtype} {_way}", gradients, _op, _dtype, _way)


# ---- what finite differences cannot tell -------------------------------------------------


def slopes(
    f: Callable[..., Tensor], expected: Any, *args: Any
) -> Callable[[Subject, Autograd], None]:
    """A check that the gradient of sum(f(*args)) by each argument is the expected, exactly."""

    def check(subject: Subject, way: Autograd) -> None:
        check_way(subject, way)
        B = subject.backend
        params = [tensor(np.array(x, np.float32), B) for x in args]
        found = [g.tolist() for g in grad(lambda p: f(*p).sum(), autograd=way)(params)]
        wanted = [np.asarray(x, np.float32).tolist() for x in expected]
        if found != wanted:
            raise Mismatch(f"gradients {found}, expected {wanted}")

    return check


def _half_detached(x: Tensor) -> Tensor:
    with no_grad():
        twice = x * 2.0
    return x * x.detach() + x * twice


def _select(x: Tensor, y: Tensor) -> Tensor:
    return ops.where(tensor([True, False], x.backend), x, y) * 2.0


EXACT = {
    "equals share the gradient of max": slopes(
        lambda x: x.max(), [[1 / 3, 0, 1 / 3, 1 / 3, 0]], [3, 1, 3, 3, 2]
    ),
    "equals share the gradient of max along an axis": slopes(
        lambda x: x.max(1), [[[0.5, 0.5], [0, 1]]], [[1, 1], [2, 3]]
    ),
    "equals share the gradient of maximum": slopes(
        Tensor.maximum, [[0.5, 0, 1], [0.5, 1, 0]], [1, 2, 3], [1, 3, 2]
    ),
    "equals share the gradient of maximum of a number": slopes(
        lambda x: x.maximum(0.0), [[0, 0.5, 1]], [-1, 0, 1]
    ),
    "what is not selected does not matter to where": slopes(
        _select, [[2, 0], [0, 2]], [1, math.nan], [math.inf, 3]
    ),
    "the slope of x**0 is 0": slopes(lambda x: x**0, [[0, 0, 0, 0]], [0, -2, 3, 1]),
    "the slope of x**2 below and at 0": slopes(lambda x: x**2, [[0, -4, 6]], [0, -2, 3]),
    "repeated indices add up in the gradient of take": slopes(
        lambda x: x.take(tensor([0, 2, 0], x.backend)), [[2, 0, 1]], [5, 6, 7]
    ),
    "what is detached is a constant": slopes(_half_detached, [[3, 9, -6]], [1, 3, -2]),
    "what was overwritten has no gradient": slopes(
        lambda x, y: x.write(y, 1)[:3] * 5.0, [[5, 0, 0, 0], [5, 5]], [1, 2, 3, 4], [8, 9]
    ),
}

for _name, _check in EXACT.items():
    for _way in WAYS:
        CHECKS.add(f"{_name} {_way}", _check, _way)


@CHECKS.check
def write_leaves_a_recorded_buffer_as_it_was(subject: Subject) -> None:
    B = subject.backend
    buffer = tensor([1.0, 2.0, 3.0], B, DType.float32)

    def f(w: Tensor) -> Tensor:
        product = w * buffer
        buffer.write(tensor([9.0], B, DType.float32), 1)
        return product.sum()

    for way in ways_of(B):
        found = grad(f, autograd=way)(tensor([1.0, 1.0, 1.0], B, DType.float32)).tolist()
        require(found == [1, 2, 3], f"gradient {found}, expected [1, 2, 3], autograd {way}")


@CHECKS.check
def native_autograd_finds_what_the_tape_finds(subject: Subject) -> None:
    """A parameter that the value depends on through each kind of primitive, and one it does not;
    checkpointed too, where the backend can."""
    check_way(subject, "native")
    B = subject.backend

    def f(p: dict[str, Tensor]) -> Tensor:
        x = (p["w"] @ p["v"]).tanh() + p["b"]
        x = ops.where(x < 0.3, x * 2.0, x.exp()) / (p["s"] ** 2 + 1.0)
        picked = x.take(tensor([1, 0, 1], B), axis=0)
        return (picked.max(1) * picked.sum(1)).sum() + p["w"][:1].reshape(-1).maximum(0.1).sum()

    rng = np.random.default_rng(0)
    shapes = {"w": (2, 3), "v": (3, 4), "b": (4,), "s": (), "unused": (2,)}
    p = {n: tensor(rng.standard_normal(s), B, DType.float32) for n, s in shapes.items()}
    by_tape = value_and_grad(f, autograd="core")(p)
    _compare(value_and_grad(f, autograd="native")(p), by_tape, "native")
    with suppress(OnlyOnTape):
        anew = value_and_grad(lambda p: checkpointed(lambda w: f(p))(p["w"]), autograd="native")(p)
        _compare(anew, by_tape, "native, checkpointed")


def _compare(found: tuple[Tensor, Any], by_tape: tuple[Tensor, Any], way: str) -> None:
    """Hold a value and its gradients against the tape's."""
    kinds = [f"{value.dtype}{value.shape}" for value, _ in (found, by_tape)]
    require(kinds[0] == kinds[1], f"the value is {kinds[0]}, not {kinds[1]}, {way}")
    if not np.allclose(found[0].numpy(), by_tape[0].numpy(), rtol=1e-4):
        raise Mismatch(f"the value: {way} {found[0].item()}, the tape {by_tape[0].item()}")
    for name in by_tape[1]:
        ours, tape = found[1][name].numpy(), by_tape[1][name].numpy()
        if not np.allclose(ours, tape, rtol=1e-4, atol=1e-5):
            raise Mismatch(f"by {name}: {way} {ours.tolist()}, the tape {tape.tolist()}")


def gradients_have_the_dtype_of_their_parameter(subject: Subject, way: Autograd) -> None:
    """Also where the value is cast on the way; and numbers beside a recorded array stay weak."""
    check_way(subject, way)
    for dtype in sorted(FLOATS & subject.backend.dtypes):

        def weak(x: Tensor, dtype: DType = dtype) -> Tensor:
            for y in (x.maximum(0.5), x * 0.5, ops.where(x < 9.0, x, 0.5), x**2, 0.5 - x):
                require(y.dtype is dtype, f"{dtype} and a number gave {y.dtype}, recorded {way}")
            return (x * x).sum()

        x = tensor([1.0, 2.0], subject.backend, dtype)
        for f in (weak, lambda x: ((x * x).cast(DType.float32)).sum()):
            found = grad(f, autograd=way)(x)
            require(found.dtype is dtype, f"the gradient by {dtype} is {found.dtype}")
            said = f"the gradient of sum(x * x) by {dtype} [1, 2] is {found.tolist()}, not [2, 4]"
            require(found.tolist() == [2, 4], said)


for _way in WAYS:
    CHECKS.add(
        f"gradients have the dtype of their parameter {_way}",
        gradients_have_the_dtype_of_their_parameter,
        _way,
    )


@CHECKS.check
def gradients_of_gradients(subject: Subject) -> None:
    x = tensor([1.0, 2.0], subject.backend, DType.float32)
    inner = grad(lambda x: (x**3).sum(), autograd="core")
    found = grad(lambda x: inner(x).sum(), autograd="core")(x).tolist()
    require(np.allclose(found, [6, 12]), f"the second derivative of x**3 is {found}, not [6, 12]")
