"""Gradients of functions: `value_and_grad`, by the tape or by the backend's own autograd.

Two ways, one contract: the value, and for every parameter a gradient of its shape and dtype, zero
where the value does not depend on it. Calls may be nested; the inner one then records its walk, so
gradients of gradients come out right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from tfx.core import tree
from tfx.core.backend import Array, Backend
from tfx.core.checks import has_gradients
from tfx.core.creation import full
from tfx.core.errors import BackendMismatch, GradientError, OnlyOnTape
from tfx.core.fused import composed
from tfx.core.tape import Alias, Leaf, Node, nodes_behind, oldest, reach_beyond, recording
from tfx.core.tensor import Tensor, gradients

Autograd = Literal["auto", "core", "native"]


def value_and_grad(
    fn: Callable[..., Tensor], *, autograd: Autograd = "auto"
) -> Callable[..., tuple[Tensor, Any]]:
    """A function that returns `fn(params, *args)` and its gradient by `params`.

    Args:
        fn: takes a nest of float tensors first (a tensor, or dicts, lists and tuples of them) and
            returns one number as a tensor.
        autograd: "core" walks the tape; "native" uses the backend's own autograd; "auto" is native
            where the backend has it and the call is not nested.

    Returns:
        A function of the same arguments. Its gradients stand in a nest like `params`.

    Raises:
        GradientError: `fn` did not return one float; the backend has no autograd of its own; or
            native autograd lost a gradient that the tape finds.

    >>> from tfx.backends.numpy.backend import NumpyBackend
    >>> from tfx.core.creation import tensor
    >>> x = tensor([1.0, 2.0], NumpyBackend())
    >>> value, slope = value_and_grad(lambda x: (x * x).sum())(x)
    >>> value.item(), slope.tolist()
    (5.0, [2.0, 4.0])
    """
    if autograd not in ("auto", "core", "native"):
        raise GradientError(f"autograd is 'auto', 'core' or 'native', not {autograd!r}")

    def wrapped(params: Any, *args: Any) -> tuple[Tensor, Any]:
        leaves = tree.leaves(params)
        backend = _backend_of(leaves)
        nested = recording.depth or _is_differentiated(leaves)
        native = autograd == "native" or (
            autograd == "auto" and backend.native_autograd and not nested
        )
        try:
            differentiate = _native if native else _core
            value, grads = differentiate(fn, params, leaves, args, backend)
        except OnlyOnTape:
            if autograd == "native":
                raise
            value, grads = _core(fn, params, leaves, args, backend)
        filled = (
            full(x.shape, 0.0, backend, x.dtype) if g is None else g
            for x, g in zip(leaves, grads, strict=True)
        )
        return value, tree.like(params, filled)

    return wrapped


def grad(fn: Callable[..., Tensor], *, autograd: Autograd = "auto") -> Callable[..., Any]:
    """A function that returns the gradient of `fn` by its first argument; see `value_and_grad`."""
    both = value_and_grad(fn, autograd=autograd)
    return lambda params, *args: both(params, *args)[1]


def _core(
    fn: Callable[..., Tensor],
    params: Any,
    leaves: Sequence[Tensor],
    args: Sequence[Any],
    backend: Backend,
) -> tuple[Tensor, list[Tensor | None]]:
    nested = _is_differentiated(leaves)
    fresh = [Tensor(x.data, backend, _own_node(x)) for x in leaves]
    with _open_call(native=False):
        value = _checked(fn(tree.like(params, iter(fresh)), *args))
    if value.node is None:
        return value, [None] * len(leaves)
    targets = [x.node for x in fresh if x.node]
    order = nodes_behind(value.node, oldest(targets))
    if not recording.paused and reach_beyond(order):
        nested = True  # the function closes over a recorded tensor, which wants its share
    grads = gradients(value, targets, create_graph=nested, order=order)
    return (value if nested else Tensor(value.data, backend)), grads


def _is_differentiated(leaves: Sequence[Tensor]) -> bool:
    """Whether a tape is open around this call, or its parameters already stand on one."""
    around = recording.depth > recording.native or any(x.node is not None for x in leaves)
    return around and not recording.paused


def _own_node(x: Tensor) -> Node:
    """A node that stands for `x` in this call alone, tied to its past in an outer one."""
    return Leaf() if x.node is None else Alias(x)


def _native(
    fn: Callable[..., Tensor],
    params: Any,
    leaves: Sequence[Tensor],
    args: Sequence[Any],
    backend: Backend,
) -> tuple[Tensor, list[Tensor | None]]:
    if not backend.native_autograd:
        raise GradientError(f"backend {backend} has no autograd of its own; use autograd='core'")
    if recording.depth or _is_differentiated(leaves):
        raise GradientError("native autograd cannot be differentiated again; use autograd='core'")

    def raw(*arrays: Array) -> Array:
        with _open_call(native=True):
            inside = tree.like(params, (Tensor(a, backend) for a in arrays))
            value = _checked(fn(inside, *args))
            if value.node is not None:
                raise OnlyOnTape(
                    "native autograd cannot follow the recorded tensor that the function closes "
                    "over; detach() it, or use autograd='core'"
                )
            return value.data

    value, found = backend.value_and_grad(raw, [x.data for x in leaves])
    grads = [g if g is None else Tensor(g, backend) for g in found]
    if any(g is None for g in grads):
        _refuse_lost_gradients(fn, params, leaves, args, backend, grads)
    return Tensor(value, backend), grads


def _refuse_lost_gradients(
    fn: Callable[..., Tensor],
    params: Any,
    leaves: Sequence[Tensor],
    args: Sequence[Any],
    backend: Backend,
    grads: Sequence[Tensor | None],
) -> None:
    """Ask the tape about parameters without a gradient: unused is fine, lost is an error."""
    with composed():
        _, expected = _core(fn, params, leaves, args, backend)
    for i, (native, tape) in enumerate(zip(grads, expected, strict=True)):
        if native is None and tape is not None:
            raise GradientError(
                f"native autograd of {backend} lost the gradient of parameter {i} "
                f"{leaves[i].shape}, which the tape finds; use autograd='core'"
            )


@contextmanager
def _open_call(native: bool) -> Iterator[None]:
    recording.depth += 1
    recording.native += native
    paused, recording.paused = recording.paused, False
    try:
        yield
    finally:
        recording.depth -= 1
        recording.native -= native
        recording.paused = paused


def _checked(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.size != 1 or not value.dtype.is_float:
        given = f"{value.dtype}{value.shape}" if isinstance(value, Tensor) else type(value).__name__
        raise GradientError(f"the function must return one float as a tensor, not {given}")
    return value


def _backend_of(leaves: Sequence[Tensor]) -> Backend:
    if not leaves:
        raise GradientError("there are no parameters to differentiate by")
    backend = leaves[0].backend
    for x in leaves:
        if x.backend is not backend:
            raise BackendMismatch(
                f"parameters on {backend} and {x.backend}; x.to(backend) moves one"
            )
        if not has_gradients(x):
            raise GradientError(f"a parameter is {x.dtype}; only floats have gradients: cast it")
    return backend
