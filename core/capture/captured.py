"""`jit`: a function that is recorded once for each kind of arguments, and replayed from then on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tfx.core import tree
from tfx.core.backend import Array, Backend
from tfx.core.capture.copies import apart, copied
from tfx.core.capture.explaining import explained
from tfx.core.capture.nearness import Recorded, check_replay
from tfx.core.capture.recorder import NotCapturable, Recorder
from tfx.core.capture.replay import Memory, Replay, replay_of
from tfx.core.capture.simplify import without_dead_calls
from tfx.core.dtypes import DType
from tfx.core.errors import CaptureError
from tfx.core.fused import runs_composed
from tfx.core.tape import recording
from tfx.core.tensor import Tensor
from tfx.core.watching import watchers

PROGRAMS = 32
"""So many programs a captured function keeps at a time."""

PATIENCE = 8
"""When there is no room for more, arguments of a new kind come so often before they take the place
of those that were not used for longest."""

T = TypeVar("T")


_recording_lock = threading.Lock()
"""One thread records at a time; whoever comes meanwhile computes."""


class _Switch(threading.local):
    off = os.environ.get("TFX_JIT") == "0"
    recording = False


_switch = _Switch()


@contextmanager
def eager() -> Iterator[None]:
    """Inside, on this thread, captured functions run as if they were not."""
    before, _switch.off = _switch.off, True
    try:
        yield
    finally:
        _switch.off = before


def jit(fn: Callable[..., T], *, donate_argnums: int | Sequence[int] = ()) -> Captured[T]:
    """Capture a function of tensors: the first call records what it comes to, later ones replay it.

    Recorded are the calls that reach the backend, derivatives and optimizer included. A replay
    runs none of the function's own Python: it must depend on its arguments alone, and what it
    closes over counts as constant. Calls with arguments of other shapes, dtypes or numbers are
    recorded by themselves. The first replay is held against what recording computed.

    Args:
        fn: takes tensors and nests of them, which become inputs, and values that can be hashed,
            which do not; gives a nest of tensors. It may read no value on the host.
        donate_argnums: arguments that the caller gives up, as a training step its state: outputs of
            the same shapes take over their memory.

    Raises:
        CaptureError: at a call: the function reads a value on the host, or its replay is not what
            it computed.

    >>> from tfx.backends.numpy.backend import NumpyBackend
    >>> from tfx.core.creation import tensor
    >>> double = jit(lambda x: x + x)
    >>> x = tensor([1.0, 2.0], NumpyBackend())
    >>> double(x).tolist(), double(x + 1).tolist()
    ([2.0, 4.0], [4.0, 6.0])
    """
    return Captured(fn, donate_argnums)


class Captured(Generic[T]):
    """What `jit` gives: called like the function."""

    def __init__(self, fn: Callable[..., T], donate_argnums: int | Sequence[int] = ()) -> None:
        self._fn = fn
        self._name = getattr(fn, "__name__", type(fn).__name__)
        given_up = (donate_argnums,) if isinstance(donate_argnums, int) else donate_argnums
        self._donated = frozenset(given_up)
        self._kept: dict[Any, _Kept[T]] = {}
        self._seen: dict[Any, int] = {}
        self._memory = Memory()
        self._lock = threading.RLock()

    def __call__(self, *args: Any) -> T:
        if _switch.off or _switch.recording or watchers:
            return self._fn(*args)
        leaves: list[Tensor] = []
        key: list[Any] = [runs_composed()]
        key += [tree.form(x, leaves) for x in args]
        if not leaves or not _is_capturable(leaves):
            return self._fn(*args)
        for leaf in leaves:
            key += (leaf.shape, leaf.dtype)
        key.append(id(leaves[0].backend))
        with self._lock:
            try:
                kept = self._kept.get(known := tuple(key))
            except TypeError as error:
                raise CaptureError(
                    f"{self._name!r} is captured and takes tensors, nests of them, and values that "
                    f"can be hashed: {error}"
                ) from None
            if kept is None:
                return self._first(known, args, leaves)
            if len(self._kept) >= PROGRAMS:  # what was used latest stands last
                self._kept[known] = self._kept.pop(known)
            if kept.replay is None:
                return self._fn(*args)
            return kept.result(kept.replay([x.data for x in leaves]))

    @property
    def is_replayed(self) -> bool:
        """Whether everything that it was called with since it was made can be replayed."""
        return bool(self._kept) and all(kept.replay for kept in self._kept.values())

    def explain(self) -> str:
        """What was captured, in words: for each kind of arguments, the calls of a replay, on what
        shapes, and what was left out."""
        replays = [kept.replay or kept.reason for kept in self._kept.values()]
        return explained(self._name, replays)

    def _first(self, key: Any, args: Sequence[Any], leaves: Sequence[Tensor]) -> T:
        """Run what has no replay yet, and see to it that it has one the next time."""
        if not self._is_worth(key) or not _recording_lock.acquire(blocking=False):
            return self._fn(*args)
        backend = leaves[0].backend
        inputs = apart(backend, [x.data for x in leaves])  # each is a value of its own
        raw = [_renamed(x, backend) for x in inputs]
        recorder = Recorder(backend, raw)
        try:
            with recorder.listening(), _is_recording():
                out = self._fn(*_with(raw, args, backend))
        except NotCapturable as reason:
            self._kept[key] = _Kept(backend, reason=str(reason))
            found = [recorder.before.get(i, x) for i, x in enumerate(raw)]
            return self._fn(*_with(found, args, backend))
        finally:
            _recording_lock.release()
        outputs = tree.leaves(out)
        program = recorder.program([x.data for x in outputs])
        without_dead_calls(program)
        homes = self._homes(args, outputs, leaves)
        replay = replay_of(program, homes, self._memory)
        form = tree.like(out, map(_standing_for, outputs))
        recorded = [Recorded.of(backend, x.data) for x in outputs]
        del out, outputs, raw  # a replay needs the room
        found = replay(replay.restored(inputs, recorder.before))
        check_replay(self._name, backend, recorded, found)
        kept = self._kept[key] = _Kept(backend, replay, form=form)
        return kept.result(found)

    def _is_worth(self, key: Any) -> bool:
        """Whether arguments of a new kind are to be recorded; makes room where it has to."""
        if len(self._kept) < PROGRAMS:
            return True
        if len(self._seen) > 64 * PROGRAMS:
            self._seen.clear()
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] < PATIENCE:
            return False
        self._seen.clear()
        del self._kept[next(iter(self._kept))]
        return True

    def _homes(
        self, args: Sequence[Any], outputs: Sequence[Tensor], leaves: Sequence[Tensor]
    ) -> dict[int, int]:
        """Which outputs take over the memory of which inputs: of those that are given up, the first
        of the same shape and dtype that is left."""
        free: list[int] = []
        position = 0
        for i, x in enumerate(args):
            count = len(tree.leaves(x)) if tree.is_nest(x) else 0
            if i in self._donated:
                free += range(position, position + count)
            position += count
        homes = {}
        for i, out in enumerate(outputs):
            kind = out.shape, out.dtype
            match = next((j for j in free if (leaves[j].shape, leaves[j].dtype) == kind), None)
            if match is not None:
                homes[i] = match
                free.remove(match)
        return homes


@dataclass(slots=True)
class _Kept(Generic[T]):
    """What is known of one kind of arguments: how to replay it, or why it is not.

    Attributes:
        replay: None where there is none.
        reason: why.
        form: the nest that the function gave, of tensors that stand for others.
    """

    backend: Backend
    replay: Replay | None = None
    reason: str = ""
    form: T | None = None

    def result(self, raw: Sequence[Array]) -> T:
        """The outputs in the nest that the function gave."""
        backend = self.backend
        found: T = tree.like(self.form, iter([Tensor(x, backend) for x in raw]))
        return found


@contextmanager
def _is_recording() -> Iterator[None]:
    _switch.recording = True
    try:
        yield
    finally:
        _switch.recording = False


def _is_capturable(leaves: Sequence[Tensor]) -> bool:
    """Whether the tensors are of one backend, and none of them stands on a tape."""
    backend = leaves[0].backend
    return not (recording.depth and not recording.paused) and all(
        x.backend is backend and x.node is None for x in leaves
    )


def _renamed(x: Array, backend: Backend) -> Array:
    """The same array as an object of its own: what the function closes over may be one that it is
    given too, and is a constant all the same."""
    other = backend.reshape(x, shape=backend.shape(x))
    return copied(backend, x) if other is x else other


def _with(raw: Sequence[Array], args: Sequence[Any], backend: Backend) -> Iterator[Any]:
    """The arguments, with these arrays in their nests."""
    values = iter([Tensor(x, backend) for x in raw])
    return (tree.like(x, values) if tree.is_nest(x) else x for x in args)


def _standing_for(x: Tensor) -> Tensor:
    """A tensor of the same shape and dtype, of one number in memory where the library can."""
    backend = x.backend
    zero = backend.full(shape=(), value=x.dtype is not DType.bool and 0, dtype=x.dtype)
    return Tensor(backend.broadcast_to(zero, shape=x.shape), backend)
