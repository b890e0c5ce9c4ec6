"""Replaying a program over memory that is settled beforehand, for arrays in the host's memory.

Every value has its place before the first run, so a run is a row of calls on arrays that exist:
views are made once, nothing is allocated, and what a call needs no longer is written over. Each
call's plan (`tfx.core.planning`) says how it is carried out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tfx.core.backend import Array, HostArray
from tfx.core.capture.memory import Arena, as_array, owner
from tfx.core.capture.program import Call, Program, Value
from tfx.core.planning import Call as PlannedCall


class Layout:
    """Where the values of a program lie, and the calls that fill them.

    Args:
        program: what to lay out.
        arena: where memory is from.
        places: of each input, the array that holds it during a run.
        homes: for outputs that take the place of an input, the number of that input.

    Attributes:
        calls: what a run makes.
        outputs: the array of each output; those with a home lie in it after a run.
    """

    def __init__(
        self,
        program: Program,
        arena: Arena,
        places: Sequence[HostArray],
        homes: dict[int, int],
    ) -> None:
        self._program = program
        self._arena = arena
        self._backend: Any = program.backend
        self.calls: list[PlannedCall] = []
        self._place: dict[Value, HostArray] = dict(zip(program.inputs, places, strict=True))
        self._pieces: dict[int, HostArray] = {}  # of the arena, by owner
        self._live: Counter[int] = Counter()  # values that are still to be read, by owner
        self._owner: dict[Value, int] = {}  # of the memory where a value lies
        self._uses = uses = Counter(program.outputs)
        for call in program.calls:
            for value in call.reads():
                uses[value] += 1
        for value, place in self._place.items():
            self._owner[value] = owner(place)
            if uses[value]:
                self._live[self._owner[value]] += 1
        self._home_of = {
            program.outputs[out]: program.inputs[position] for out, position in homes.items()
        }
        self._saved: dict[Call, Any] = {}
        self._saved_pieces: dict[Call, list[HostArray]] = {}
        self._pulls = Counter(call.forward for call in program.calls if call.forward is not None)
        self.gathered = _gathered(program)
        self._ends: dict[Call, HostArray] = {}
        for call in program.calls:
            self._lay_out(call)
        self.outputs = self._settle(homes)
        self._arena.release_all(list(self._pieces.values()))

    # ---- one call ------------------------------------------------------------------------------

    def _lay_out(self, call: Call) -> None:
        space = _Space(self, call)
        args = [self._array(x) for x in call.args]
        results: Sequence[Any]
        if call in self._ends:
            results, calls = self._planned_gathering(call, args)
        elif call.kernel is None:
            results, calls = _planned_primitive(self._backend, space, call, args)
        elif call.forward is None:
            results, calls = self._planned_kernel(space, call, args)
        else:
            results, calls = self._planned_pullback(space, call, args)
        self.calls += calls
        for value, array in zip(call.results, results, strict=True):
            if value is not None:
                self._place[value] = array
                which = self._owner[value] = owner(array)
                if self._uses[value]:
                    self._live[which] += 1
        self._arena.release_all(space.given_back())
        for value in call.reads():
            self._read(value)
        for value in call.gives():
            if not self._uses[value]:
                self._release_if_dead(self._owner[value])

    def _planned_kernel(
        self, space: _Space, call: Call, args: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[PlannedCall]]:
        kernel = call.kernel
        assert kernel is not None
        if kernel.plan is None or not self._is_planned(call):
            cell: list[Any] = [None]
            outs = [space.like(value, i) for i, value in enumerate(call.results)]
            self._saved[call] = cell
            run = partial(kernel.forward, self._backend, *args, **call.params)
            return outs, [(_fill_and_save, (outs, cell, call.several, run))]
        out, self._saved[call], calls = kernel.plan(self._backend, space, *args, **call.params)
        if self._pulls[call]:
            self._saved_pieces[call] = space.take_saved()
        return out if call.several else [out], calls

    def _planned_pullback(
        self, space: _Space, call: Call, args: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[PlannedCall]]:
        kernel, forward = call.kernel, call.forward
        assert kernel is not None and forward is not None and kernel.vjp is not None
        g, out, *raw = args
        saved = self._saved[forward]
        self._pulls[forward] -= 1
        is_last = not self._pulls[forward]
        if self._is_planned(forward):
            assert kernel.plan_vjp is not None
            found, calls = kernel.plan_vjp(self._backend, space, g, out, saved, *raw, **call.params)
            if is_last:
                space.give_back(self._saved_pieces.pop(forward))
            return found, calls
        outs = [None if v is None else space.like(v, i) for i, v in enumerate(call.results)]
        run = partial(kernel.vjp, self._backend, g, out)
        return outs, [(_fill_gradients, (outs, saved, is_last, run, raw, call.params))]

    def _is_planned(self, forward: Call) -> bool:
        """Whether a kernel's plans are all there that the program needs."""
        kernel = forward.kernel
        assert kernel is not None
        return kernel.plan is not None and (
            kernel.plan_vjp is not None or forward not in self._pulls
        )

    def _planned_gathering(
        self, call: Call, parts: Sequence[HostArray]
    ) -> tuple[Sequence[Any], Sequence[PlannedCall]]:
        """A concatenation whose parts are mostly in their places already."""
        whole = self._ends.pop(call)
        self._live[owner(whole)] -= 1
        calls: list[PlannedCall] = []
        start = 0
        for part in parts:
            place = whole[start : start + len(part)]
            start += len(part)
            if not same_place(part, place):
                calls.append((np.copyto, (place, part)))
        return [whole], calls

    def gathering_place(
        self, value: Value | None, shape: tuple[int, ...], dtype: Any
    ) -> HostArray | None:
        """Where a value lies that goes into a concatenation and nowhere else first."""
        if value not in self.gathered:
            return None
        call, start = self.gathered[value]
        if call not in self._ends:
            (whole,) = call.gives()
            native = self._backend.native(whole.dtype)
            piece = self._arena.piece(whole.shape[0] * native.itemsize)
            self.own(piece)
            self._live[owner(piece)] += 1
            self._ends[call] = as_array(piece, whole.shape, native)
        place = self._ends[call][start : start + math.prod(shape)]
        return place.reshape(shape) if place.dtype == dtype and shape == value.shape else None

    # ---- what lives how long ---------------------------------------------------------------------

    def _array(self, x: Any) -> Any:
        if not isinstance(x, Value):
            return x
        return self._place[x] if x.array is None else x.array

    def _read(self, value: Value) -> None:
        if value.array is not None:
            return
        self._uses[value] -= 1
        if not self._uses[value]:
            which = self._owner[value]
            self._live[which] -= 1
            self._release_if_dead(which)

    def _release_if_dead(self, which: int) -> None:
        if not self._live[which] and which in self._pieces:
            self._arena.release(self._pieces.pop(which))

    def own(self, piece: HostArray) -> None:
        """Have a piece that lives as long as values in it are to be read."""
        self._pieces[owner(piece)] = piece

    def is_last_use(self, x: HostArray, call: Call) -> bool:
        """Whether nothing reads the memory of `x` after this call."""
        which = owner(x)
        reads: dict[Value, int] = {}
        for value in call.reads():
            if self._owner.get(value) == which:
                reads[value] = reads.get(value, 0) + 1
        return self._live[which] == len(reads) > 0 and all(
            self._uses[value] == count for value, count in reads.items()
        )

    # ---- outputs ---------------------------------------------------------------------------------

    def _settle(self, homes: dict[int, int]) -> list[HostArray]:
        """Bring every output that has a home there."""
        outputs = [self._array(value) for value in self._program.outputs]
        places = {owner(self._place[self._program.inputs[i]]) for i in homes.values()}
        moves = []
        for out, position in homes.items():
            home = self._place[self._program.inputs[position]]
            array = outputs[out]
            if same_place(array, home):
                outputs[out] = home
                continue
            if owner(array) in places:  # another home's, which may be filled before this is read
                copy = as_array(self._arena.piece(array.nbytes), array.shape, array.dtype)
                self.calls.append((np.copyto, (copy, array)))
                array = copy
            moves.append((home, array))
            outputs[out] = home
        for i, array in enumerate(outputs):
            if i not in homes and owner(array) in places:
                copy = np.empty(array.shape, array.dtype)
                self.calls.append((np.copyto, (copy, array)))
                outputs[i] = copy
        self.calls += [(np.copyto, move) for move in moves]
        return outputs

    def home_of(self, value: Value | None) -> HostArray | None:
        """Where a value is to be in the end, if it takes an input's place."""
        source = self._home_of.get(value) if value is not None else None
        return None if source is None else self._place[source]


