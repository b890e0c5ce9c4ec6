"""Replays of programs: over settled memory where the backend plans its calls, by the backend itself
where it replays programs, else as they came."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, Protocol

import numpy as np

from tfx.core import host_memory
from tfx.core.backend import Array, Backend, HostArray
from tfx.core.capture.copies import apart
from tfx.core.capture.functional import straight_line
from tfx.core.capture.memory import Arena
from tfx.core.capture.program import Program
from tfx.core.capture.static import Layout, same_place
from tfx.core.planning import Call

COPIED = 1 << 20
"""Bytes. Inputs up to this size are copied to a place of their own in each run; larger ones are
used where they are, until they come from elsewhere: then they are copied too."""


class Replay(Protocol):
    """Carries out a program.

    Attributes:
        program: what it carries out.
    """

    program: Program

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs, none of which a later run changes but those that were given up."""

    def restored(self, inputs: Sequence[Array], before: Mapping[int, Array]) -> Sequence[Array]:
        """Inputs as they were before recording wrote to some: of those, copies from `before`."""

    def listing(self) -> str:
        """What a run does, for people."""


class Replayer(Protocol):
    """What `Backend.replayer` gives: makes the replays of one captured function.

    They may share memory for what they compute on the way: only one of them runs at a time.
    """

    def __call__(self, program: Program, homes: Mapping[int, int]) -> Replay:
        """Of a program, in which each output in `homes` takes over the memory of the input that has
        that number."""


class _Stay:
    """What the views of a home that the caller holds go back to, while there is one."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.__array_interface__ = home.array.__array_interface__


class Home:
    """Where an input that is given up lies from run to run.

    What the caller holds of it is a view. While that view comes back as the next input, nothing is
    copied; while it, or a view of it, is alive elsewhere, nobody else may move in.
    """

    __slots__ = ("_guest", "array")

    def __init__(self, array: HostArray) -> None:
        self.array = array.view()
        self._guest: weakref.ref[HostArray] | None = None

    def admits(self, x: HostArray) -> bool:
        """Bring an input home; False where another still lives there."""
        guest = None if self._guest is None else self._guest()
        if guest is not x:
            if guest is not None:
                return False
            if not same_place(self.array, x):
                np.copyto(self.array, x)
        return True

    def key(self) -> HostArray:
        """What the caller gets: the same view as long as it is in use."""
        guest = None if self._guest is None else self._guest()
        if guest is None:
            guest = np.asarray(_Stay(self))
            self._guest = weakref.ref(guest)
        return guest


def place_of(x: HostArray) -> HostArray:
    """The memory of an array, without keeping alive what the caller holds of a home."""
    return x.base.home.array if isinstance(x.base, _Stay) else x


class Memory:
    """What the replays of one function share, since only one of them runs at a time.

    Attributes:
        arena: for what they compute on the way.
        moves: how often a home was given up for another: what was laid out before is void.
    """

    def __init__(self) -> None:
        self.arena = Arena()
        self.moves = 0
        self._homes: dict[Any, Home] = {}
        self._replayers: dict[int, tuple[Backend, Replayer | None]] = {}

    def replayer(self, backend: Backend) -> Replayer | None:
        """The backend's own, for this function."""
        if id(backend) not in self._replayers:
            self._replayers[id(backend)] = backend, backend.replayer()
        return self._replayers[id(backend)][1]

    def home(self, position: int, x: HostArray) -> Home:
        """The home of an input, whichever program runs: at first, where it lies, if all of that
        memory is its own, and NumPy's: another library may write to what it lent. What another
        function gave out stays in its home, which both have then.
        """
        kind = position, x.shape, x.dtype
        if kind not in self._homes:
            if isinstance(x.base, _Stay):
                self._homes[kind] = x.base.home
            else:
                owner = x.base if isinstance(x.base, np.ndarray) else x
                is_whole = x.flags.c_contiguous and owner.nbytes == x.nbytes
                can_stay = is_whole and x.flags.writeable and owner.flags.owndata
                self._homes[kind] = Home(x if can_stay else x.copy())
        return self._homes[kind]

    def leave(self, position: int, x: HostArray) -> None:
        """Leave a home to those who live there, and take another."""
        del self._homes[position, x.shape, x.dtype]
        self.moves += 1


