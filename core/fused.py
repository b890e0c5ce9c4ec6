"""How a composed operation can be overridden by a kernel without risking its gradient.

A function decorated with `fused` is the definition of an operation, written over primitives, so
every backend has it at once. A backend, or a plugin for somebody else's backend, may put a `Fused`
record under its name into `backend.fused`. The record runs only where it is certain to keep the
gradient; everywhere else, the composed form does.
"""

from __future__ import annotations

import functools
import inspect
import operator
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from tfx.core.backend import Backend, Fused
from tfx.core.stored import Stored
from tfx.core.tape import Alias, Node, recorded, recording
from tfx.core.tensor import RecordingOps, Tensor, gradients
from tfx.core.watching import told, watchers

F = TypeVar("F", bound=Callable[..., Any])

FUSED: dict[str, Callable[..., Any]] = {}
"""The composed form of every fused op, by name."""


class _Switch(threading.local):
    off = os.environ.get("TFX_FUSED") == "0"


_switch = _Switch()


@contextmanager
def composed() -> Iterator[None]:
    """Inside, every fused op runs in its composed form, on this thread."""
    before, _switch.off = _switch.off, True
    try:
        yield
    finally:
        _switch.off = before


def runs_composed() -> bool:
    """Whether fused ops run in their composed form, on this thread."""
    return _switch.off


def is_overridden(name: str, backend: Backend) -> bool:
    """Whether a backend has something of its own for a fused op, and it may run on this thread."""
    return name in backend.fused and not _switch.off


def fused(definition: F) -> F:
    """Make a composed function overridable: tensors by position, everything else by keyword."""
    name = definition.__name__
    signature = inspect.signature(definition)
    parameters = signature.parameters.values()
    required = sum(p.default is p.empty for p in parameters)
    positional = tuple(p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    FUSED[name] = definition

    @functools.wraps(definition)
    def call(*args: Any, **params: Any) -> Any:
        if watchers and threading.get_ident() in watchers:
            return told(name, call, args, params)
        options = defaults | params if params else defaults
        if len(args) < required or len(options) != len(defaults):
            bound = signature.bind(*args, **params)
            bound.apply_defaults()
            args, options = bound.args, bound.kwargs
        raw = []
        parents = []
        backend: Any = None
        for i, x in enumerate(args):
            if not isinstance(x, Tensor):
                raw.append(x)
                continue
            if type(x) is not Tensor and isinstance(x, Stored):
                return x.called(call, name, i, args, options)
            if x.backend is not backend:
                if backend is not None:  # two, which the composed form refuses
                    return definition(*args, **options)
                backend = x.backend
            if x.node is not None:
                parents.append((i, x.node))
            raw.append(x.data)
        if backend is None:
            raise TypeError(f"{name} takes tensors, not {type(args[0]).__name__}")
        override = backend.fused.get(name)
        if override is None or _switch.off:
            return definition(*args, **options)
        missing = positional[len(args) :]
        if missing:
            args += missing
            raw += missing
        native = recording.native
        paused = False
        if native or parents:
            paused = recording.paused
            if paused:
                parents.clear()
            elif not _keeps_gradient(override, backend, args, parents):
                return definition(*args, **options)
        try:
            if override.supports and not override.supports(backend, *raw, **options):
                return definition(*args, **options)
            out, saved = override.forward(backend, *raw, **options)
        except (ValueError, TypeError, IndexError, RuntimeError):
            definition(*args, **options)  # where the input is wrong, says so in one line
            raise
        if parents and isinstance(out, tuple):  # a node has one result
            return definition(*args, **options)
        if native and not paused and _severed(backend, raw, out):
            return definition(*args, **options)
        if parents:
            node = KernelNode(override, definition, args, raw, parents, options, out, saved)
            return Tensor(out, backend, node)
        if native and paused:
            return _wrap(out, backend, backend.stop_gradient)
        return _wrap(out, backend) if type(out) is tuple else Tensor(out, backend)

    return call  # type: ignore[return-value]


def _keeps_gradient(
    override: Fused, backend: Backend, args: Sequence[Any], parents: Sequence[Any]
) -> bool:
    """Whether no gradient that is being recorded, natively or by `parents`, would end there."""
    if parents:  # a gradient that is itself differentiated takes the composed form
        return override.vjp is not None and recording.depth <= 1
    if not override.native:
        return not any(isinstance(x, Tensor) and backend.recording_natively(x.data) for x in args)
    return True


def _severed(backend: Backend, raw: Sequence[Any], out: Any) -> bool:
    """Whether the library recorded what went into a kernel, but nothing of what came out."""
    results = out if isinstance(out, tuple) else (out,)
    inputs = (x for x in raw if backend.is_array(x))
    return any(map(backend.recording_natively, inputs)) and not any(
        map(backend.recording_natively, results)
    )


class KernelNode(Node):
    """A kernel's run on the tape."""

    __slots__ = ("definition", "override", "saved")

    def __init__(
        self,
        override: Fused,
        definition: Callable[..., Any],
        args: Sequence[Any],
        raw: Sequence[Any],
        parents: Sequence[tuple[int, Node]],
        params: Mapping[str, Any],
        out: Any,
        saved: Any,
    ) -> None:
        super().__init__(override.name, args, raw, parents, params, out)
        self.override = override
        self.definition = definition
        self.saved = saved

    def pull(self, B: Any, g: Any, out: Any, args: Sequence[Any]) -> list[Any]:
        if isinstance(B, RecordingOps):  # to be differentiated again
            return self._pull_composed(g)
        assert self.override.vjp is not None
        found = self.override.vjp(B, g, out, self.saved, *args, **self.params)
        parts = [found[i] for i, _ in self.parents]
        if any(map(_is_none, parts)):  # what the kernel leaves out, nothing may lose
            tape = self._pull_composed(Tensor(g, B))
            parts = [
                x if x is not None or y is None else y.data
                for x, y in zip(parts, tape, strict=True)
            ]
        return parts

    def _pull_composed(self, g: Tensor) -> list[Tensor | None]:
        """Walk the composed form instead, on a tape of its own."""
        inside = list(self.inputs)
        targets: list[Node] = []
        for i, _ in self.parents:
            targets.append(Alias(inside[i]))
            inside[i] = Tensor(inside[i].data, g.backend, targets[-1])
        with recorded():
            value = self.definition(*inside, **self.params)
        return gradients(value, targets, seed=g, create_graph=True)


_is_none = partial(operator.is_, None)


def _wrap(out: Any, backend: Backend, change: Callable[[Any], Any] = lambda x: x) -> Any:
    if isinstance(out, tuple):
        return tuple(Tensor(change(x), backend) for x in out)
    return Tensor(change(out), backend)
