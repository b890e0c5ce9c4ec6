"""Functions that Numba compiles when they are first wanted, and keeps on disk for the next process.

A function is compiled for arguments of the types its annotations name, and for no others, so there
is one piece of machine code for each dtype, however the arrays of a caller are laid out.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import event
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

Array = npt.NDArray[Any]

Row = Array
"""Real numbers (n,), one beside the other."""

Rows = Array
"""Real numbers (rows, n): those of a row lie side by side, rows anywhere."""

Matrix = Array
"""Real numbers (rows, n), anywhere."""

Heads = Array
"""Real numbers (texts, heads, positions, n), those along the last axis side by side."""

Mask = Array
"""Booleans with the axes of `Heads`, any of them repeated."""

Factors = Array
"""Real numbers with the axes of `Heads`, any of them repeated."""

Ids = Array
"""int32 or int64 (n,), side by side."""

Bytes = Array
"""uint8 (n,), side by side."""

Words = Array
"""int16 or uint16 (rows, n): those of a row lie side by side, rows anywhere."""

Position = Array
"""One int64, (1,)."""

Flag = Array
"""One bool, (1,)."""

Real = float
Count = int

_TYPES: dict[str, Callable[[types.Type, types.Type], types.Type]] = {
    "Row": lambda real, ids: types.Array(real, 1, "C"),
    "Rows": lambda real, ids: types.Array(real, 2, "A"),
    "Matrix": lambda real, ids: types.Array(real, 2, "A"),
    "Heads": lambda real, ids: types.Array(real, 4, "A"),
    "Mask": lambda real, ids: types.Array(types.boolean, 4, "A"),
    "Factors": lambda real, ids: types.Array(real, 4, "A"),
    "Ids": lambda real, ids: types.Array(ids, 1, "C"),
    "Bytes": lambda real, ids: types.Array(types.uint8, 1, "C"),
    "Words": lambda real, ids: types.Array(ids, 2, "A"),
    "Position": lambda real, ids: types.Array(types.int64, 1, "C"),
    "Flag": lambda real, ids: types.Array(types.boolean, 1, "C"),
    "Real": lambda real, ids: real,
    "Count": lambda real, ids: types.int64,
}

_INT64 = np.dtype(np.int64)

_QUICK = {"error_model": "numpy", "fastmath": {"reassoc", "contract"}}
"""Sums may be taken in any order; NaN and infinity stay what they are."""

# Of all that `parallel` may do, the loops over `prange` alone.
_LOOPS_ALONE = dict.fromkeys(
    ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False
)

MANY = 1 << 17
"""Numbers from which on it pays to wake other threads."""


class Compiled:
    """A function with typed arguments, compiled for each dtype when that is first asked for.

    Args:
        function: its arguments are annotated with the names above; it returns nothing.
        parallel: its loops over `numba.prange` may be shared among threads.
    """

    def __init__(self, function: Callable[..., None], parallel: bool = False) -> None:
        self._function = _named_apart(function)
        self._parallel = parallel
        self._kinds = [
            str(parameter.annotation)
            for parameter in inspect.signature(function).parameters.values()
        ]
        self._ready: dict[Any, Callable[..., None]] = {}

    def of(
        self, real: np.dtype[Any], ids: np.dtype[Any] = _INT64, size: int = 0
    ) -> Callable[..., None]:
        """The compiled function for real numbers and ids of these dtypes.

        Args:
            size: how many numbers there are to work on; from `MANY` on, by several threads.
        """
        shared = self._parallel and size >= MANY and threads() > 1
        key = real, ids, shared
        found = self._ready.get(key)
        if found is None:
            found = self._ready[key] = self._compile(real, ids, shared)
        return found

    def _compile(
        self, real: np.dtype[Any], ids: np.dtype[Any], shared: bool
    ) -> Callable[..., None]:
        if shared:
            _start_threads()
        dtypes = numba.from_dtype(real), numba.from_dtype(ids)
        signature = tuple(_TYPES[kind](*dtypes) for kind in self._kinds)
        # Numba numbers the files it keeps of a function, and two processes that begin at once may
        # number its variants differently: by a name of its own, each is alone in its file.
        threads = "shared" if shared else "alone"
        variant = "_".join([self._function.__qualname__, real.name, ids.name, threads, _made_of()])
        dispatcher = numba.njit(cache=True, parallel=_LOOPS_ALONE if shared else False, **_QUICK)(
            _renamed(self._function, variant)
        )
        made = None if shared else _kept(dispatcher, signature)
        if made is None:
            with event.install_listener("numba:compile", _Notice()):
                dispatcher.compile(signature)
            made = dispatcher.overloads[signature]
        # Called directly, it takes arrays as the signature has them, read-only ones too, which
        # Numba's own look at the arguments would give a type, and code, of their own.
        entry: Callable[..., None] = made.entry_point
        _made[entry] = made
        return entry


@dataclass(frozen=True)
class Native:
    """A compiled function as native code calls it.

    Attributes:
        address: where it lies in this process.
        signature: the types of its arguments.
    """

    address: int
    signature: tuple[types.Type, ...]


_made: dict[Callable[..., None], Any] = {}


def native_of(entry: Callable[..., Any]) -> Native | None:
    """What is behind a function that `Compiled.of` gave; None for any other."""
    made = _made.get(entry)
    if made is None:
        return None
    address = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
    return Native(address, made.signature.args)


F = TypeVar("F", bound=Callable[..., None])


def compiled(function: F) -> Compiled:
    """To be compiled for one thread."""
    return Compiled(function)


def shared(function: F) -> Compiled:
    """To be compiled for one thread, and for several where arrays are large."""
    return Compiled(function, parallel=True)


G = TypeVar("G", bound=Callable[..., Any])


def helper(function: G) -> G:
    """For what compiled functions call."""
    inlined: G = numba.njit(forceinline=True, **_QUICK)(_named_apart(function))
    return inlined


def exact(function: G) -> G:
    """For those whose sums are to be taken in the order in which they are written."""
    inlined: G = numba.njit(forceinline=True, error_model="numpy")(_named_apart(function))
    return inlined


def exact_apart(function: G) -> G:
    """The same, inlined where the compiler finds it good."""
    made: G = numba.njit(error_model="numpy")(_named_apart(function))
    return made


# ---- names --------------------------------------------------------------------------------------

_defined: Counter[tuple[str, str]] = Counter()


def _named_apart(function: G) -> G:
    """The same under a name that no other function has, in any process.

    What Numba keeps on disk are symbols that it names by the function, its types, and a number that
    means nothing outside the process. A function that is defined several times over, each time
    closed over something else, would be found in the place of another.
    """
    place = function.__module__, function.__qualname__
    _defined[place] += 1
    return _renamed(function, f"{function.__qualname__}_{_defined[place]}")


def _renamed(function: G, name: str) -> G:
    assert isinstance(function, FunctionType)
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__qualname__ = name
    copy.__module__ = function.__module__
    return cast(G, copy)


def compiles_for(*features: str) -> bool:
    """Whether the processor that Numba compiles for has all of these, as LLVM calls them."""
    _, _, known = cpu_target.target_context.codegen().magic_tuple()
    return set(features) <= set(known.split(","))


# ---- threads ------------------------------------------------------------------------------------


@cache
def threads() -> int:
    """How many threads a function may use: NUMBA_NUM_THREADS, or fewer by OMP_NUM_THREADS."""
    most: int = numba.config.NUMBA_NUM_THREADS
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(most, int(asked)) if asked.isdigit() and int(asked) > 0 else most


_WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}


@cache
def _start_threads() -> None:
    """Threads that look for more to do for some microseconds, as between two loops of a decode
    step, and then sleep: those of BLAS want the processors."""
    added = {name: value for name, value in _WAITING.items() if name not in os.environ}
    if len(added) < len(_WAITING):  # the user has chosen
        added = {}
    os.environ.update(added)
    try:
        numba.set_num_threads(threads())
    finally:
        for name in added:
            del os.environ[name]


# ---- the disk -----------------------------------------------------------------------------------


class _Notice(event.Listener):
    """Tells, while something is compiled, that it is and how much was before: on a terminal in a
    line that goes again, elsewhere to the log."""

    count = 0

    def on_start(self, event: Any) -> None:
        _Notice.count += 1
        text = f"Numba compiles kernels, once for this machine: {_Notice.count}"
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            logging.getLogger("tfx").info(text)

    def on_end(self, event: Any) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _kept(dispatcher: Any, signature: tuple[types.Type, ...]) -> Any | None:
    """What an earlier process left on the disk; None where there is nothing.

    Numba would first make ready all that compiling takes, half of what it costs to start. Where
    another version of Numba does not know these functions, it does.
    """
    try:
        rtsys.initialize(dispatcher.targetctx)
        return dispatcher._cache._load_overload(signature, dispatcher.targetctx)
    except (AttributeError, TypeError, OSError):
        return None


@cache
def code_folder() -> Path:
    """Where Numba keeps what it compiles of these functions: NUMBA_CACHE_DIR, or beside the source
    files if it may write there."""

    def anything() -> None: ...

    return Path(numba.njit(cache=True)(anything)._cache.cache_path)


@cache
def _made_of() -> str:
    """When the files of this package last changed, and what compiles them for which processor."""
    files = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
    sources = [(file.st_mtime_ns, file.st_size) for file in files]
    compiler = cpu_target.target_context.codegen().magic_tuple()
    text = repr((sources, numba.__version__, compiler))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
