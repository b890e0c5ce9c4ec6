"""Cutting a program into CUDA graphs, and the calls between them that CuPy lets no stream capture.

Nothing says beforehand which calls those are. A call that cannot be captured says so when it is
tried, as CuPy does for all products by cuBLAS, for copies from the host and for waiting; the graph
then ends before it. What was tried is thrown away, which costs nothing but the host's time: while a
stream captures, nothing runs. So a kernel that keeps arrays from call to call, a table say, has to
make them when it is first called, which is before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cupy

from tfx.backends.cupy.places import alias, copy_to, overlap, same_place
from tfx.core.backend import Array
from tfx.core.capture.program import Call, Program, Value
from tfx.core.capture.walking import Walk

Step = Callable[[], Any]
Allocator = Callable[[int], Any]


class Uncapturable(Exception):
    """A program that is better replayed otherwise; says why."""


class Lent:
    """Memory for the calls between graphs. What they were given when the program was cut, each of
    them is given again in every replay, since the graphs look for their results there."""

    def __init__(self) -> None:
        self._given: list[tuple[int, Any]] = []
        self._next = 0

    def noting(self, allocator: Allocator) -> Allocator:
        """The allocator, listened to."""

        def allocate(size: int) -> Any:
            pointer = allocator(size)
            memory = cupy.cuda.UnownedMemory(pointer.ptr, size, None, pointer.device_id)
            self._given.append((size, cupy.cuda.MemoryPointer(memory, 0)))
            return pointer

        return allocate

    def __call__(self, size: int) -> Any:
        """What was given at this place in the row.

        Raises:
            Uncapturable: a call asks for other memory than it did.
        """
        if self._next == len(self._given) or self._given[self._next][0] != size:
            raise Uncapturable(f"a call asks for {size} bytes where it did not before")
        self._next += 1
        return self._given[self._next - 1][1]

    @contextmanager
    def again(self, first: int = 0) -> Iterator[None]:
        """Inside, whoever allocates gets what was given from the `first` on, and nothing else."""
        self._next = first
        with cupy.cuda.using_allocator(self):
            yield
        if self._next != len(self._given):
            raise Uncapturable("a call asks for less memory than it did")

    def __len__(self) -> int:
        return len(self._given)


class Cutting:
    """One walk through a program, on a stream that may capture.

    Args:
        program: what is cut.
        places: of each input, the array that holds it in every replay.
        homes: for outputs that take the place of an input, the number of that input.
        stream: current, as is the `allocator`, which gives memory that nobody else gets.

    Attributes:
        steps: what a replay does.
        outputs: the array of each output; those with a home lie in it after a replay.
        lent: the memory of the steps that are no graphs.
        lines: the steps in words.
    """

    def __init__(
        self,
        program: Program,
        places: Sequence[Array],
        homes: dict[int, int],
        stream: Any,
        allocator: Allocator,
    ) -> None:
        self._program = program
        self._places = places
        self._homes = homes
        self._stream = stream
        self._allocator = allocator
        self._walk = Walk(program, places)
        self._last_uses = program.last_uses()
        self._last_pulls = {call.forward: i for i, call in enumerate(program.calls)}
        self._refused: dict[Any, str] = {}  # what cannot be captured, and why
        self._young: set[Value | Call] = set()  # made in the graph that is being captured
        self._due: list[int] = []
        self.steps: list[Step] = []
        self.outputs: list[Array] = []
        self.lent = Lent()
        self.lines: list[str] = []
        self._cut()

    def _cut(self) -> None:
        calls = self._program.calls
        done = self._graph(0)
        while done < len(calls):
            self._call_between(done, calls[done])
            done = self._graph(done + 1)

    # ---- what is captured ------------------------------------------------------------------------

    def _graph(self, first: int) -> int:
        """Capture the calls from the first up to one that cannot be; where that is."""
        calls = self._program.calls
        while True:
            ahead = range(first, len(calls))
            last = next((i for i in ahead if _kind(calls[i]) in self._refused), len(calls))
            if first == last < len(calls):
                return last
            graph, refused = self._tried(first, last)
            if refused is None:
                break
            self._walk.let_go(self._young)
        for i in self._due:
            self._let_go(i)
        if graph is not None:
            self.steps.append(graph.launch)
            names = Counter(call.name for call in calls[first:last])
            parts = ", ".join(f"{n} {name}" if n > 1 else name for name, n in names.items())
            count = f"{last - first} call{'s' * (last - first != 1)}"
            self.lines.append(f"one graph of {count}: {parts or 'copies'}")
        return last

    def _tried(self, first: int, last: int) -> tuple[Any, int | None]:
        """The graph of some calls, None where there is nothing to do in it; or which call refuses.

        Values are let go when the graph is there, but for those that were made in it: they are made
        anew in the next attempt.
        """
        calls = self._program.calls
        self._young, self._due = set(), []
        i, works = first, False
        self._stream.begin_capture()
        try:
            for i in range(first, last):
                call = calls[i]
                self._young.update((call, *call.gives()))
                self._walk.take(call, self._walk.prepared(call)())
                works = works or not self._is_view(call)
                self._let_go(i, young=True)
            i = last
            if last == len(calls):
                works = self._settled() or works
        except Exception as error:
            if i == last or isinstance(error, MemoryError):
                raise
            self._refused[_kind(calls[i])] = f"{type(error).__name__}: {error}"
            return None, i
        finally:
            graph = self._ended()
        if graph is None:
            raise Uncapturable("the device takes its calls for a graph, and gives none")
        return graph if works else None, None

    def _ended(self) -> Any:
        """The captured graph; None where the capture was spoilt. Either way, it is over."""
        try:
            return self._stream.end_capture()
        except cupy.cuda.runtime.CUDARuntimeError:
            return None

    def _is_view(self, call: Call) -> bool:
        """Whether a call did nothing on the device: its result is a view of its argument."""
        if call.kernel is not None or call.name == "write":
            return False
        (result,), x = call.gives(), call.args[0]
        if not isinstance(x, Value):
            return False
        return self._walk.array(result).data.mem is self._walk.array(x).data.mem

    # ---- what is not -----------------------------------------------------------------------------

    def _call_between(self, i: int, call: Call) -> None:
        """Make a call as it is, and have it made again in every replay.

        It computes with whatever numbers there are, since no graph has run yet.
        """
        why = self._refused[_kind(call)]
        if call.kernel is None and call.name == "write":
            raise Uncapturable(f"write cannot be captured ({why})")
        run = self._walk.prepared(call, alias)
        given = len(self.lent)
        with cupy.cuda.using_allocator(self.lent.noting(self._allocator)):
            found = self._walk.prepared(call)()
        self._walk.take(call, found)
        with self.lent.again(given):
            run()
        self.steps.append(run)
        shapes = ", ".join(str(value) for value in call.reads())
        pullback = "" if call.forward is None else "gradient of "
        self.lines.append(f"{pullback}{call.name}({shapes}), not captured: {why}")
        self._let_go(i)

    # ---- what lives how long ---------------------------------------------------------------------

    def _let_go(self, i: int, young: bool = False) -> None:
        """Let go what no call after the i-th reads; while that is being captured, only what was
        made in the same graph."""
        call = self._program.calls[i]
        gone: list[Value | Call] = [*self._last_uses.get(i, ())]
        if call.forward is None:
            gone += [call] if call not in self._last_pulls else []
        elif self._last_pulls[call.forward] == i:
            gone.append(call.forward)
        if young:
            self._due.append(i)
            gone = [x for x in gone if x in self._young]
        self._walk.let_go(gone)

    # ---- outputs ---------------------------------------------------------------------------------

    def _settled(self) -> bool:
        """Bring every output that has a home there; whether that takes anything."""
        outputs = [self._walk.array(value) for value in self._program.outputs]
        homes = [self._places[position] for position in self._homes.values()]
        moves, copies = [], 0
        for i, x in enumerate(outputs):
            home = self._places[self._homes[i]] if i in self._homes else None
            if home is not None and same_place(x, home):
                outputs[i] = home
                continue
            if any(overlap(x, other) for other in homes):  # which may be filled before this is read
                outputs[i] = x.copy()
                copies += 1
            if home is not None:
                moves.append((home, outputs[i]))
                outputs[i] = home
        for move in moves:
            copy_to(*move)
        self.outputs = outputs
        return bool(moves or copies)


def _kind(call: Call) -> Any:
    """What calls have in common that can all be captured, or cannot."""
    shapes = tuple((value.shape, value.dtype) for value in call.reads())
    return call.name, call.kernel is None, call.forward is None, shapes
