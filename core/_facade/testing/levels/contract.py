"""L0: every primitive is there and gives the promised shape and dtype."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

import tfx.core.nn
import tfx.core.quantized  # noqa: F401 (where the others are)
from tfx.core.backend import Fused
from tfx.core.dtypes import INDICES, DType
from tfx.core.fused import FUSED
from tfx.core.specs import API, OLDEST
from tfx.testing.calling import call, kind_of, told, type_of
from tfx.testing.contract import CONTRACT, ArrayType, require
from tfx.testing.kit import Checks, Level, Subject
from tfx.testing.primitive_table import PRIMITIVE_OPS
from tfx.testing.records import Op
from tfx.testing.trials import Trial

CHECKS = Checks(Level.CONTRACT)


@CHECKS.check
def what_it_declares(subject: Subject) -> None:
    B = subject.backend
    name, _, device = subject.name.partition(":")
    require(B.name == name, f"its name is {B.name!r}, not {name!r}")
    require(type(B.device) is str, f"its device is {B.device!r}, not a text")
    require(not device or B.device == device, f"its device is {B.device!r}, not {device!r}")
    spoken = type(B.api) is int and OLDEST <= B.api <= API
    require(spoken, f"its api is {B.api!r}; this tfx speaks {OLDEST} to {API}")
    for kind in ("dtypes", "storage_dtypes"):
        held = getattr(B, kind)
        fits = isinstance(held, frozenset) and all(type(d) is DType for d in held)
        require(fits, f"{kind} is {held!r}, not a frozenset of DType")
    both = B.dtypes & B.storage_dtypes
    require(not both, f"dtypes and storage_dtypes both have {', '.join(sorted(both))}")
    needed = {DType.bool, DType.float32, B.index_dtype}
    require(needed <= B.dtypes, f"dtypes lack {', '.join(sorted(needed - B.dtypes))}")
    require(B.index_dtype in INDICES, f"index_dtype is {B.index_dtype!r}, not int32 or int64")
    for flag in ("device_random", "deterministic", "native_autograd"):
        require(type(getattr(B, flag)) is bool, f"{flag} is {getattr(B, flag)!r}, not a bool")
    own = getattr(B, "arithmetic", None) == B.dtypes - {DType.bool}
    require(own, "its __init__ does not call that of its base class, or changes dtypes after it")


@CHECKS.check
def kernels_have_names_of_fused_ops(subject: Subject) -> None:
    for name, kernel in subject.backend.fused.items():
        require(type(kernel) is Fused, f"fused[{name!r}] is a {type(kernel).__name__}")
        require(kernel.name == name, f"fused[{name!r}] is a kernel for {kernel.name!r}")
        require(name in FUSED, f"there is no fused op {name!r}")


@CHECKS.check
def instances_share_no_kernels(subject: Subject) -> None:
    require(subject.fresh().fused is not subject.backend.fused, "all have one dict `fused`")


@CHECKS.check
def what_is_an_array(subject: Subject) -> None:
    B = subject.backend
    x = B.asarray(np.ones((2, 3), np.float32), dtype=DType.float32)
    require(B.is_array(x) is True, "is_array of what asarray gave is not True")
    foreign = () if isinstance(x, np.ndarray) else (np.ones(2, np.float32),)
    for other in (1.0, None, "x", [1.0], object(), *foreign):
        require(B.is_array(other) is False, f"is_array({other!r}) is not False")
    shape = B.shape(x)
    exact = type(shape) is tuple and all(type(n) is int for n in shape)
    require(exact, f"shape gave {shape!r}, not a tuple of int")
    require(type(B.dtype(x)) is DType, f"dtype gave {B.dtype(x)!r}, not a DType")


@CHECKS.check
def what_is_there_beyond_the_primitives(subject: Subject) -> None:
    B = subject.backend
    x = B.borrow(np.ones((2, 3), np.float32), dtype=DType.float32)
    type_of(B, x, "borrow")
    type_of(B, B.stop_gradient(x), "stop_gradient")
    recording = B.recording_natively(x)
    require(recording is False, f"recording_natively of a plain array is {recording!r}, not False")
    B.synchronize()
    peak = B.peak_memory()
    require(peak is None or type(peak) is int, f"peak_memory gave {peak!r}, not an int or None")


def arrays_of(subject: Subject, dtype: DType) -> None:
    """To the device and back, and filled, in every shape."""
    subject.needs(dtype)
    B = subject.backend
    word = np.uint16 if dtype is DType.bfloat16 else np.dtype(str(dtype))
    value: Any = True if dtype is DType.bool else 1
    for shape in [(), (3,), (0,), (2, 0, 3), (2, 3)]:
        with told(dtype, shape):
            host = np.ones(shape, word)
            made = {
                "asarray": B.asarray(host, dtype=dtype),
                "full": B.full(shape=shape, value=value, dtype=dtype),
            }
            for name, x in made.items():
                found = type_of(B, x, name)
                require(found == (shape, dtype), f"{name} gave {found}")
            back = B.to_numpy(made["asarray"])
            given = kind_of(back)
            require(type(back) is np.ndarray, f"to_numpy gave {given}, not a numpy.ndarray")
            same = (back.shape, back.dtype) == (shape, word)
            require(same, f"to_numpy gave {back.dtype}{back.shape}")


for _dtype in DType:
    CHECKS.add(f"arrays of {_dtype}", arrays_of, _dtype)


@CHECKS.check
def arange(subject: Subject) -> None:
    B = subject.backend
    for stop in (0, 1, 7):
        x = B.arange(stop=stop)
        found = type_of(B, x)
        require(found == ((stop,), B.index_dtype), f"arange(stop={stop}) gave {found}")


def keeps_the_contract(subject: Subject, op: Op) -> None:
    """Called as tfx calls it: an array of the promised shape and dtype, and no argument changed.

    On each sample in float32, and on one of them in every other dtype.
    """
    B = subject.backend
    for dtype in (DType.float32, *sorted({DType.float64, *op.dtypes} & B.dtypes)):
        suited = (sample for sample in op.samples if sample.suits(dtype))
        for i, sample in enumerate(islice(suited, None if dtype is DType.float32 else 1)):
            trial = Trial(op, sample, dtype, turn=i)
            with told(trial):
                call(B, op.name, trial.raw(B), sample.statics)


for _op in PRIMITIVE_OPS.values():
    CHECKS.add(_op.name, keeps_the_contract, _op)


@CHECKS.check
def random_bits(subject: Subject) -> None:
    B = subject.backend
    counter = B.asarray(np.array(3), dtype=B.index_dtype)
    for shape in [(), (3,), (0,), (2, 5)]:
        out = B.random_bits(counter, key=(1, 2), shape=shape, bits=24)
        kind = ArrayType((), B.index_dtype)
        promised = CONTRACT["random_bits"](B, kind, key=(1, 2), shape=shape, bits=24)
        found = type_of(B, out)
        require(found == promised, f"it gave {found}, promised is {promised}")
