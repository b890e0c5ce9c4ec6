"""Activation checkpointing: computing a part of the forward pass twice, to keep less of it.

What an operation saves for its gradient stays in memory until the walk back comes to it. A
checkpointed function saves its arguments alone, and is run again when its gradient is asked for
(Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174). With every
block of a model checkpointed, a step holds the results of all blocks and the inside of one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from tfx.core.backend import Array, Backend
from tfx.core.errors import GradientError, OnlyOnTape
from tfx.core.tape import Node, nodes_behind, now, recording, walk_back
from tfx.core.tensor import RecordingOps, Tensor, gradients

_OTHERWISE = "a checkpointed function {} when it was run again: it must do the same every time"

P = ParamSpec("P")
T = TypeVar("T")


def checkpointed(fn: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """The same function, which gives the same value and gradients for less memory and more time.

    Gradients reach everything that it uses, also what it closes over, on the tape and under the
    library's own autograd, and may be differentiated again. Calls may be nested.

    Args:
        fn: takes at least one tensor by position or keyword, and returns one. Run twice, it has to
            give the same: it changes nothing, writes to no cache, and what it counts or draws goes
            through `once`, as dropout does.

    Raises:
        GradientError: while a gradient is recorded, `fn` takes or returns something else, or does
            otherwise the second time. Under the library's own autograd, where it has no
            checkpointing.

    >>> from tfx.backends.numpy.backend import NumpyBackend
    >>> from tfx.core.autograd import grad
    >>> from tfx.core.creation import tensor
    >>> cube = checkpointed(lambda x: x * x * x)
    >>> grad(lambda x: cube(x).sum())(tensor([1.0, 2.0], NumpyBackend())).tolist()
    [3.0, 12.0]
    """

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if recording.paused:
            return fn(*args, **kwargs)
        backend = _backend_among((*args, *kwargs.values()))
        run = _Run(lambda: fn(*args, **kwargs))
        if recording.native and recording.native == recording.depth:
            return _natively(run, backend)
        return _on_tape(run, backend)

    return call


def _backend_among(args: Sequence[Any]) -> Backend:
    for x in args:
        if isinstance(x, Tensor):
            return x.backend
    raise GradientError("a checkpointed function takes at least one tensor as an argument")


# ---- what is the same in both runs ---------------------------------------------------------------


class _Drawing(threading.local):
    """The run that is under way in this thread."""

    run: _Run | None = None


_drawing = _Drawing()


def once(draw: Callable[[], T]) -> T:
    """`draw()`; when a checkpointed function is run again, what it was there the first time."""
    run = _drawing.run
    return draw() if run is None else run.once(draw)


class _Run:
    """A function without arguments, run as often as is asked for, every time as at first."""

    def __init__(self, fn: Callable[[], Tensor]) -> None:
        self._fn = fn
        self._around = _drawing.run
        self._drawn: list[Any] = []
        self._next = 0
        self._ran = False
        self._depth, self._native = recording.depth, recording.native

    def __call__(self) -> Tensor:
        self._next = 0
        with self._as_at_first():
            value = self._fn()
        self._ran = True
        if not isinstance(value, Tensor):
            raise GradientError(
                f"a checkpointed function must return one tensor, not {type(value).__name__}"
            )
        return value

    def once(self, draw: Callable[[], T]) -> T:
        if not self._ran:
            self._drawn.append(draw() if self._around is None else self._around.once(draw))
        elif self._next == len(self._drawn):
            raise GradientError(_OTHERWISE.format("drew more"))
        self._next += 1
        value: T = self._drawn[self._next - 1]
        return value

    @contextmanager
    def _as_at_first(self) -> Iterator[None]:
        """Kernels and composed forms are chosen by what is recorded around them."""
        run, before = _drawing.run, (recording.depth, recording.native, recording.paused)
        _drawing.run = self
        recording.depth, recording.native, recording.paused = self._depth, self._native, False
        try:
            yield
        finally:
            _drawing.run = run
            recording.depth, recording.native, recording.paused = before


# ---- on the tape ---------------------------------------------------------------------------------


def _on_tape(run: _Run, backend: Backend) -> Tensor:
    """The value, with one node in place of all that was recorded.

    Recording the first run too costs no memory that the second will not: at no time is there more
    than one such tape. And it says which tensors from outside the function used.
    """
    began = now()
    value = run()
    if value.node is None or value.node.serial < began:  # a constant, or something from outside
        return value
    used = _from_outside(nodes_behind(value.node, began), began)
    return Tensor(value.data, backend, _CheckpointNode(run, used, value.data)) if used else value


def _from_outside(order: Sequence[Node], began: int) -> dict[Node, tuple[Any, Any]]:
    """What is older than `began` among the arguments of nodes that are not: as tensors, and raw."""
    return {
        parent: (node.inputs[i], node.raw[i])
        for node in order
        for i, parent in node.parents
        if parent.serial < began
    }


class _CheckpointNode(Node):
    """All that happened in a checkpointed function, to be found out again."""

    __slots__ = ("run",)

    def __init__(self, run: _Run, used: dict[Node, tuple[Any, Any]], out: Array) -> None:
        inputs, raw = zip(*used.values(), strict=True)
        super().__init__("checkpoint", inputs, raw, tuple(enumerate(used)), out=out)
        self.run = run

    def pull(self, B: Any, g: Any, out: Any, args: Sequence[Any]) -> list[Any]:
        targets = [parent for _, parent in self.parents]
        began = now()
        value = self.run()
        order = [] if value.node is None else nodes_behind(value.node, began)
        if _from_outside(order, began).keys() != set(targets):
            raise GradientError(_OTHERWISE.format("used other tensors"))
        if isinstance(B, RecordingOps):
            return gradients(value, targets, seed=g, create_graph=True, order=order)
        return walk_back(order, g, targets, B, lambda node: (node.raw, node.out))


# ---- under the library's own autograd ------------------------------------------------------------


def _natively(run: _Run, backend: Backend) -> Tensor:
    def raw() -> Array:
        value = run()
        if value.node is not None:
            raise OnlyOnTape(
                "native autograd cannot follow the recorded tensor that a checkpointed function "
                "uses; detach() it, or use autograd='core'"
            )
        return value.data

    return Tensor(backend.checkpoint(raw), backend)
