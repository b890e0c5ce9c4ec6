"""The tape: what happened to a value, and the walk back along it.

A tensor that takes part in a derivative points to a `Node`: the operation that made it and the
tensors it was made from. Nodes are numbered as they are made, so walking back in falling order
meets every node after all its uses, without recursion and without sorting a graph.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from tfx.core.vjps import vjp_of

_serial = itertools.count()


def now() -> int:
    """A serial number between those of the nodes made so far and of those to come."""
    return next(_serial)


class _Recording(threading.local):
    """How this thread records: whether at all, and how many `value_and_grad` are open."""

    paused = False
    depth = 0  # of value_and_grad, on the tape or native
    native = 0  # of those, the native ones


recording = _Recording()


def no_grad() -> AbstractContextManager[None]:
    """What is computed inside is a constant to every derivative."""
    return _paused(True)


def recorded() -> AbstractContextManager[None]:
    """What is computed inside is recorded, also inside `no_grad`."""
    return _paused(False)


@contextmanager
def _paused(paused: bool) -> Iterator[None]:
    before, recording.paused = recording.paused, paused
    try:
        yield
    finally:
        recording.paused = before


class Node:
    """One recorded operation: `out = op(*inputs, **params)`.

    Attributes:
        op: the primitive's name.
        inputs: what it was applied to: tensors and, for weak operands, Python numbers.
        raw: the same as raw arrays.
        parents: the nodes among the inputs, each with its position.
        params: the keywords.
        out: the raw result.
        serial: counts nodes in the order they were made.
    """

    __slots__ = ("inputs", "op", "out", "params", "parents", "raw", "serial")

    def __init__(
        self,
        op: str,
        inputs: Sequence[Any] = (),
        raw: Sequence[Any] = (),
        parents: Sequence[tuple[int, Node]] = (),
        params: Mapping[str, Any] = MappingProxyType({}),
        out: Any = None,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.raw = raw
        self.parents = parents
        self.params = params
        self.out = out
        self.serial = next(_serial)

    def pull(self, B: Any, g: Any, out: Any, args: Sequence[Any]) -> list[Any]:
        """The gradient by the argument behind each parent; None for one that is zero."""
        found = []
        for i, _ in self.parents:
            vjp = vjp_of(self.op, i)
            found.append(None if vjp is None else vjp(B, g, out, *args, **self.params))
        return found


class Leaf(Node):
    """A tensor that a derivative is taken by. `grad` is what `backward` left there."""

    __slots__ = ("grad",)

    def __init__(self) -> None:
        super().__init__("leaf")
        self.grad: Any = None


class Alias(Node):
    """A second name for a recorded tensor, so that one call can tell its own uses of it apart."""

    __slots__ = ()

    def __init__(self, x: Any) -> None:
        super().__init__("alias", (x,), (x.data,), ((0, x.node),), out=x.data)

    def pull(self, B: Any, g: Any, out: Any, args: Sequence[Any]) -> list[Any]:
        return [g]


def nodes_behind(node: Node, since: int = 0) -> list[Node]:
    """What `node` was made from, itself included, none older than `since`; oldest first."""
    seen = {node}
    todo = [node]
    while todo:
        for _, parent in todo.pop().parents:
            if parent not in seen and parent.serial >= since:
                seen.add(parent)
                todo.append(parent)
    return sorted(seen, key=_by_serial)


_by_serial = attrgetter("serial")


def oldest(targets: Sequence[Node]) -> int:
    """The serial number of the oldest target: nothing before it depends on one."""
    return min((t.serial for t in targets), default=0)


def reach_beyond(order: Sequence[Node]) -> bool:
    """Whether one of the nodes (oldest first) was made from one older than all of them."""
    first = order[0].serial
    for node in order:
        for _, parent in node.parents:
            if parent.serial < first:
                return True
    return False


def walk_back(
    order: Sequence[Node],
    seed: Any,
    targets: Sequence[Node],
    B: Any,
    values: Callable[[Node], tuple[Sequence[Any], Any]],
) -> list[Any]:
    """The gradient of the latest node, weighted by `seed`, by each target; None where none.

    `order` are the nodes behind it, from the oldest on, back to the oldest target. `B` has the
    primitives, and `values` gives a node's arguments and result as what `B` works on: raw arrays
    for speed, tensors to differentiate the walk itself.
    """
    asked = set(targets)
    gradient = {order[-1]: seed}
    for node in reversed(order):
        g = gradient.get(node)
        if g is None:
            continue
        if node not in asked:
            del gradient[node]  # all uses of the value are behind us
        if node.parents:
            args, out = values(node)
            parts = node.pull(B, g, out, args)
            for (i, parent), part in zip(node.parents, parts, strict=True):
                if part is not None:
                    shape = B.shape(args[i])
                    if B.shape(part) != shape:
                        part = _sum_to(B, part, shape)
                    before = gradient.get(parent)
                    gradient[parent] = part if before is None else B.add(before, part)
    return [gradient.get(target) for target in targets]


def _sum_to(B: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """Undo broadcasting: sum `g` over the axes along which an argument of `shape` was repeated."""
    have = B.shape(g)
    extra = len(have) - len(shape)
    stretched = (i + extra for i, n in enumerate(shape) if n == 1 and have[i + extra] != 1)
    return B.reshape(B.sum(g, axis=(*range(extra), *stretched), keepdims=False), shape=shape)
