"""Weights that share an input, multiplied in one call: queries, keys and values, for instance.

Products of the same rows with matrices that lie one after the other in the flat buffer of
parameters are one product with all of them. So are their gradients: by the rows, where the sum of
several becomes one product, and by the matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tfx.core.capture.program import Call, Program, Value

_PLAIN = {"activation": None, "outputs_first": True}
"""Of `tfx.core.nn.linear`: what is left is the product, and matrices that lie row by row."""


def with_shared_products(program: Program) -> None:
    """Merge the products of a program that can be merged."""
    merged = 0
    for group in list(_groups(program)):
        merged += _Merging(program, group).done()
    program.notes["merged"] = merged


class _Product(NamedTuple):
    """`call` multiplies by the matrix that begins and ends there in `flat`."""

    call: Call
    flat: Value
    start: int
    stop: int


def _groups(program: Program) -> Iterator[list[_Product]]:
    """Products of the same rows with neighbouring matrices, in the order of those."""
    maker = {value: call for call in program.calls for value in call.gives()}
    found: dict[Any, list[_Product]] = {}
    for call in program.calls:
        if call.name != "linear" or call.kernel is None or call.forward is not None:
            continue
        x, w, b, residual = call.args
        if b is None and residual is None and call.params == _PLAIN:
            place = _place(w, maker)
            if place is not None:
                found.setdefault((x, place[0], w.shape[1]), []).append(_Product(call, *place))
    for group in found.values():
        group.sort(key=lambda product: product.start)
        if len(group) > 1 and all(a.stop == b.start for a, b in pairwise(group)):
            yield group


def _place(w: Value, maker: dict[Value, Call]) -> tuple[Value, int, int] | None:
    """The flat buffer that a matrix is cut from, and where."""
    shaped = maker.get(w)
    cut = maker.get(shaped.args[0]) if shaped and shaped.name == "reshape" else None
    if cut is None or cut.name != "slice" or len(cut.args[0].shape) != 1:
        return None
    return cut.args[0], cut.params["starts"][0], cut.params["stops"][0]


class _Merging:
    """Makes one product of a group."""

    def __init__(self, program: Program, group: Sequence[_Product]) -> None:
        self._program = program
        self._group = group
        self._calls = [product.call for product in group]
        self._pullbacks = [
            next((other for other in program.calls if other.forward is call), None)
            for call in self._calls
        ]

    def done(self) -> int:
        """How many products were merged: all, or none where their gradients go separate ways."""
        pulled = [call for call in self._pullbacks if call is not None]
        if not pulled:
            self._replace({self._calls[0]: self._forward()}, {*self._calls}, {})
            return len(self._calls)
        sums = _chain_of_sums([call.results[0] for call in pulled], self._program)
        if len(pulled) < len(self._calls) or sums is None or self._is_early(pulled, sums):
            return 0
        forward = self._forward()
        backward, instead = self._backward(forward[-len(self._calls) - 1], pulled, sums)
        last = max(pulled, key=self._program.calls.index)
        gone = {*self._calls, *pulled, *sums}
        self._replace({self._calls[0]: forward, last: backward}, gone, instead)
        return len(self._calls)

    def _is_early(self, pulled: Sequence[Call], sums: Sequence[Call]) -> bool:
        """Whether a gradient is read before the last of them can be made."""
        calls = self._program.calls
        last = max(map(calls.index, pulled))
        given = {value for call in pulled for value in call.gives()}
        return any(not given.isdisjoint(call.reads()) for call in calls[:last] if call not in sums)

    def _forward(self) -> list[Call]:
        first, last = self._group[0], self._group[-1]
        kernel = first.call
        x, w = kernel.args[:2]
        outputs = sum(call.args[1].shape[0] for call in self._calls)
        flat = Value((last.stop - first.start,), w.dtype)
        whole = Value((outputs, w.shape[1]), w.dtype)
        product = Value((*x.shape[:-1], outputs), x.dtype)
        cut = {"starts": (first.start,), "stops": (last.stop,), "steps": (1,)}
        made = Call("linear", (x, whole, None, None), kernel.params, (product,), kernel.kernel)
        parts = _cut(product, -1, [call.results[0] for call in self._calls])
        return [
            Call("slice", (first.flat,), cut, (flat,)),
            Call("reshape", (flat,), {"shape": whole.shape}, (whole,)),
            made,
            *parts,
        ]

    def _backward(
        self, forward: Call, pulled: Sequence[Call], sums: Sequence[Call]
    ) -> tuple[list[Call], dict[Value, Value]]:
        x, whole = forward.args[:2]
        product = forward.results[0]
        assert product is not None
        g, g_x = Value(product.shape, product.dtype), Value(x.shape, x.dtype)
        g_whole = Value(whole.shape, whole.dtype)
        beside = {"axis": len(product.shape) - 1}
        pullback = Call(
            "linear",
            (g, product, *forward.args),
            forward.params,
            (g_x, g_whole, None, None),
            forward.kernel,
            forward,
        )
        parts = _cut(g_whole, 0, [call.results[1] for call in pulled])
        total = sums[-1].results[0]
        assert total is not None
        joined = Call("concat", tuple(call.args[0] for call in pulled), beside, (g,))
        return [joined, pullback, *parts], {total: g_x}

    def _replace(
        self, instead_of: dict[Call, list[Call]], gone: set[Call], values: dict[Value, Value]
    ) -> None:
        calls: list[Call] = []
        for call in self._program.calls:
            calls += instead_of.get(call, ())
            if call not in gone:
                call.args = tuple(
                    values.get(x, x) if isinstance(x, Value) else x for x in call.args
                )
                calls.append(call)
        self._program.calls[:] = calls
        self._program.outputs = [values.get(x, x) for x in self._program.outputs]


def _cut(whole: Value, axis: int, parts: Sequence[Value | None]) -> list[Call]:
    """Calls that cut the parts, which lie side by side along an axis, out of the whole."""
    at, start = axis % len(whole.shape), 0
    calls: list[Call] = []
    for part in parts:
        assert part is not None
        stop = start + part.shape[at]
        starts = tuple(start if i == at else 0 for i in range(len(whole.shape)))
        stops = tuple(stop if i == at else n for i, n in enumerate(whole.shape))
        cut = {"starts": starts, "stops": stops, "steps": (1,) * len(whole.shape)}
        calls.append(Call("slice", (whole,), cut, (part,)))
        start = stop
    return calls


def _chain_of_sums(parts: Sequence[Value | None], program: Program) -> list[Call] | None:
    """The calls that add up these values and nothing else, the last of which gives their sum; None
    where one of them is used otherwise."""
    open_ends = {part for part in parts if part is not None}
    if len(open_ends) < len(parts) or not open_ends.isdisjoint(program.outputs):
        return None
    sums: list[Call] = []
    for call in program.calls:
        mine = [x for x in call.reads() if x in open_ends]
        if mine:
            if call.name != "add" or call.kernel is not None or len(set(mine)) < 2:
                return sums if len(open_ends) == 1 and len(sums) == len(parts) - 1 else None
            open_ends.difference_update(mine)
            open_ends.update(call.gives())
            sums.append(call)
    return sums if len(sums) == len(parts) - 1 else None
