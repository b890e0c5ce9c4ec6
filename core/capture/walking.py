"""Carrying out a program call by call, for replays that look at what comes in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from tfx.core.backend import Array
from tfx.core.capture.program import Call, Program, Value


class Walk:
    """The values of a program that are there, and what its kernels saved.

    Args:
        program: what is carried out.
        inputs: its inputs.
    """

    def __init__(self, program: Program, inputs: Sequence[Array]) -> None:
        self._backend = program.backend
        self._arrays: dict[Value, Array] = dict(zip(program.inputs, inputs, strict=True))
        self._saved: dict[Call, Any] = {}

    def array(self, value: Value) -> Array:
        return self._arrays[value] if value.array is None else value.array

    def prepared(self, call: Call, seen: Callable[[Any], Any] = lambda x: x) -> Callable[[], Any]:
        """A call as a function of nothing, over the values that are there now. Each of them, and
        what a kernel saved, is passed through `seen`."""
        args = [seen(self.array(x)) if isinstance(x, Value) else x for x in call.args]
        if call.kernel is None:
            return partial(getattr(self._backend, call.name), *args, **call.params)
        if call.forward is None:
            return partial(call.kernel.forward, self._backend, *args, **call.params)
        assert call.kernel.vjp is not None
        g, out, *raw = args
        saved = seen(self._saved[call.forward])
        return partial(call.kernel.vjp, self._backend, g, out, saved, *raw, **call.params)

    def take(self, call: Call, found: Any) -> None:
        """Have what a call gave."""
        if call.kernel is not None and call.forward is None:
            found, self._saved[call] = found
        one = call.forward is None and not call.several
        for value, array in zip(call.results, (found,) if one else found, strict=True):
            if value is not None:
                self._arrays[value] = array

    def let_go(self, gone: Iterable[Value | Call]) -> None:
        """Be without these values, and without what these calls saved."""
        for x in gone:
            if isinstance(x, Value):
                self._arrays.pop(x, None)
            else:
                self._saved.pop(x, None)
