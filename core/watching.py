"""Looking on while a model computes: `with watched(callback)` is told of every fused op.

A fused op is what a kernel may stand in for, and so the grain at which two backends can be held
against each other: whatever happens inside of one, their results should agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

Callback = Callable[[str, Sequence[Any], Any], None]
"""Gets the name of a fused op, its arguments in the order of the call, and its result: a tensor or,
of some ops, a tuple of tensors."""


watchers: dict[int, Callback] = {}
"""Who is told, by thread. A dict, since asking whether it is empty is nearly free, and reading a
`threading.local` at each call of a fused op is not."""


@contextmanager
def watched(callback: Callback) -> Iterator[None]:
    """Inside, on this thread, `callback` is told of each fused op when its result is there.

    Told are the calls of the code inside, not those that a composed definition makes in turn. What
    the callback itself computes, and a call that raises, is not told.

    >>> from tfx.backends.numpy.backend import NumpyBackend
    >>> from tfx.core import nn
    >>> from tfx.core.creation import tensor
    >>> x = tensor([[1.0, 2.0]], NumpyBackend())
    >>> with watched(lambda op, args, result: print(op, len(args), result.shape)):
    ...     y = nn.softmax(nn.rms_norm(x, eps=1e-6))
    rms_norm 2 (1, 2)
    softmax 1 (1, 2)
    """
    thread = get_ident()
    before = watchers.get(thread)
    watchers[thread] = callback
    try:
        yield
    finally:
        if before is None:
            del watchers[thread]
        else:
            watchers[thread] = before


def told(op: str, call: Callable[..., Any], args: Sequence[Any], params: Mapping[str, Any]) -> Any:
    """The result of a fused op on a thread that is watched, whose callback is told of it."""
    thread = get_ident()
    callback = watchers.pop(thread)
    try:
        result = call(*args, **params)
        callback(op, (*args, *params.values()), result)
    finally:
        watchers[thread] = callback
    return result
