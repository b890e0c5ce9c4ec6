"""Replays of programs: over settled memory where the backend plans its calls, else as they came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, Protocol

import numpy as np

from tfx.core.backend import Array
from tfx.core.capture.functional import straight_line
from tfx.core.capture.memory import Arena, HostArray
from tfx.core.capture.program import Program
from tfx.core.capture.static import Layout
from tfx.core.planning import Call

COPIED = 1 << 20
"""Bytes. Inputs up to this size are copied to a place of their own in each run; larger ones are
used where they are, and if they come from elsewhere, the program is laid out anew."""


class Replay(Protocol):
    """Carries out a program."""

    program: Program

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs, none of which a later run changes but those that were given up."""

    def listing(self) -> str:
        """What a run does, for people."""


class Memory:
    """What the replays of one function share, since only one of them runs at a time.

    Attributes:
        arena: for what they compute on the way.
        homes: of inputs that are given up, by position, shape and dtype: where they lie from run to
            run, whichever program runs.
    """

    def __init__(self) -> None:
        self.arena = Arena()
        self.homes: dict[Any, HostArray] = {}


def replay_of(program: Program, homes: Mapping[int, int], memory: Memory) -> Replay:
    """How a program is replayed on its backend. `homes`: see `Layout`."""
    if program.backend.plans:
        return Settled(program, homes, memory)
    return AsRecorded(program)


class AsRecorded:
    """The recorded calls, made again by the backend's own methods."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._run, self._source = straight_line(program)

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        return self._run(inputs)

    def listing(self) -> str:
        return self._source


class Settled:
    """Planned calls over settled memory."""

    def __init__(self, program: Program, homes: Mapping[int, int], memory: Memory) -> None:
        self.program = program
        self._homes = dict(homes)
        self._memory = memory
        self._run: Callable[[], None] | None = None

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        run = self._run
        if run is None:
            run = self._lay_out(inputs)
        for i, place, is_own in self._places:
            x = inputs[i]
            if x is not place:
                if not is_own:
                    self._run = None
                    return self(inputs)
                np.copyto(place, x)
        run()
        return [x if at_home else x.copy() for x, at_home in self._outputs]

    def _lay_out(self, inputs: Sequence[Array]) -> Callable[[], None]:
        kept = set(self._homes.values())
        places: list[tuple[int, HostArray, bool]] = []
        for i, x in enumerate(inputs):
            if i in kept:
                places.append((i, self._home(i, x), True))
            elif x.nbytes <= COPIED:
                places.append((i, np.empty(x.shape, x.dtype), True))
            else:
                places.append((i, x, False))
        self._places = places
        layout = Layout(
            self.program, self._memory.arena, [place for _, place, _ in places], self._homes
        )
        self._outputs = [(x, i in self._homes) for i, x in enumerate(layout.outputs)]
        self.calls = layout.calls
        self._run = row_of(layout.calls)
        return self._run

    def _home(self, position: int, x: HostArray) -> HostArray:
        """Where an input that is given up lies from now on: where it is, if nobody else is there."""
        key = position, x.shape, x.dtype
        if key not in self._memory.homes:
            own = x.flags.writeable and x.flags.c_contiguous and 0 not in x.strides
            self._memory.homes[key] = x if own else x.copy()
        return self._memory.homes[key]

    def listing(self) -> str:
        return "\n".join(_described(call) for call in self.calls)


def row_of(calls: Sequence[Call]) -> Callable[[], None]:
    """One function that makes all calls, one after the other."""
    lines, scope, names = [], {}, {}

    def name(x: Any) -> str:
        if id(x) not in names:
            names[id(x)] = f"x{len(names)}"
            scope[names[id(x)]] = x
        return names[id(x)]

    for function, args in calls:
        lines.append(f"    {name(function)}({', '.join(map(name, args))})\n")
    source = f"def run():\n{''.join(lines) or '    pass'}"
    run = FunctionType(_compiled(source), scope)
    return run


@lru_cache(maxsize=64)
def _compiled(source: str) -> CodeType:
    """The code of the one function in a source. Programs of other shapes have mostly the same."""
    scope: dict[str, Any] = {}
    exec(source, scope)
    return scope["run"].__code__  # type: ignore[no-any-return]


def _described(call: Call) -> str:
    function, args = call
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", repr(function))
    return f"{name}({', '.join(_shown(x) for x in args)})"


def _shown(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
