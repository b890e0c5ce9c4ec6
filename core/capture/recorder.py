"""Listening to a backend while a function runs, and writing down the calls it comes to.

The function runs as always, on real arrays: differentiation, dispatch and checks included, which is
why a training step is recorded whole. What is written down are the calls that reach the backend.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any

from tfx.core.backend import PRIMITIVES, Array, Backend, Fused
from tfx.core.capture.copies import copied
from tfx.core.capture.program import Argument, Call, Program, Value
from tfx.core.errors import CaptureError

FOLDED = 1 << 18
"""A result of constants alone is a constant itself when it has no more elements than this."""

SHARED = 1 << 13
"""Equal calls are made once when their result has no more elements than this: larger ones would be
kept where the function means to compute them anew, as it does when it saves memory."""

_NOT_RECORDED = {"asarray", "to_numpy", "full", "arange"}  # they take no array of the backend
_VIEWS = {name for name, group in PRIMITIVES.items() if group == "shape"} - {"concat", "pad"}

_NUMBERS = (int, float, bool)


class NotCapturable(Exception):
    """The function does what no list of calls can do again, and rightly so; says what."""


_REFUSED = {
    "value_and_grad": (NotCapturable, "differentiates by the library's own autograd"),
    "to_numpy": (
        CaptureError,
        "a captured function reads a value on the host (item(), numpy(), a condition on a tensor): "
        "a replay would not; return it, or take the function out of tfx.jit",
    ),
    "dlpack": (
        CaptureError,
        "a captured function hands a tensor to another library by DLPack, which a replay would "
        "not; return it, or take the function out of tfx.jit",
    ),
}


@dataclass(slots=True)
class _Saved:
    """What a kernel saved, with the call that it was."""

    call: Call
    saved: Any


class Recorder:
    """Writes down what a function does on one backend.

    Args:
        backend: where it computes.
        inputs: the raw arrays it is given, no two of them the same.

    Attributes:
        before: copies of inputs, by position, made before the function wrote to them.
    """

    def __init__(self, backend: Backend, inputs: Sequence[Array]) -> None:
        self._backend = backend
        self._calls: list[Call] = []
        self._known: dict[int, tuple[Callable[[], Any], Value]] = {}
        self._alike: dict[Any, Value] = {}
        self._busy = False
        self._thread = get_ident()
        self._notes = dict.fromkeys(("recorded", "folded", "shared"), 0)
        self.inputs = [Value(backend.shape(x), backend.dtype(x)) for x in inputs]
        self._positions = {value: i for i, value in enumerate(self.inputs)}
        self.before: dict[int, Array] = {}
        for x, value in zip(inputs, self.inputs, strict=True):
            self._know(x, value)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, on this thread, what the backend is asked for is written down."""
        own = vars(self._backend)
        stand_ins = self._stand_ins()
        before = {name: own[name] for name in stand_ins if name in own}
        try:
            own.update(stand_ins)
            yield
        finally:
            for name in stand_ins:
                own.pop(name, None)
            own.update(before)

    def _stand_ins(self) -> dict[str, Any]:
        """What the backend's attributes are exchanged for."""
        backend = self._backend
        found: dict[str, Any] = {
            name: self._primitive(name, getattr(backend, name))
            for name in PRIMITIVES
            if name not in _NOT_RECORDED
        }
        for name, (error, why) in _REFUSED.items():
            found[name] = self._refused(getattr(backend, name), error, why)
        found["fused"] = {name: self._kernel(kernel) for name, kernel in backend.fused.items()}
        return found

    def program(self, outputs: Sequence[Array]) -> Program:
        """What was written down, as a function of the inputs that gives these arrays."""
        values = [self._value(x) for x in outputs]
        return Program(self._backend, self.inputs, self._calls, values, self._notes)

    # ---- what stands in for the backend's methods ------------------------------------------------

    def _elsewhere(self) -> bool:
        """Whether a call is none of ours: another thread's, or one that a call makes in turn."""
        return self._busy or get_ident() != self._thread

    def _carried_out(self, function: Callable[..., Any], *args: Any, **params: Any) -> Any:
        self._busy = True
        try:
            return function(*args, **params)
        finally:
            self._busy = False

    def _primitive(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **params: Any) -> Any:
            if self._busy or get_ident() != self._thread:
                return original(*args, **params)
            values = tuple([self._value(x) for x in args])
            if name == "write":
                buffer, value = self._writable(args[0], values[0])
                args, values = (buffer, *args[1:]), (value, *values[1:])
            self._busy = True
            try:
                result = original(*args, **params)
            finally:
                self._busy = False
            self._note(name, args, values, params, result)
            return result

        return call

    def _note(
        self, name: str, args: Sequence[Any], values: tuple[Argument, ...], params: Any, result: Any
    ) -> None:
        if name == "write":
            self._add(Call(name, values, params, (self._result(result),)))
            return
        if result is args[0]:  # as a cast to the same dtype gives
            return
        shape = self._backend.shape(result)
        count = math.prod(shape)
        view = name in _VIEWS
        if (view or count <= FOLDED) and all(map(_is_constant, values)):
            self._notes["folded"] += 1
            self._know(result, self._constant(result))
            return
        key = (name, *map(_distinct, values), *params.items()) if view or count <= SHARED else None
        alike = self._alike.get(key)
        if alike is not None:
            self._notes["shared"] += 1
            self._know(result, alike)
            return
        value = self._result(result)
        if key is not None:
            self._alike[key] = value
        self._add(Call(name, values, params, (value,)))

    def _kernel(self, kernel: Fused) -> Fused:
        def forward(B: Backend, *raw: Any, **params: Any) -> tuple[Any, Any]:
            if self._elsewhere():
                return kernel.forward(B, *raw, **params)
            args = tuple(map(self._value, raw))
            out, saved = self._carried_out(kernel.forward, B, *raw, **params)
            several = isinstance(out, tuple)
            results = tuple(map(self._result, out if several else (out,)))
            call = Call(kernel.name, args, params, results, kernel, several=several)
            self._add(call)
            return out, _Saved(call, saved)

        def vjp(B: Backend, g: Array, out: Any, saved: Any, *raw: Any, **params: Any) -> Any:
            assert kernel.vjp is not None
            if not isinstance(saved, _Saved):
                return kernel.vjp(B, g, out, saved, *raw, **params)
            forward_call = saved.call
            if self._elsewhere():
                return kernel.vjp(B, g, out, saved.saved, *raw, **params)
            args = (self._value(g), *forward_call.results, *map(self._value, raw))
            found = self._carried_out(kernel.vjp, B, g, out, saved.saved, *raw, **params)
            results = tuple(None if x is None else self._result(x) for x in found)
            self._add(Call(kernel.name, args, params, results, kernel, forward_call))
            return found

        return replace(kernel, forward=forward, vjp=vjp if kernel.vjp else None)

    def _refused(
        self, original: Callable[..., Any], error: type[Exception], why: str
    ) -> Callable[..., Any]:
        def call(*args: Any, **params: Any) -> Any:
            if self._elsewhere():
                return original(*args, **params)
            raise error(why)

        return call

    # ---- which value an array is -----------------------------------------------------------------

    def _value(self, x: Any) -> Argument:
        found = self._known.get(id(x))
        if found is not None and found[0]() is x:
            return found[1]
        if x is None or type(x) in _NUMBERS:
            return x
        value = self._constant(x)
        self._know(x, value)
        return value

    def _constant(self, x: Array) -> Value:
        return Value(self._backend.shape(x), self._backend.dtype(x), x)

    def _result(self, x: Array) -> Value:
        value = Value(self._backend.shape(x), self._backend.dtype(x))
        self._know(x, value)
        return value

    def _know(self, x: Array, value: Value) -> None:
        """From here on, this array is that value. Arrays that are gone are not kept: what they
        take up is as much as without a recorder."""
        try:
            self._known[id(x)] = weakref.ref(x), value
        except TypeError:
            self._known[id(x)] = (lambda: x), value

    def _add(self, call: Call) -> None:
        self._notes["recorded"] += 1
        self._calls.append(call)

    def _writable(self, buffer: Array, value: Value) -> tuple[Array, Value]:
        """What `write` may consume, here and in every run: a copy of what is a constant, or may be
        had for another call's result. Of an input, a copy is kept as it was."""
        position = self._positions.get(value)
        if position is not None:
            if position not in self.before:
                self.before[position] = self._copied(buffer)
            return buffer, value
        if value.array is None and value not in self._alike.values():
            return buffer, value
        copy = Value(value.shape, value.dtype)
        self._add(Call("concat", (value,), {"axis": 0}, (copy,)))
        return self._copied(buffer), copy

    def _copied(self, x: Array) -> Array:
        return self._carried_out(copied, self._backend, x)


def _is_constant(x: Argument) -> bool:
    return not isinstance(x, Value) or x.array is not None


def _distinct(x: Argument) -> Argument:
    """What tells an argument from all that compute otherwise: 0.0 and -0.0 are equal."""
    return repr(x) if x.__class__ is float and x == 0 else x
