"""Elementwise calls of NumPy as loops, which those that follow each other share where they can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfx.backends.numba.compiling import Array
from tfx.backends.numba.rows.code import (
    REGISTER,
    TYPES,
    Code,
    intrinsic,
    lanes_of,
    overlap,
    place_of,
    splat,
)
from tfx.core.planning import maximum


@dataclass
class Step:
    """One elementwise call: `out = operation(*args)`, where `mask` is true if there is one.

    Attributes:
        out, args, mask: arrays of one shape.
    """

    operation: str
    out: Array
    args: Sequence[Array]
    mask: Array | None = None

    def arrays(self) -> list[Array]:
        """All that it reads and writes."""
        return [self.out, *self.args, *([] if self.mask is None else [self.mask])]


@dataclass
class Chain:
    """Steps that are carried out together, number by number.

    Attributes:
        shape: of the loops around them, the least that all arrays can be walked through by.
    """

    steps: list[Step]
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.shape = _merged(self.steps)[0]

    def takes(self, step: Step) -> bool:
        """Whether one more step may join: nothing it touches was written elsewhere but at the same
        index, and nothing that it writes is read at another."""
        if step.out.shape != self.steps[0].out.shape:
            return False
        if _merged([*self.steps, step])[0] != self.shape:
            return False
        written = [x.out for x in self.steps]
        read = [y for x in self.steps for y in x.arrays()]
        return all(_apart(x, y) for x in written for y in step.arrays()) and all(
            _apart(x, step.out) for x in read
        )


def step_of(function: Callable[..., Any], args: Sequence[Any]) -> Step | None:
    """An elementwise call as a step; None where it is none, or of arrays it does not know."""
    found = _copy(args) if function is np.copyto else _operation(function, args)
    if found is None or any(x.dtype not in TYPES for x in found.arrays()) or not found.out.size:
        return None
    if not found.out.flags.writeable or found.out.ndim > 4:
        return None
    if not all(_apart(found.out, x) for x in found.arrays()[1:]):
        return None
    return found if _is_sound(found) else None


_OPERATIONS: dict[str, str] = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "true_divide": "div",
    "divide": "div",
    "negative": "neg",
    "sqrt": "sqrt",
    "maximum": "maximum",
    "equal": "equal",
    "less": "less",
}


def _operation(function: Any, args: Sequence[Any]) -> Step | None:
    known = function is maximum or isinstance(function, np.ufunc)
    if not known or function.__name__ not in _OPERATIONS:
        return None
    if len(args) != getattr(function, "nargs", 3) or not all(_is_array(x) for x in args):
        return None
    *inputs, out = args
    if any(x.dtype != inputs[0].dtype for x in inputs):
        return None
    seen = [np.broadcast_to(x, out.shape) for x in inputs]
    return Step(_OPERATIONS[function.__name__], out, seen)


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray)


def _copy(args: Sequence[Any]) -> Step | None:
    out, source, *rest = args
    if not isinstance(source, np.ndarray):
        return None
    mask = None if len(rest) < 2 else np.broadcast_to(rest[1], out.shape)
    return Step("copy", out, [np.broadcast_to(source, out.shape)], mask)


def _is_sound(step: Step) -> bool:
    """Whether the kinds of numbers are among those that there is code for."""
    kinds, out = {x.dtype.kind for x in step.args}, step.out.dtype
    if step.operation == "copy":
        into_whole = out.kind in "ib" and step.args[0].dtype.kind != out.kind
        return not (into_whole and (step.args[0].dtype.kind == "f" or out.kind == "b"))
    if step.operation in ("equal", "less"):
        return out.kind == "b" and kinds <= {"f", "i"}
    if step.args[0].dtype != out:
        return False
    return kinds == {"f"} or (kinds == {"i"} and step.operation in ("add", "sub", "mul", "maximum"))


def _apart(x: Array, y: Array) -> bool:
    """Whether writing to one leaves the other alone, or changes it at the same index only."""
    return place_of(x) == place_of(y) or not overlap(x, y)


def _merged(steps: Sequence[Step]) -> tuple[tuple[int, ...], list[list[tuple[int, ...]]]]:
    """The shape with as few axes as possible, and the strides along them of each step's arrays."""
    arrays = [step.arrays() for step in steps]
    shape = arrays[0][0].shape
    strides = [[x.strides for x in some] for some in arrays]
    every = [x for some in strides for x in some]
    axes: list[list[int]] = []  # each a run of axes that can be walked as one
    for axis in range(len(shape)):
        if shape[axis] == 1:
            continue
        before = axes[-1][-1] if axes else None
        if before is not None and all(x[before] == x[axis] * shape[axis] for x in every):
            axes[-1].append(axis)
        else:
            axes.append([axis])
    merged = tuple(int(np.prod([shape[a] for a in run])) for run in axes)
    return merged, [[tuple(x[run[-1]] for run in axes) for x in some] for some in strides]


