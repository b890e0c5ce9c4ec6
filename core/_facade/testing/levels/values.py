"""L1: results are what NumPy gives in its widest types, in odd shapes, layouts and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfx.core.dtypes import FLOATS, INTEGERS, DType
from tfx.testing.calling import aligned, call, fetch, put, told, value_of
from tfx.testing.contract import require
from tfx.testing.kit import Checks, Level, Skipped, Subject
from tfx.testing.nearness import Mismatch, assert_close
from tfx.testing.primitive_table import PRIMITIVE_OPS
from tfx.testing.records import Op, as_host
from tfx.testing.trials import Trial, samples_for, trials

CHECKS = Checks(Level.VALUES)

WHOLE = (DType.float32, DType.float64)
"""The dtypes in which every sample is tried: models compute in them."""


# ---- what the table says -----------------------------------------------------------------


def values(subject: Subject, op: Op, dtype: DType) -> None:
    subject.needs(dtype)
    B = subject.backend
    samples = op.samples if dtype in WHOLE else samples_for(op, B, dtype)
    for trial in trials(op, (*samples, *op.specials), B, dtype):
        trial.check_value(B)


def refuses_what_does_not_fit(subject: Subject, op: Op) -> None:
    for sample in op.refused:
        raw = Trial(op, sample, DType.float32).raw(subject.backend)
        try:
            getattr(subject.backend, op.name)(*raw)
        except NotImplementedError:
            raise
        except (ValueError, TypeError, IndexError, RuntimeError):
            continue
        raise Mismatch(f"it took {sample}; it has to refuse it, with a ValueError for instance")


for _op in PRIMITIVE_OPS.values():
    for _dtype in (*WHOLE, *sorted(_op.dtypes)):
        CHECKS.add(f"{_op.name} {_dtype}", values, _op, _dtype)
    if _op.refused:
        CHECKS.add(f"{_op.name} of shapes that do not fit", refuses_what_does_not_fit, _op)


# ---- to the device and back --------------------------------------------------------------


@CHECKS.check
def asarray_and_to_numpy_copy(subject: Subject) -> None:
    B = subject.backend
    for dtype in subject.held():
        given = aligned(as_host(np.arange(6) % 2, dtype).reshape(2, 3))
        if dtype is DType.bfloat16:
            continue
        raw = B.asarray(given, dtype=dtype)
        back = B.to_numpy(raw)
        kept = given.copy()
        same(back, kept, f"{dtype} there and back")
        back[...] = 1
        same(B.to_numpy(raw), kept, f"{dtype}, after a change to what to_numpy had given")
        given[...] = 1
        same(B.to_numpy(raw), kept, f"{dtype}, after a change to what asarray was given")


@CHECKS.check
def asarray_takes_host_arrays_of_any_layout(subject: Subject) -> None:
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {
        "transposed": grid.T,
        "backwards": grid[::2, ::-1],
        "a part": grid[1:, 2:],
        "repeated": np.broadcast_to(grid[:1], (3, 6)),
        "big-endian": grid.astype(">f4"),
    }
    for name, view in views.items():
        view.flags.writeable = False
        with told(name):
            raw = subject.backend.asarray(view, dtype=DType.float32)
            same(subject.backend.to_numpy(raw), view)


@CHECKS.check
def full(subject: Subject) -> None:
    B = subject.backend
    for dtype in subject.held():
        value = True if dtype is DType.bool else 0.1 if dtype.is_float else 3
        out = fetch(B, B.full(shape=(2, 3), value=value, dtype=dtype))
        if dtype is not DType.bfloat16:
            same(out, np.full((2, 3), value, str(dtype)), f"{dtype}")
    for value in (np.inf, -np.inf, np.nan):
        out = fetch(B, B.full(shape=(2,), value=float(value), dtype=DType.float32))
        same(out, np.full(2, value), f"{value}")


@CHECKS.check
def arange_counts(subject: Subject) -> None:
    for stop in (0, 1, 7):
        same(subject.backend.to_numpy(subject.backend.arange(stop=stop)), np.arange(stop), stop)


# ---- cast --------------------------------------------------------------------------------


def cast_from(subject: Subject, source: DType) -> None:
    """To every other dtype, whole numbers that all of them hold."""
    subject.needs(source)
    whole = np.array([0, 1, 2, 3, 100, 7])
    for target in subject.held():
        for shape in [(), (2, 3)]:
            with told(source, target, shape):
                given = as_host(whole.reshape(shape) if shape else whole[3], source)
                raw = put(subject.backend, given, dtype=source)
                out = call(subject.backend, "cast", [raw], {"dtype": target})
                expected = given.astype(bool) if target is DType.bool else given
                same(fetch(subject.backend, out), expected)


for _dtype in DType:
    CHECKS.add(f"cast from {_dtype} to all others", cast_from, _dtype)


@CHECKS.check
def floats_to_integers_truncate_and_to_bool_ask_for_zero(subject: Subject) -> None:
    B = subject.backend
    for source in sorted(FLOATS & B.dtypes):
        given = as_host(np.array([2.75, -2.75, 0.5, -0.5, 0.0, 99.5]), source)
        raw = put(B, given, dtype=source)
        for target in sorted(INTEGERS & B.dtypes - {DType.uint8}):
            same(fetch(B, B.cast(raw, dtype=target)), np.trunc(given), f"{source} to {target}")
        odd = put(B, as_host(np.array([0.5, -0.0, 0, np.nan, np.inf]), source), dtype=source)
        truth = np.array([True, False, False, True, True])
        same(fetch(B, B.cast(odd, dtype=DType.bool)), truth, f"{source} to bool")


@CHECKS.check
def narrower_floats_round_to_even_and_overflow_to_infinity(subject: Subject) -> None:
    for source, target, ulp in [
        (DType.float64, DType.float32, 2.0**-23),
        (DType.float32, DType.float16, 2.0**-10),
        (DType.float64, DType.float16, 2.0**-10),
    ]:
        if {source, target} <= subject.backend.dtypes:
            given = np.array([1 + ulp / 2, 1 + 3 * ulp / 2, 1e39, -1e39, np.nan, -np.inf])
            with np.errstate(over="ignore"):
                given = given.astype(str(source))
                expected = given.astype(str(target))
            found = value_of(subject.backend, "cast", given, dtype=target)
            same(found, expected, f"{source} to {target}")


BFLOAT16 = [
    (0.0, 0x0000),
    (-0.0, 0x8000),
    (1.0, 0x3F80),
    (-2.0, 0xC000),
    (1 + 2**-7, 0x3F81),
    (1 + 2**-8, 0x3F80),  # half way: to even
    (1 + 3 * 2**-8, 0x3F82),  # half way: to even
    (1 + 2**-8 + 2**-20, 0x3F81),
    (3.3895313892515355e38, 0x7F7F),  # the largest
    (3.4e38, 0x7F80),
    (np.inf, 0x7F80),
    (-np.inf, 0xFF80),
]
"""Numbers and their bfloat16, by the definition of the format."""


@CHECKS.check
def bfloat16_words(subject: Subject) -> None:
    B = subject.backend
    if DType.bfloat16 not in B.dtypes | B.storage_dtypes:
        raise Skipped("bfloat16 is not among its dtypes or storage_dtypes")
    words = np.array([word for _, word in BFLOAT16], np.uint16)
    wide = np.asarray(words.astype(np.uint32) << 16, np.uint32).view(np.float32)
    held = B.asarray(words, dtype=DType.bfloat16)
    require(B.dtype(held) is DType.bfloat16, f"asarray gave {B.dtype(held)}")
    same(B.to_numpy(held), words, "there and back")
    for source in sorted({DType.float32, DType.float64} & B.dtypes):
        numbers = np.array([number for number, _ in BFLOAT16], str(source))
        narrow = B.cast(B.asarray(numbers, dtype=source), dtype=DType.bfloat16)
        same(B.to_numpy(narrow), words, f"from {source}")
        same(B.to_numpy(B.cast(held, dtype=source)), wide, f"to {source}")
    odd = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    kept = B.cast(B.asarray(odd, dtype=DType.float32), dtype=DType.bfloat16)
    back = B.to_numpy(B.cast(kept, dtype=DType.float32))
    require(bool(np.isnan(back).all()), f"NaN became {back} on the way through bfloat16")


# ---- numbers that tell one rule from another ---------------------------------------------


def integers_wrap(subject: Subject, dtype: DType) -> None:
    subject.needs(dtype)
    top = np.iinfo(str(dtype)).max
    given = np.array([top, top, 1], str(dtype))
    others: list[tuple[str, Any, Any]] = [
        ("add", np.add, 1),
        ("mul", np.multiply, 3),
        ("sub", np.subtract, np.array([2, 5, 9], str(dtype))),
    ]
    for name, numpy, other in others:
        wide = numpy(given.astype(object), np.asarray(other).astype(object))
        found = value_of(subject.backend, name, given, other)
        same(found, _wrapped(wide, dtype), name)
    total = value_of(subject.backend, "sum", given, axis=(0,), keepdims=False)
    same(total, _wrapped(np.array(2 * int(top) + 1, object), dtype), "sum")


for _dtype in sorted(INTEGERS):
    CHECKS.add(f"integers wrap {_dtype}", integers_wrap, _dtype)


@CHECKS.check
def large_integers_are_exact(subject: Subject) -> None:
    """2**53 + 1 is no float64; no number beside an int64 goes through a float."""
    subject.needs(DType.int64)
    large = 2**53 + 1
    given = np.array([1, large - 1], np.int64)
    same(value_of(subject.backend, "add", given, large), np.array([large + 1, 2 * large - 1]))
    same(value_of(subject.backend, "mul", given[:1], large), np.array([large]))
    same(value_of(subject.backend, "maximum", given, large), np.array([large, large]))


def accumulates_in_float32(subject: Subject, dtype: DType) -> None:
    """2048 + 1 is 2048 in float16, as 256 + 1 is 256 in bfloat16."""
    subject.needs(dtype)
    B = subject.backend
    many = as_host(np.ones((2, 4096)), dtype)
    total = B.sum(put(B, many, dtype=dtype), axis=(1,), keepdims=False)
    same(fetch(B, total), np.full(2, 4096), "sum")
    product = B.matmul(put(B, many, dtype=dtype), put(B, many.T.copy(), dtype=dtype))
    same(fetch(B, product), np.full((2, 2), 4096), "matmul")


for _dtype in (DType.float16, DType.bfloat16):
    CHECKS.add(f"sums and products of {_dtype} add up in float32", accumulates_in_float32, _dtype)


@CHECKS.check
def products_of_float32_are_true_float32(subject: Subject) -> None:
    """Ten bits of fraction, as TF32 has, lose the 2**-13."""
    x = np.array([[1 + 2**-13, 2.0]], np.float32)
    y = np.array([[1.0], [0.0]], np.float32)
    same(value_of(subject.backend, "matmul", x, y), np.array([[1 + 2**-13]]))


@CHECKS.check
def quotients_are_rounded_once(subject: Subject) -> None:
    """As products with a reciprocal are not: 49 * (1 / 49) is not 1."""
    whole = np.arange(1, 100, dtype=np.float32)
    same(value_of(subject.backend, "div", whole, whole), np.ones(99), "x / x")
    halves = value_of(subject.backend, "div", 1.5, whole)
    same(halves, np.float32(1.5) / whole, "1.5 / x")


@CHECKS.check
def the_sign_of_zero(subject: Subject) -> None:
    zeros = value_of(subject.backend, "neg", np.array([0.0, -0.0], np.float32))
    require(np.signbit(zeros).tolist() == [True, False], f"neg of 0 and -0 gave {zeros}")
    nan = value_of(subject.backend, "mul", np.array([np.inf], np.float32), 0.0)
    require(bool(np.isnan(nan).all()), f"inf * 0 gave {nan}")


@CHECKS.check
def argmax_finds_what_stands_far_out(subject: Subject) -> None:
    """An index that does not fit a byte, on an axis that is not the last."""
    x = np.zeros((300, 2), np.float32)
    x[299, 0] = x[270, 1] = 1
    same(value_of(subject.backend, "argmax", x, axis=0), np.array([299, 270]))


SIZES = (1e-30, 1e30)
"""Far from 1, and for float32 far from where digits are lost."""


def far_from_one(subject: Subject, dtype: DType) -> None:
    """Each result is right as a share of its own size, however small or large that is."""
    subject.needs(dtype)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, 2, (2, 3, 4))
    calls: dict[str, tuple[list[Any], list[Any], dict[str, Any], Any]] = {
        "neg": ([x], [], {}, -x),
        "add": ([x, y], [], {}, x + y),
        "sub": ([x, -y], [], {}, x + y),
        "mul": ([x], [2.0], {}, 2 * x),
        "div": ([x], [0.5], {}, 2 * x),
        "maximum": ([x, y], [], {}, np.maximum(x, y)),
        "sum": ([x], [], {"axis": (0, 1), "keepdims": False}, np.asarray(x.sum())),
        "max": ([x], [], {"axis": (1,), "keepdims": False}, x.max(1)),
        "matmul": ([x], [y.T.astype(str(dtype))], {}, x @ y.T),
        "reshape": ([x], [], {"shape": (4, 3)}, x.reshape(4, 3)),
    }
    for size in SIZES:
        for name, (sized, others, statics, expected) in calls.items():
            args = [(array * size).astype(str(dtype)) for array in sized]
            with told(name, f"numbers near {size:.0e}"):
                found = value_of(subject.backend, name, *args, *others, **statics)
                assert_close(found / np.float64(size), expected, dtype)


for _dtype in WHOLE:
    CHECKS.add(f"numbers far from one {_dtype}", far_from_one, _dtype)


# ---- write and memory --------------------------------------------------------------------


@CHECKS.check
def results_stay_when_others_are_made(subject: Subject) -> None:
    """The next call of the same kind, on other numbers, gets memory of its own."""
    B = subject.backend
    for op in PRIMITIVE_OPS.values():
        for sample in op.samples:
            one = Trial(op, sample, DType.float32)
            with told(op, one):
                first = call(B, op.name, one.raw(B), sample.statics)
                before = fetch(B, first)
                call(B, op.name, one.rolled(1).raw(B), sample.statics)
                same(fetch(B, first), before, "after another call")
    zeros, untouched = (B.full(shape=(3,), value=0.0, dtype=DType.float32) for _ in range(2))
    B.write(zeros, B.asarray(np.ones(1), dtype=DType.float32), 1, axis=0)
    same(B.to_numpy(untouched), np.zeros(3), "full, after a write into another like it")


@CHECKS.check
def write_changes_nothing_else(subject: Subject) -> None:
    B = subject.backend
    slab = np.array([[-1.0, -2, -3], [-4, -5, -6]], np.float32)
    for start in (0, 2):
        for index in (None, *sorted({DType.int32, DType.int64} & B.dtypes)):
            buffer = np.arange(10, dtype=np.float32).reshape(2, 5)
            at = start if index is None else B.asarray(np.array(start), dtype=index)
            raw = B.asarray(slab, dtype=DType.float32)
            out = B.write(B.asarray(buffer, dtype=DType.float32), raw, at, axis=1)
            buffer[:, start : start + 3] = slab
            same(B.to_numpy(out), buffer, f"start {start} as {index or 'a number'}")
            same(B.to_numpy(raw), slab, "the slab afterwards")


@CHECKS.check
def write_into_a_repeated_row_repeats_nothing(subject: Subject) -> None:
    B = subject.backend
    zero = B.asarray(np.zeros((1, 3), np.float32), dtype=DType.float32)
    slab = B.asarray(np.ones((1, 3), np.float32), dtype=DType.float32)
    out = B.write(B.broadcast_to(zero, shape=(2, 3)), slab, 1, axis=0)
    same(B.to_numpy(out), np.array([[0, 0, 0], [1, 1, 1]]))


@CHECKS.check
def concat_of_one_is_a_new_array(subject: Subject) -> None:
    """What `write` then consumes is not the array that was concatenated."""
    B = subject.backend
    given = np.arange(4, dtype=np.float32)
    x = B.asarray(given, dtype=DType.float32)
    B.write(B.concat(x, axis=0), B.asarray(given[:1] - 9, dtype=DType.float32), 2, axis=0)
    same(B.to_numpy(x), given)


def same(found: Any, expected: Any, *where: object) -> None:
    """Equal to the last bit, NaN being equal to itself."""
    found, expected = np.asarray(found), np.asarray(expected)
    told_where = f" ({', '.join(map(str, where))})" if where else ""
    if found.shape != expected.shape:
        raise Mismatch(f"shape {found.shape}, expected {expected.shape}{told_where}")
    exact = found.astype(object) if found.dtype.kind in "iu" else found
    alike = np.asarray((exact == expected) | ((found != found) & (expected != expected)), bool)
    if alike.all():
        return
    if found.size <= SHOWN:
        raise Mismatch(f"{found.tolist()}, expected {expected.tolist()}{told_where}")
    at = tuple(map(int, np.argwhere(~alike)[0]))
    more = f"; {np.count_nonzero(~alike)} of {found.size} are wrong"
    raise Mismatch(f"{found[at]} at {at}, expected {expected[at]}{more}{told_where}")


SHOWN = 12
"""Up to so many elements, a message has all of them."""


def _wrapped(wide: Any, dtype: DType) -> Any:
    """Python's integers modulo the range of a dtype."""
    limits = np.iinfo(str(dtype))
    count = int(limits.max) - int(limits.min) + 1
    return (wide - int(limits.min)) % count + int(limits.min)