class _Space:
    """The workspace of one call."""

    def __init__(self, layout: Layout, call: Call) -> None:
        self._layout = layout
        self._call = call
        self._scratch: list[HostArray] = []
        self._saved: list[HostArray] = []

    def result(self, shape: tuple[int, ...], dtype: Any, of: int = 0) -> HostArray:
        place = self._layout.gathering_place(self._call.results[of], shape, dtype)
        if place is not None:
            return place
        piece = self._piece(shape, dtype)
        self._layout.own(piece)
        return as_array(piece, shape, dtype)

    def saved(self, shape: tuple[int, ...], dtype: Any) -> HostArray:
        self._saved.append(self._piece(shape, dtype))
        return as_array(self._saved[-1], shape, dtype)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> HostArray:
        self._scratch.append(self._piece(shape, dtype))
        return as_array(self._scratch[-1], shape, dtype)

    def may_overwrite(self, x: Array, of: int = 0) -> bool:
        layout, value = self._layout, self._call.results[of]
        if value is None or value in layout.gathered:
            return False
        if not x.flags.writeable or not layout.is_last_use(x, self._call):
            return False  # what is repeated, as broadcast_to has it, is not writeable either
        if owner(x) in layout._pieces:
            return True
        home = layout.home_of(value)
        return home is not None and same_place(x, home)

    def like(self, value: Value | None, of: int) -> HostArray:
        """A result of the shape and dtype that were recorded."""
        assert value is not None
        return self.result(value.shape, self._layout._backend.native(value.dtype), of)

    def _piece(self, shape: tuple[int, ...], dtype: Any) -> HostArray:
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return self._layout._arena.piece(count)

    def take_saved(self) -> list[HostArray]:
        taken, self._saved = self._saved, []
        return taken

    def give_back(self, pieces: list[HostArray]) -> None:
        self._scratch += pieces

    def given_back(self) -> list[HostArray]:
        """What is free when the call is done."""
        return self._scratch + self._saved