def replay_of(program: Program, homes: Mapping[int, int], memory: Memory) -> Replay:
    """How a program is replayed on its backend. `homes`: see `Layout`."""
    if program.backend.plans:
        return Settled(program, homes, memory)
    replayer = memory.replayer(program.backend)
    return AsRecorded(program) if replayer is None else replayer(program, homes)


class AsRecorded:
    """The recorded calls, made again by the backend's own methods."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._run, self._source = straight_line(program)

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        return self._run(inputs)

    def restored(self, inputs: Sequence[Array], before: Mapping[int, Array]) -> Sequence[Array]:
        return [before.get(i, x) for i, x in enumerate(inputs)]

    def listing(self) -> str:
        return self._source


class Settled:
    """Planned calls over settled memory."""

    def __init__(self, program: Program, homes: Mapping[int, int], memory: Memory) -> None:
        self.program = program
        self.calls: Sequence[Call] = ()
        self._planned: Sequence[Call] = ()
        self._homes = dict(homes)
        self._given_up = [*homes.values()]
        self._memory = memory
        self._moves = -1
        self._seen: dict[int, weakref.ref[HostArray]] = {}  # what was used where it is
        self._restless: set[int] = set()  # what came from elsewhere before

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        if len({id(inputs[i]) for i in self._given_up}) < len(self._given_up):
            inputs = apart(self.program.backend, inputs)
        if self._moves != self._memory.moves:
            self._lay_out(inputs)
        for i, place in self._copied:
            np.copyto(place, inputs[i])
        for i, place in self._in_place:
            x = inputs[i]
            if self._seen[i]() is not x:
                if not same_place(place, x):
                    self._restless.add(i)
                    self._moves = -1
                    return self(inputs)
                self._seen[i] = weakref.ref(x)
        for i, home in self._at_home:
            if not home.admits(inputs[i]):
                self._memory.leave(i, inputs[i])
                return self(inputs)
        self._run()
        return [x.copy() if home is None else home.key() for x, home in self._outputs]

    def restored(self, inputs: Sequence[Array], before: Mapping[int, Array]) -> Sequence[Array]:
        for i, x in before.items():
            np.copyto(inputs[i], x)
        return inputs

    def _lay_out(self, inputs: Sequence[Array]) -> None:
        host_memory.give_back()  # what was computed anew at each step has its place now
        at_home = {i: self._memory.home(i, inputs[i]) for i in self._homes.values()}
        places = []
        self._copied, self._in_place = [], []
        for i, x in enumerate(inputs):
            if i in at_home:
                places.append(at_home[i].array)
            elif x.nbytes <= COPIED or i in self._restless:
                places.append(np.empty(x.shape, x.dtype))
                self._copied.append((i, places[-1]))
            else:
                places.append(place_of(x))
                self._in_place.append((i, places[-1]))
                self._seen[i] = weakref.ref(x)
        layout = Layout(self.program, self._memory.arena, places, self._homes)
        self._at_home = list(at_home.items())
        self._outputs = [
            (x, at_home[self._homes[i]] if i in self._homes else None)
            for i, x in enumerate(layout.outputs)
        ]
        self._planned = layout.calls
        self.calls = self._joined(layout.calls)
        self._run = row_of(self.calls)
        self._moves = self._memory.moves

    def _joined(self, calls: Sequence[Call]) -> Sequence[Call]:
        """The calls, as few as the kernels among them can make of them."""
        kernels = (call.kernel for call in self.program.calls)
        for join in dict.fromkeys(x.join for x in kernels if x is not None and x.join):
            calls = join(calls)
        return calls

    def listing(self) -> str:
        lines = [_described(call) for call in self._planned]
        if len(self.calls) < len(lines):
            lines.append(f"these {len(lines)} calls are joined to {len(self.calls)}")
        return "\n".join(lines)


def row_of(calls: Sequence[Call]) -> Callable[[], None]:
    """One function that makes all calls, one after the other."""
    lines: list[str] = []
    scope: dict[str, Any] = {}
    names: dict[int, str] = {}

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