# ---- text ----------------------------------------------------------------------------------------


def write_chain(code: Code, chain: Chain) -> None:
    """Loops over all axes, the last one by registers where all numbers lie side by side."""
    write_steps(code, chain.steps, [[code.place(x) for x in s.arrays()] for s in chain.steps])


def write_steps(code: Code, steps: Sequence[Step], places: list[list[str]]) -> None:
    """The same, of arrays that begin at the given places."""
    shape, strides = _merged(steps)
    _write_axes(code, steps, shape, strides, places)


def _write_axes(
    code: Code,
    steps: Sequence[Step],
    shape: tuple[int, ...],
    strides: list[list[tuple[int, ...]]],
    places: list[list[str]],
) -> None:
    if len(shape) > 1:
        with code.loop(shape[0]) as i:
            inner = _moved(code, places, strides, i)
            rest = [[x[1:] for x in some] for some in strides]
            _write_axes(code, steps, shape[1:], rest, inner)
        return
    count = shape[0] if shape else 1
    sizes = {x.itemsize for step in steps for x in step.arrays()}
    regular = all(
        not shape or stride[0] in (0, x.itemsize)
        for step, some in zip(steps, strides, strict=True)
        for x, stride in zip(step.arrays(), some, strict=True)
    )
    lanes = REGISTER // max(sizes) if regular else 1
    whole = count - count % lanes
    if whole:
        with code.loop(whole, lanes) as i:
            _write_lanes(code, steps, strides, _moved(code, places, strides, i), lanes)
    if whole < count and lanes > 1:
        here = _moved(code, places, strides, str(whole))
        _write_lanes(code, steps, strides, here, count - whole)


def _moved(
    code: Code, places: list[list[str]], strides: list[list[tuple[int, ...]]], index: str
) -> list[list[str]]:
    return [
        [
            code.at(place, index, stride[0]) if stride else place
            for place, stride in zip(some, many, strict=True)
        ]
        for some, many in zip(places, strides, strict=True)
    ]


def _write_lanes(
    code: Code,
    steps: Sequence[Step],
    strides: list[list[tuple[int, ...]]],
    places: list[list[str]],
    lanes: int,
) -> None:
    """All steps for so many numbers side by side."""
    known: dict[Any, str] = {}  # what was written or read just before, by where it lies
    for step, some, here in zip(steps, strides, places, strict=True):
        values = []
        for x, stride, place in zip(step.arrays()[1:], some[1:], here[1:], strict=True):
            key = place_of(x)
            if key not in known:
                known[key] = _loaded(code, x, stride[0] if stride else 0, place, lanes)
            values.append(known[key])
        mask = values.pop() if step.mask is not None else None
        result = _computed(code, step, values, lanes)
        if mask is not None:
            old = _loaded(code, step.out, step.out.itemsize, here[0], lanes)
            result = _chosen(code, mask, result, old, _register(step.out.dtype), lanes)
        _store(code, step.out, here[0], result, lanes)
        known = {key: x for key, x in known.items() if key[0] != step.out.ctypes.data}
        known[place_of(step.out)] = result