def _gathered(program: Program) -> dict[Value, tuple[Call, int]]:
    """Results that are a part of a flat concatenation, each with that and where it begins there: a
    gradient that is to be one with all others is best made in its place."""
    made = {value: call for call in program.calls for value in call.gives()}
    found: dict[Value, tuple[Call, int]] = {}
    for call in program.calls:
        flat = all(len(value.shape) == 1 for value in call.gives())
        if call.kernel is None and call.name == "concat" and flat:
            start = 0
            for part in call.args:
                source, maker = part, made.get(part)
                while maker is not None and maker.kernel is None and maker.name == "reshape":
                    (source,) = maker.args
                    maker = made.get(source)
                if maker is not None:
                    found.setdefault(source, (call, start))
                start += part.shape[0]
    return found


def same_place(x: HostArray, y: HostArray) -> bool:
    return (
        x.__array_interface__["data"] == y.__array_interface__["data"]
        and x.shape == y.shape
        and x.strides == y.strides
        and x.dtype == y.dtype
    )


def _planned_primitive(
    backend: Any, space: _Space, call: Call, args: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[PlannedCall]]:
    plan = backend.plans.get(call.name)
    if plan is not None:
        found = plan(backend, space, *args, **call.params)
        if found is not None:
            out, calls = found
            return [out], calls
    out = space.like(call.results[0], 0)
    return [out], [(_fill, (out, partial(getattr(backend, call.name), *args, **call.params)))]


def _fill(out: HostArray, function: Callable[[], Any]) -> None:
    np.copyto(out, function())


def _fill_and_save(
    outs: Sequence[HostArray], cell: list[Any], several: bool, function: Callable[[], Any]
) -> None:
    found, cell[0] = function()
    for out, array in zip(outs, found if several else (found,), strict=True):
        np.copyto(out, array)


def _fill_gradients(
    outs: Sequence[HostArray | None],
    cell: list[Any],
    is_last: bool,
    vjp: Callable[..., Any],
    raw: Sequence[Any],
    params: Any,
) -> None:
    found = vjp(cell[0], *raw, **params)
    if is_last:
        cell[0] = None
    for out, array in zip(outs, found, strict=True):
        if out is not None:
            np.copyto(out, array)
