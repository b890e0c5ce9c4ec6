"""The tape: what happened to a value, and the walk back along it.

A tensor that takes part in a derivative points to a `Node`: the operation that made it and the
tensors it was made from. Nodes are numbered as they are made, so walking back in falling order
meets every node after all its uses, without recursion and without sorting a graph.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Protocol

from tfx.core.vjps import vjp_of

_serial = itertools.count()


class _Recording(threading.local):
    """How this thread records: whether at all, and how many `value_and_grad` are open."""

    paused = False
    depth = 0  # of value_and_grad, on the tape or native
    native = 0  # of those, the native ones


recording = _Recording()


@contextmanager
def no_grad() -> Iterator[None]:
    """What is computed inside is a constant to every derivative."""
    before, recording.paused = recording.paused, True
    try:
        yield
    finally:
        recording.paused = before


class Pullback(Protocol):
    """How a node hands its gradient on."""

    def __call__(
        self, node: Node, B: Any, g: Any, out: Any, args: Sequence[Any], wanted: Sequence[int]
    ) -> Sequence[Any]:
        """The gradients by the arguments at the positions `wanted`; None for one that is zero."""


class Node:
    """One recorded operation: `out = op(*inputs, **params)`, or a leaf without inputs.

    `inputs` holds tensors and, for weak operands, Python numbers; `parents` the nodes among them
    with their positions; `out` the raw result.
    """

    __slots__ = ("grad", "inputs", "op", "out", "params", "parents", "pullback", "serial")

    def __init__(
        self,
        op: str,
        inputs: Sequence[Any] = (),
        parents: Sequence[tuple[int, Node]] = (),
        params: Mapping[str, Any] = MappingProxyType({}),
        out: Any = None,
        pullback: Pullback | None = None,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.parents = parents
        self.params = params
        self.out = out
        self.pullback = pullback or _pull_primitive
        self.grad: Any = None  # of a leaf, after `backward`
        self.serial = next(_serial)

    @property
    def is_leaf(self) -> bool:
        return not self.parents


def _pull_primitive(
    node: Node, B: Any, g: Any, out: Any, args: Sequence[Any], wanted: Sequence[int]
) -> list[Any]:
    rules = (vjp_of(node.op, i) for i in wanted)
    return [vjp and vjp(B, g, out, *args, **node.params) for vjp in rules]


def pass_through(
    node: Node, B: Any, g: Any, out: Any, args: Sequence[Any], wanted: Sequence[int]
) -> list[Any]:
    """The pullback of a second name for the same value."""
    return [g]


def nodes_behind(node: Node, since: int = 0) -> list[Node]:
    """All nodes that `node` was made from, itself included, none older than `since`; oldest first."""
    seen = {node}
    todo = [node]
    while todo:
        for _, parent in todo.pop().parents:
            if parent.serial >= since and parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return sorted(seen, key=_by_serial)


_by_serial = attrgetter("serial")


def walk_back(
    root: Node,
    seed: Any,
    targets: Sequence[Node],
    B: Any,
    lift: Callable[[Any], Any],
    lift_out: Callable[[Node], Any],
) -> list[Any]:
    """The gradient of `root`, weighted by `seed`, by each target; None where it does not depend on it.

    `B` has the primitives, and `lift` and `lift_out` turn an input and a node's result into what
    `B` works on: raw arrays for speed, tensors to differentiate the walk itself.
    """
    order = nodes_behind(root, since=min((t.serial for t in targets), default=0))
    asked = set(targets)
    useful = set(targets)  # nodes from which a target can be reached
    for node in order:
        if any(parent in useful for _, parent in node.parents):
            useful.add(node)
    gradient = {root: seed}
    for node in reversed(order):
        if node not in useful or node not in gradient:
            continue
        g = gradient[node] if node in asked else gradient.pop(node)
        reached = [(i, parent) for i, parent in node.parents if parent in useful]
        if not reached:
            continue
        args = [lift(x) for x in node.inputs]
        parts = node.pullback(node, B, g, lift_out(node), args, [i for i, _ in reached])
        for (i, parent), part in zip(reached, parts, strict=True):
            if part is not None:
                part = _sum_to(B, part, B.shape(args[i]))
                before = gradient.get(parent)
                gradient[parent] = part if before is None else B.add(before, part)
    return [gradient.get(target) for target in targets]


def _sum_to(B: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """Undo broadcasting: sum `g` over the axes along which an argument of `shape` was repeated."""
    have = B.shape(g)
    if have == shape:
        return g
    extra = len(have) - len(shape)
    stretched = (i + extra for i, n in enumerate(shape) if n == 1 and have[i + extra] != 1)
    return B.reshape(B.sum(g, axis=(*range(extra), *stretched), keepdims=False), shape=shape)
