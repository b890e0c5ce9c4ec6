"""Captured programs as CUDA graphs over settled memory.

A replay copies small inputs to their places, launches graphs and makes the calls that can be in
none of them (`tfx.backends.cupy.cutting`), and copies the outputs out. A state that is given up has
a home and is updated there.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

import cupy

from tfx.backends.cupy.cutting import Allocator, Cutting, Lent, Step, Uncapturable
from tfx.backends.cupy.memory import shortage
from tfx.backends.cupy.places import Home, alias, copy_to, home_for, same_place
from tfx.core.backend import Array
from tfx.core.capture.copies import apart
from tfx.core.capture.program import Program
from tfx.core.capture.replay import COPIED, AsRecorded
from tfx.core.errors import CaptureError


class Graphs:
    """Makes the replays of one captured function (`tfx.core.capture.replay.Replayer`).

    They share memory, since one of them runs at a time. It is borrowed from whatever pool CuPy
    allocates from, as long as the function lives: addresses in a graph do not change.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        self._homes: dict[Any, Home] = {}
        self.moves = 0
        with device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._done = cupy.cuda.Event(disable_timing=True)
        self._lender = _Lender(device)
        self._pool = cupy.cuda.MemoryPool(self._lender)
        weakref.finalize(self, self._lender.take_back, self._pool, self._done).atexit = False

    def __call__(self, program: Program, homes: Mapping[int, int]) -> GraphReplay:
        return GraphReplay(self, program, homes)

    # ---- memory ----------------------------------------------------------------------------------

    def home(self, position: int, x: Array) -> Home:
        """The home of an input, whichever program runs."""
        kind = position, x.shape, x.dtype
        if kind not in self._homes:
            self._homes[kind] = home_for(x)
        return self._homes[kind]

    def leave(self, position: int, x: Array) -> None:
        """Leave a home to those who live there, and take another: what was captured is void."""
        del self._homes[position, x.shape, x.dtype]
        self.moves += 1

    def cut(self, program: Program, places: Sequence[Array], homes: dict[int, int]) -> Cutting:
        """A program as graphs and calls, whose memory is kept."""
        users = cupy.cuda.get_current_stream()
        self._lender.source = users, cupy.cuda.get_allocator()
        self._stream.wait_event(users.record())
        with self._stream, cupy.cuda.using_allocator(self._pool.malloc):
            try:
                return Cutting(program, places, homes, self._stream, self._pool.malloc)
            finally:
                users.wait_event(self._stream.record())

    def shortage(self, error: Exception) -> bool:
        """Whether `error` says that the device has no room."""
        return shortage(error, self._device) is not None

    def give_back(self) -> None:
        """Be without memory and homes: what was captured is void."""
        self._homes.clear()
        self._lender.take_back(self._pool, self._done)
        self.moves += 1

    # ---- order -----------------------------------------------------------------------------------

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Inside, on the current stream, what the last replay did is done, on whatever stream."""
        with self._device:
            stream = cupy.cuda.get_current_stream()
            stream.wait_event(self._done)  # which costs the device nothing on the same stream
            try:
                yield
            finally:
                self._done.record(stream)


class _Lender:
    """Memory for a pool of graphs, from where the user's arrays have theirs."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self.source: tuple[Any, Allocator] | None = None
        self._streams: set[Any] = set()

    def __call__(self, size: int) -> Any:
        assert self.source is not None
        stream, allocator = self.source
        with stream:  # whose freed memory may be had at once
            pointer = allocator(size)
        self._streams.add(stream)
        memory = cupy.cuda.UnownedMemory(pointer.ptr, size, pointer, pointer.device_id)
        return cupy.cuda.MemoryPointer(memory, 0)

    def take_back(self, pool: Any, done: Any) -> None:
        """CuPy's pools do not give back what they hold when they go. What is given back is used on
        the stream it was from, when all is done."""
        with self._device:
            for stream in self._streams:
                stream.wait_event(done)
            pool.free_all_blocks()


