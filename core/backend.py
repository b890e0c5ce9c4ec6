"""The interface between tfx and an array library: what a backend must write, and what it then gets.

A `Backend` instance is one array library on one device. Its primitives take and return the
library's own arrays, called *raw* arrays here. Three rules hold for every primitive, so that
calls can be checked, recorded and replayed by one mechanism:

* arrays come first and by position, everything else by keyword;
* where an array is expected, elementwise primitives also take a Python number, which is weak:
  it takes the dtype of the array beside it. At least one argument is an array;
* results are new values: no argument is changed (`write` alone may reuse its buffer), a result
  is always an array of exactly the promised shape and dtype, never a Python or NumPy scalar.

What reaches a primitive has been checked by `tfx.core.tensor`: dtypes agree, axes are
non-negative, shapes contain no -1. A backend need not check again. Shapes that do not broadcast or
multiply are left to the library, which refuses them with a ValueError, TypeError, IndexError or
RuntimeError of its own.

What a docstring calls outside the contract may give anything, or raise. Numbers below the smallest
normal one of their dtype may be taken for zero, in arguments and in results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from tfx.core import threefry
from tfx.core.dtypes import DType, as_dtype
from tfx.core.errors import MissingPrimitive, OnlyOnTape

Array = Any
"""A raw array of whatever library stands behind the backend."""

Operand = Any
"""A raw array, or a Python number that takes the dtype of the array beside it."""

HostArray = npt.NDArray[Any]

PRIMITIVES: dict[str, str] = {}
"""Every primitive by name, with the group it belongs to, in the order of this file."""

F = TypeVar("F", bound=Callable[..., Any])


def primitive(group: str) -> Callable[[F], F]:
    """Mark a method of `Backend` as a primitive of `group`."""

    def mark(method: F) -> F:
        PRIMITIVES[method.__name__] = group
        return method

    return mark


@dataclass(frozen=True)
class Fused:
    """A kernel for one fused op of one backend.

    All functions get the backend first, raw arrays in the order of the composed form (None and
    Python numbers as they were given), and every keyword with its default filled in.

    Attributes:
        name: the fused op it overrides.
        forward: `(B, *raw, **params) -> (out, saved)`; `out` is a raw array, or a tuple where the
            composed form returns one; `saved` is whatever `vjp` wants to see again.
        vjp: `(B, g, out, saved, *raw, **params) -> gradients`, one for each raw argument; where one
            is None, the composed form is asked. Without a `vjp`, and for an op of several results,
            the composed form runs while a gradient is recorded.
        supports: `(B, *raw, **params) -> bool`: whether the kernel handles this call. What it
            declines, wrong input included, goes to the composed form.
        native: `forward` is made of functions the library itself can differentiate. Without it,
            the composed form runs under native autograd; a backend wraps a kernel that has a `vjp`
            as a custom function of its library inside `forward`, and says native.
        plan, plan_vjp: the same computations as plans over fixed memory (`tfx.core.planning`), for
            captured programs; where there are none, a program calls `forward` and `vjp`.
        join: `calls -> calls`: makes fewer calls of those that a captured program has planned, its
            own and others, and fills the same arrays. Asked of every kernel in the program.
    """

    name: str
    forward: Callable[..., tuple[Any, Any]]
    vjp: Callable[..., Sequence[Any]] | None = None
    supports: Callable[..., bool] | None = None
    native: bool = False
    plan: Callable[..., Any] | None = None
    plan_vjp: Callable[..., Any] | None = None
    join: Callable[[Sequence[Any]], Sequence[Any]] | None = None


class Backend:
    """One array library on one device.

    Attributes:
        name: the name the backend was opened by, `"torch"`.
        device: the device within the library, `"cuda:0"`.
        api: the interface number the class was written for.
        dtypes: element types it computes with.
        storage_dtypes: element types it can hold, move about (shape and index primitives) and
            `cast` from and to, but not compute with.
        index_dtype: what `argmax` and `arange` give, and ids come in; int32 or int64, one of
            `dtypes`, whichever suits the library. Without int64 among `dtypes` it is never given
            one.
        device_random: False when `random_bits` draws on the host and copies.
        deterministic: False when the same input twice may give other bits.
        fused: overrides of fused ops, by name (see `tfx.core.fused`).
        native_autograd: True when `value_and_grad` is the library's own.
        plans: by the name of a primitive, how a captured program carries it out over memory that is
            settled beforehand (`tfx.core.planning`). Only for arrays that are NumPy's; where there
            are none, a program calls the primitives themselves.
    """

    name: str
    device: str = "cpu"
    api: int = 1
    dtypes: frozenset[DType] = frozenset()
    storage_dtypes: frozenset[DType] = frozenset()
    index_dtype: DType = DType.int64
    device_random: bool = False
    deterministic: bool = True
    native_autograd: bool = False

    def __init__(self) -> None:
        self.fused: dict[str, Fused] = {}
        self.plans: Mapping[str, Callable[..., Any]] = {}
        # What arithmetic is defined on: asked for at every operation, so kept as one set.
        self.arithmetic = self.dtypes - {DType.bool}

    def __str__(self) -> str:
        return self.name if self.device == "cpu" else f"{self.name}:{self.device}"

    def __repr__(self) -> str:
        return f"<tfx backend {self}>"

    def _missing(self, name: str) -> NoReturn:
        raise MissingPrimitive(
            f"backend {self.name!r} does not implement {name!r} yet; "
            f"`tfx conformance {self.name}` lists what is left"
        )

    # ---- what a raw array is -------------------------------------------------------------

    def is_array(self, x: object) -> bool:
        """Whether `x` is a raw array of this backend (library and device)."""
        self._missing("is_array")

    def shape(self, x: Array) -> tuple[int, ...]:
        """The shape of a raw array."""
        return tuple(x.shape)

    def dtype(self, x: Array) -> DType:
        """The element type of a raw array."""
        self._missing("dtype")

    # ---- arrays --------------------------------------------------------------------------

    @primitive("arrays")
    def asarray(self, value: HostArray, *, dtype: DType) -> Array:
        """A copy of a host array on the device, as `dtype`, of whatever layout and byte order.
        bfloat16 comes as uint16 words, or as numbers that are to be rounded."""
        self._missing("asarray")

    @primitive("arrays")
    def to_numpy(self, x: Array) -> HostArray:
        """A copy on the host. Waits for the device. bfloat16 comes as uint16 words."""
        self._missing("to_numpy")

    @primitive("arrays")
    def full(self, *, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        """An array filled with one number."""
        self._missing("full")

    @primitive("arrays")
    def arange(self, *, stop: int) -> Array:
        """0, 1, ... stop-1 as `index_dtype`."""
        self._missing("arange")

    @primitive("arrays")
    def cast(self, x: Array, *, dtype: DType) -> Array:
        """`x` as `dtype`: floats round to nearest even, floats to integers truncate, integers to
        integers wrap, to bool means != 0, NaN included. The only way between element types.

        float64 and integers may be rounded to float32 on the way to a half. Outside the contract:
        floats to integers where they are NaN, infinite, or no longer fit.
        """
        self._missing("cast")

    # ---- unary: floats, same shape and dtype (neg: integers too) -------------------------

    @primitive("unary")
    def neg(self, x: Array) -> Array:
        """-x."""
        self._missing("neg")

    @primitive("unary")
    def exp(self, x: Array) -> Array:
        """e**x; 0 at -inf, inf on overflow."""
        self._missing("exp")

    @primitive("unary")
    def log(self, x: Array) -> Array:
        """Natural logarithm; -inf at 0, NaN below."""
        self._missing("log")

    @primitive("unary")
    def tanh(self, x: Array) -> Array:
        """Hyperbolic tangent."""
        self._missing("tanh")

    @primitive("unary")
    def sqrt(self, x: Array) -> Array:
        """Square root; NaN below 0."""
        self._missing("sqrt")

    # ---- binary: one dtype, shapes broadcast ----------------------------------------------

    @primitive("binary")
    def add(self, x: Operand, y: Operand) -> Array:
        """x + y."""
        self._missing("add")

    @primitive("binary")
    def sub(self, x: Operand, y: Operand) -> Array:
        """x - y."""
        self._missing("sub")

    @primitive("binary")
    def mul(self, x: Operand, y: Operand) -> Array:
        """x * y."""
        self._missing("mul")

    @primitive("binary")
    def div(self, x: Operand, y: Operand) -> Array:
        """x / y for floats, as IEEE 754 has it."""
        self._missing("div")

    @primitive("binary")
    def pow(self, x: Array, *, exponent: float) -> Array:
        """x**exponent for floats and a Python number: 1 where that is 0, NaN where x < 0 is finite
        and it is no whole number. The slope of x**0 is 0. Outside the contract: -inf and -0.0 to
        what is no whole number.
        """
        self._missing("pow")

    @primitive("binary")
    def maximum(self, x: Operand, y: Operand) -> Array:
        """The larger of both, of 0.0 and -0.0 either; NaN where either is NaN. Ties share the
        gradient in halves."""
        self._missing("maximum")

    # ---- select ---------------------------------------------------------------------------

    @primitive("select")
    def less(self, x: Operand, y: Operand) -> Array:
        """x < y as bool; False where either is NaN."""
        self._missing("less")

    @primitive("select")
    def equal(self, x: Operand, y: Operand) -> Array:
        """x == y as bool; False where either is NaN."""
        self._missing("equal")

    @primitive("select")
    def where(self, condition: Array, x: Operand, y: Operand) -> Array:
        """x where the bool `condition` holds, else y; all three broadcast. x or y is an array.
        What is not selected does not matter, NaN and inf included."""
        self._missing("where")

    # ---- reduce: `axis` a tuple of distinct axes, perhaps empty -----------------------------

    @primitive("reduce")
    def sum(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        """The sum in the dtype of `x`, 0 of nothing; integers wrap, halves accumulate in
        float32."""
        self._missing("sum")

    @primitive("reduce")
    def max(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        """The largest element; NaN where there is one. Ties share the gradient. Of no elements,
        it is outside the contract; an empty axis that stays gives an empty result."""
        self._missing("max")

    @primitive("reduce")
    def argmax(self, x: Array, *, axis: int) -> Array:
        """Where the largest stands, the first of equals, or the first NaN, as `index_dtype`; `axis`
        is gone. Of no elements, it is outside the contract; another axis may be empty."""
        self._missing("argmax")

    # ---- matmul -----------------------------------------------------------------------------

    @primitive("matmul")
    def matmul(self, x: Array, y: Array) -> Array:
        """(..., n, k) @ (..., k, m) -> (..., n, m) for floats; leading axes broadcast. float32 is
        true float32 (no TF32); halves accumulate in float32. An empty k gives zeros."""
        self._missing("matmul")

    # ---- shape: results may share memory with the argument ----------------------------------

    @primitive("shape")
    def reshape(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        """The same elements in C order."""
        self._missing("reshape")

    @primitive("shape")
    def transpose(self, x: Array, *, axes: tuple[int, ...]) -> Array:
        """Axis i of the result is axis axes[i] of `x`."""
        self._missing("transpose")

    @primitive("shape")
    def broadcast_to(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        """`x` repeated along new leading axes and axes of length 1."""
        self._missing("broadcast_to")

    @primitive("shape")
    def concat(self, *xs: Array, axis: int) -> Array:
        """Arrays, one or more, laid one after the other along `axis`: always a new array, even of
        one, since it is how tfx copies what `write` is about to consume."""
        self._missing("concat")

    @primitive("shape")
    def slice(
        self,
        x: Array,
        *,
        starts: tuple[int, ...],
        stops: tuple[int, ...],
        steps: tuple[int, ...],
    ) -> Array:
        """x[starts[0]:stops[0]:steps[0], ...]; 0 <= start <= stop <= length and step >= 1. One of
        each for every axis: none for a 0-d array."""
        self._missing("slice")

    @primitive("shape")
    def pad(self, x: Array, *, widths: tuple[tuple[int, int], ...], value: float) -> Array:
        """`x` with widths[i] = (before, after) cells of `value` around axis i; no widths for a 0-d
        array."""
        self._missing("pad")

    # ---- index --------------------------------------------------------------------------------

    @primitive("index")
    def take(self, x: Array, indices: Array, *, axis: int) -> Array:
        """x[..., indices, ...]: the indices' shape stands in place of `axis`. Indices are int32 or
        int64 in [0, length); others, negative ones too, are outside the contract (ids are checked
        on the host)."""
        self._missing("take")

    @primitive("index")
    def scatter_add(self, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
        """`x` plus, at each index along `axis`, its update; repeated indices add up. `updates`
        has the shape of `take(x, indices, axis=axis)`. Indices are as there."""
        self._missing("scatter_add")

    @primitive("index")
    def write(self, buffer: Array, slab: Array, start: Operand, *, axis: int) -> Array:
        """`buffer` with `slab` at start, start+1, ... along `axis`. *Consumes the buffer*: in place
        where the library can, so neither `buffer` nor a view of it may be used afterwards. `start`
        is a Python int or a 0-d integer array, read on the device; the slab must fit. A buffer
        whose cells stand for several elements, as after `broadcast_to`, is copied first."""
        self._missing("write")

    # ---- random ---------------------------------------------------------------------------------

    @primitive("random")
    def random_bits(
        self, counter: Array, *, key: tuple[int, int], shape: tuple[int, ...], bits: int
    ) -> Array:
        """The highest `bits` (1 to 32) of one Threefry-2x32-20 word per element, as int32.

        Word i of block j is `threefry2x32(key, (j, counter))[i]`, for element 2j+i in C order: the
        same everywhere. `counter` is a 0-d integer array in [0, 2**31), so that a replayed step
        draws anew. With all 32 bits the int32 is the word's two's complement. This default draws on
        the host; a backend that draws on the device declares `device_random`.
        """
        words = threefry.words(key, int(self.to_numpy(counter)), int(np.prod(shape)), bits)
        return self.asarray(words.reshape(shape), dtype=DType.int32)

    # ---- beyond the primitives --------------------------------------------------------------

    def borrow(self, value: HostArray, *, dtype: DType) -> Array:
        """As `asarray`, but the result may share memory with `value`, which nobody changes while it
        is in use: how weights are read straight from a file. No operation writes to it."""
        return self.asarray(value, dtype=dtype)

    def dlpack_device(self) -> tuple[int, int]:
        """The kind and the number of its device, as DLPack counts them: (1, 0) is the CPU, (2, 1)
        the second CUDA device. Only for other devices than the CPU need it be written."""
        if self.device != "cpu":
            self._missing("dlpack_device")
        return 1, 0

    def from_dlpack(self, x: Any) -> Array:
        """A raw array over the memory of `x`, which has `__dlpack__` and lies on this device; by
        default a copy. The library's own refusals (BufferError, RuntimeError, TypeError,
        ValueError, AssertionError) are told as they are; `DTypeError` for a dtype tfx has not.
        """
        host = np.from_dlpack(x)
        return self.borrow(host, dtype=as_dtype(host.dtype.name))

    def dlpack(self, x: Array, **how: Any) -> Any:
        """The capsule that a raw array gives for `__dlpack__(**how)`; of a copy on the host, where
        the library's arrays have no such method."""
        if not hasattr(x, "__dlpack__"):
            x = self.to_numpy(x)
        return x.__dlpack__(**how)

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked; for timing. A lazy library computes here
        what is pending."""

    def peak_memory(self) -> int | None:
        """The most bytes of its device's memory that the library has taken for this process so far;
        None where that is the host's memory, or the library does not say."""
        return None

    def replayer(self) -> Any:
        """What replays the captured programs of one function (`tfx.core.capture.replay.Replayer`),
        where the library can do better than to be called again: as a graph of its device, or
        compiled. None: the calls of a program are made one by one."""
        return None

    def out_of_memory(self, error: BaseException) -> str | None:
        """Where `error` says that there was no room for an array, a clause with how much was asked
        for and how much there is; None for any other error."""
        if isinstance(error, MemoryError):
            return str(error) or "no room for the next array"
        return None

    def value_and_grad(
        self, fn: Callable[..., Array], arrays: Sequence[Array]
    ) -> tuple[Array, Sequence[Array | None]]:
        """`fn(*arrays)`, a 0-d float, and its gradient by each array, by the library's autograd.

        None, or zeros, for an array that the value does not depend on: of a None, tfx asks its tape
        whether a gradient was lost. Only where `native_autograd`.
        """
        self._missing("value_and_grad")

    def checkpoint(self, fn: Callable[[], Array]) -> Array:
        """`fn()`, of which the library's own autograd keeps nothing but what it closes over: it
        calls `fn` again when it comes to the gradient (`tfx.core.checkpointing`). Without it, a
        model that checkpoints is differentiated on the tape."""
        raise OnlyOnTape(
            f"backend {self} has no checkpointing under its own autograd; use autograd='core'"
        )

    def stop_gradient(self, x: Array) -> Array:
        """`x` as a constant to the library's own autograd."""
        return x

    def recording_natively(self, x: Array) -> bool:
        """Whether the library's own autograd is recording what happens to `x`."""
        return False


REQUIRED = ("is_array", "dtype", *(name for name in PRIMITIVES if name != "random_bits"))
"""The methods that a backend has to write; all others have a default."""
