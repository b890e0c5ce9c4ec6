"""How a composed operation can be overridden by a kernel without risking its gradient.

A function decorated with `fused` is the definition of an operation, written over primitives, so
every backend has it at once. A backend, or a plugin for somebody else's backend, may put a `Fused`
record under its name into `backend.fused`. The record runs only where it is certain to keep the
gradient; everywhere else, the composed form does.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tfx.core.backend import Backend
from tfx.core.tape import Alias, Node, recording
from tfx.core.tensor import RecordingOps, Tensor, gradients

F = TypeVar("F", bound=Callable[..., Any])

FUSED: dict[str, Callable[..., Any]] = {}
"""The composed form of every fused op, by name."""


@dataclass(frozen=True)
class Fused:
    """A kernel for one fused op of one backend.

    All functions get the backend first, raw arrays in the order of the composed form (None and
    Python numbers as they were given), and every keyword with its default filled in.

    Attributes:
        name: the fused op it overrides.
        forward: `(B, *raw, **params) -> (out, saved)`; `out` is a raw array, or a tuple where the
            composed form returns one; `saved` is whatever `vjp` wants to see again.
        vjp: `(B, g, out, saved, *raw, **params) -> gradients`, one for each raw argument, None where
            there is none. Without it, the composed form runs while a gradient is recorded.
        supports: `(B, *raw, **params) -> bool`: whether the kernel handles this call. What it
            declines, wrong input included, goes to the composed form.
        native: `forward` is made of functions the library itself can differentiate. Without it,
            the composed form runs under native autograd; a backend wraps a kernel that has a `vjp`
            as a custom function of its library inside `forward`, and says native.
    """

    name: str
    forward: Callable[..., tuple[Any, Any]]
    vjp: Callable[..., Sequence[Any]] | None = None
    supports: Callable[..., bool] | None = None
    native: bool = False


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


def fused(definition: F) -> F:
    """Make a composed function overridable: tensors by position, everything else by keyword."""
    name = definition.__name__
    parameters = inspect.signature(definition).parameters.values()
    positional = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    FUSED[name] = definition

    @functools.wraps(definition)
    def call(*args: Any, **params: Any) -> Any:
        backend = next(x.backend for x in args if isinstance(x, Tensor))
        override = backend.fused.get(name)
        if override is not None and not _switch.off:
            filled = args + (None,) * (positional - len(args))
            kernel = _Kernel(override, definition, backend, defaults | params)
            if kernel.accepts(filled):
                return kernel(filled)
        return definition(*args, **params)

    return call  # type: ignore[return-value]


class _Kernel:
    """One call of an override: first whether it may run, then its run."""

    def __init__(
        self, override: Fused, definition: Callable[..., Any], backend: Backend, params: Any
    ) -> None:
        self.override = override
        self.definition = definition
        self.backend = backend
        self.params = params

    def accepts(self, args: Sequence[Any]) -> bool:
        """True where the kernel handles the call and keeps whatever gradient is being recorded."""
        by = self._recorder(args)
        if by is not None and recording.depth > 1:
            return False  # a gradient that is itself differentiated: the composed form
        if by == "tape" and self.override.vjp is None:
            return False
        if by == "native" and not self.override.native:
            return False
        supports = self.override.supports
        return supports is None or supports(self.backend, *map(_raw, args), **self.params)

    def __call__(self, args: Sequence[Any]) -> Any:
        raw = [_raw(x) for x in args]
        out, saved = self.override.forward(self.backend, *raw, **self.params)
        if recording.paused and recording.native:
            return _wrap(out, self.backend, self.backend.stop_gradient)
        parents = [(i, x.node) for i, x in enumerate(args) if isinstance(x, Tensor) and x.node]
        if recording.paused or not parents:
            return _wrap(out, self.backend)
        return Tensor(out, self.backend, KernelNode(self, args, raw, parents, out, saved))

    def _recorder(self, args: Sequence[Any]) -> str | None:
        """Who is recording what happens to the arguments: the tape, the library, or nobody."""
        tensors = [x for x in args if isinstance(x, Tensor)]
        if recording.paused:
            return None
        if any(x.node is not None for x in tensors):
            return "tape"
        if recording.native and any(self.backend.recording_natively(x.data) for x in tensors):
            return "native"
        return None


class KernelNode(Node):
    """A kernel's run on the tape."""

    __slots__ = ("kernel", "saved")

    def __init__(
        self,
        kernel: _Kernel,
        args: Sequence[Any],
        raw: Sequence[Any],
        parents: Sequence[tuple[int, Node]],
        out: Any,
        saved: Any,
    ) -> None:
        super().__init__(kernel.override.name, args, raw, parents, kernel.params, out)
        self.kernel = kernel
        self.saved = saved

    def pull(self, B: Any, g: Any, out: Any, args: Sequence[Any]) -> list[Any]:
        if isinstance(B, RecordingOps):  # to be differentiated again: walk the composed form
            return self._pull_composed(args, g)
        vjp = self.kernel.override.vjp
        assert vjp is not None
        found = vjp(B, g, out, self.saved, *args, **self.params)
        return [found[i] for i, _ in self.parents]

    def _pull_composed(self, args: Sequence[Any], g: Tensor) -> list[Any]:
        inside = list(args)
        targets: list[Node] = []
        for i, _ in self.parents:
            targets.append(Alias(args[i]))
            inside[i] = Tensor(args[i].data, g.backend, targets[-1])
        value = self.kernel.definition(*inside, **self.params)
        return gradients(value, targets, seed=g, create_graph=True)


def _wrap(out: Any, backend: Backend, change: Callable[[Any], Any] = lambda x: x) -> Any:
    if isinstance(out, tuple):
        return tuple(Tensor(change(x), backend) for x in out)
    return Tensor(change(out), backend)


def _raw(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x