class GraphReplay:
    """Graphs, and what is between them; the calls as they were recorded, where that fails."""

    def __init__(self, graphs: Graphs, program: Program, homes: Mapping[int, int]) -> None:
        self.program = program
        self._graphs = graphs
        self._homes = dict(homes)
        self._given_up = [*homes.values()]
        self._moves = -1
        self._restless: set[int] = set()  # what came from elsewhere before
        self._steps: list[Step] = []
        self._lent = Lent()
        self._lines: list[str] = []
        self._copied: list[tuple[int, Array]] = []
        self._in_place: list[tuple[int, Array]] = []
        self._at_home: list[tuple[int, Home]] = []
        self._outputs: list[tuple[Array, Home | None]] = []
        self._fallback: AsRecorded | None = None
        self._left: float = 0  # so many calls are made as recorded before graphs are tried again
        self._pause = 1

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        if self._left:
            return self._as_recorded(inputs)
        if len({id(inputs[i]) for i in self._given_up}) < len(self._given_up):
            inputs = apart(self.program.backend, inputs)
        with self._graphs.in_turn():
            while not self._left:
                if self._are_in_place(inputs):
                    self._run()
                    return [x.copy() if home is None else home.key() for x, home in self._outputs]
                try:
                    self._lay_out(inputs)
                except (Uncapturable, MemoryError, RuntimeError) as error:
                    self._do_without(error)
        if self._left < inf:
            self._graphs.give_back()
        return self._as_recorded(inputs)

    def _are_in_place(self, inputs: Sequence[Array]) -> bool:
        """Bring the inputs to where the graphs look for them; False where they have to look
        elsewhere."""
        if self._moves != self._graphs.moves:
            return False
        for i, place in self._in_place:
            if not same_place(place, inputs[i]):
                self._restless.add(i)
                return False
        for i, home in self._at_home:
            if not home.admits(inputs[i]):
                self._graphs.leave(i, inputs[i])
                return False
        for i, place in self._copied:
            copy_to(place, inputs[i])
        return True

    def _run(self) -> None:
        try:
            with self._lent.again():
                for step in self._steps:
                    step()
        except Uncapturable as error:
            raise CaptureError(
                f"a replay does not do what it did: {error}; TFX_JIT=0 runs without capture"
            ) from error

    def _do_without(self, error: Exception) -> None:
        """For good; where there is no room, for twice as many calls as the time before."""
        self._left = inf
        if isinstance(error, MemoryError) or self._graphs.shortage(error):
            self._left, self._pause = self._pause, 2 * self._pause
        fallback = self._fallback = AsRecorded(self.program)
        self._lines = [f"no graphs: {type(error).__name__}: {error}", fallback.listing()]

    def _as_recorded(self, inputs: Sequence[Array]) -> list[Array]:
        assert self._fallback is not None
        self._left -= 1
        return self._fallback(inputs)

    def _lay_out(self, inputs: Sequence[Array]) -> None:
        graphs = self._graphs
        self._steps, self._outputs = [], []  # whose memory may be had
        at_home = {i: graphs.home(i, inputs[i]) for i in self._given_up}
        places = []
        self._copied, self._in_place = [], []
        for i, x in enumerate(inputs):
            if i in at_home:
                places.append(at_home[i].array)
            elif x.nbytes <= COPIED or i in self._restless:
                places.append(cupy.empty(x.shape, x.dtype))
                self._copied.append((i, places[-1]))
            else:
                places.append(x)
                self._in_place.append((i, alias(x)))
        cut = graphs.cut(self.program, places, self._homes)
        self._at_home = list(at_home.items())
        self._outputs = [
            (x, at_home[self._homes[i]] if i in self._homes else None)
            for i, x in enumerate(cut.outputs)
        ]
        self._steps, self._lent, self._lines = cut.steps, cut.lent, cut.lines
        self._moves = graphs.moves

    def restored(self, inputs: Sequence[Array], before: Mapping[int, Array]) -> Sequence[Array]:
        for i, x in before.items():
            copy_to(inputs[i], x)
        return inputs

    def listing(self) -> str:
        return "\n".join(self._lines)