def _loaded(code: Code, x: Array, stride: int, place: str, lanes: int) -> str:
    """Numbers from memory; truth values as bits."""
    scalar = TYPES[x.dtype]
    if stride == 0 and lanes > 1:
        value = code.load(scalar, place, x.itemsize)
        value = splat(code, value, scalar, lanes)
    else:
        value = code.load(lanes_of(scalar, lanes), place, x.itemsize)
    if x.dtype.kind == "b":
        return code.value(f"icmp ne {lanes_of(scalar, lanes)} {value}, zeroinitializer")
    return value


def _register(dtype: np.dtype[Any]) -> str:
    """What LLVM calls such numbers out of memory: truth values are bits."""
    return "i1" if dtype.kind == "b" else TYPES[dtype]


def _chosen(code: Code, mask: str, yes: str, no: str, scalar: str, lanes: int) -> str:
    """One or the other, lane by lane."""
    bits, kind = lanes_of("i1", lanes), lanes_of(scalar, lanes)
    return code.value(f"select {bits} {mask}, {kind} {yes}, {kind} {no}")


def _store(code: Code, x: Array, place: str, value: str, lanes: int) -> None:
    kind = lanes_of(TYPES[x.dtype], lanes)
    if x.dtype.kind == "b":
        value = code.value(f"zext {lanes_of('i1', lanes)} {value} to {kind}")
    code.store(kind, value, place, x.itemsize)


def _computed(code: Code, step: Step, values: Sequence[str], lanes: int) -> str:
    dtype = step.args[0].dtype
    kind = lanes_of(TYPES[dtype], lanes)
    whole = dtype.kind == "i"
    operation = step.operation
    if operation == "copy":
        return _converted(code, values[0], dtype, step.out.dtype, lanes)
    if operation == "neg":
        return code.value(f"fneg {kind} {values[0]}")
    if operation == "sqrt":
        return intrinsic(code, "sqrt", TYPES[dtype], lanes, values[0])
    if operation == "maximum":
        return _larger(code, values[0], values[1], TYPES[dtype], lanes)
    if operation in ("equal", "less"):
        how = {"equal": ("eq", "oeq"), "less": ("slt", "olt")}[operation][not whole]
        return code.value(f"{'icmp' if whole else 'fcmp'} {how} {kind} {values[0]}, {values[1]}")
    name = operation if whole else f"f{operation}"
    return code.value(f"{name} {kind} {values[0]}, {values[1]}")


def _larger(code: Code, x: str, y: str, scalar: str, lanes: int) -> str:
    """As NumPy has it: of two NaNs the first."""
    kind, bits = lanes_of(scalar, lanes), lanes_of("i1", lanes)
    if scalar.startswith("i"):
        return _chosen(code, code.value(f"icmp sge {kind} {x}, {y}"), x, y, scalar, lanes)
    more, unknown = (
        code.value(f"fcmp {how} {kind} {x}, {z}") for how, z in (("oge", y), ("uno", x))
    )
    return _chosen(code, code.value(f"or {bits} {more}, {unknown}"), x, y, scalar, lanes)


def _converted(
    code: Code, value: str, source: np.dtype[Any], target: np.dtype[Any], lanes: int
) -> str:
    if source == target:
        return value
    before = lanes_of(_register(source), lanes)
    after = lanes_of(TYPES[target], lanes)
    if source.kind == "b":
        how = "uitofp" if target.kind == "f" else "zext"
    elif source.kind == "i":
        how = "sitofp" if target.kind == "f" else ("sext", "trunc")[target < source]
    else:
        how = ("fpext", "fptrunc")[target < source]
    return code.value(f"{how} {before} {value} to {after}")
