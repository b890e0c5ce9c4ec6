"""Every primitive of every backend, raw, against NumPy in its widest types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close
from op_records import Op, layouts, put, told
from primitive_table import PRIMITIVE_OPS

from tfx.core.backend import PRIMITIVES, Backend, HostArray
from tfx.core.dtypes import FLOATS, INTEGERS, DType
from tfx.testing.contract import CONTRACT, ArrayType

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

FLOAT32_AND_64 = [DType.float32, DType.float64]


def test_every_primitive_is_tested_and_has_a_contract() -> None:
    here = {"asarray", "to_numpy", "full", "arange", "random_bits"}
    assert {*PRIMITIVE_OPS, *here} == set(PRIMITIVES) == set(CONTRACT)


@pytest.mark.parametrize("op", PRIMITIVE_OPS.values(), ids=str)
def test_values(op: Op, backend: Backend) -> None:
    """In every dtype, shape and layout: the value, the promised type, no argument changed."""
    for dtype in (*FLOAT32_AND_64, *sorted(op.dtypes)):
        if dtype not in backend.dtypes:
            continue
        for i, sample in enumerate((*op.samples, *op.specials)):
            if not sample.suits(dtype):
                continue
            for layout in layouts(dtype, i):
                with told(dtype, sample, layout):
                    arrays = op.drawn(sample, dtype, layout)
                    out = call(backend, op.name, arrays, sample.statics, layout)
                    expected = op.expected(sample, arrays)
                    assert_close(out, expected, DType(out.dtype.name))


def call(
    B: Backend, name: str, arrays: list[Any], statics: dict[str, Any], layout: str = "plain"
) -> HostArray:
    """The result of a primitive on the host, once it has kept the rules."""
    raw = [put(B, x, layout) if isinstance(x, np.ndarray) else x for x in arrays]
    types = [ArrayType(B.shape(x), B.dtype(x)) if B.is_array(x) else x for x in raw]
    promised = CONTRACT[name](B, *types, **statics)
    out = getattr(B, name)(*raw, **statics)
    assert B.is_array(out)
    assert ArrayType(B.shape(out), B.dtype(out)) == promised
    for x, before in list(zip(raw, arrays, strict=True))[name == "write" :]:
        if B.is_array(x):
            np.testing.assert_array_equal(B.to_numpy(x), before)
    return B.to_numpy(out)


# ---- arrays ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0, 3), (2, 3)])
def test_there_and_back(backend: Backend, shape: tuple[int, ...]) -> None:
    for dtype in sorted(backend.dtypes - {DType.bfloat16}):
        given = (np.arange(np.prod(shape)) % 2).astype(str(dtype)).reshape(shape)
        raw = backend.asarray(given, dtype=dtype)
        back = backend.to_numpy(raw)
        assert backend.is_array(raw) and type(back) is np.ndarray
        assert (backend.shape(raw), backend.dtype(raw), back.dtype) == (shape, dtype, given.dtype)
        np.testing.assert_array_equal(back, given)
        back[...] = 1  # a copy of its own
        given[...] = 1
        np.testing.assert_array_equal(
            backend.to_numpy(raw), (np.arange(np.prod(shape)) % 2).reshape(shape)
        )


def test_host_arrays_of_any_layout_come_in(backend: Backend) -> None:
    grid = np.arange(24.0).reshape(4, 6)
    for view in (
        grid.T,
        grid[::2, ::-1],
        grid[1:, 2:],
        np.broadcast_to(grid[:1], (3, 6)),
        grid.astype(">f8"),
    ):
        view.flags.writeable = False
        np.testing.assert_array_equal(
            backend.to_numpy(backend.asarray(view, dtype=DType.float64)), view
        )


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3)])
def test_full(backend: Backend, shape: tuple[int, ...]) -> None:
    for dtype in sorted(backend.dtypes - {DType.bfloat16}):
        value = True if dtype is DType.bool else 2.5 if dtype.is_float else 3
        out = backend.full(shape=shape, value=value, dtype=dtype)
        assert backend.is_array(out) and backend.dtype(out) is dtype
        np.testing.assert_array_equal(backend.to_numpy(out), np.full(shape, value, str(dtype)))
    for value in (np.inf, -np.inf, np.nan):
        out = backend.full(shape=shape, value=value, dtype=DType.float32)
        np.testing.assert_array_equal(backend.to_numpy(out), np.full(shape, value, np.float32))


@pytest.mark.parametrize("stop", [0, 1, 7])
def test_arange(backend: Backend, stop: int) -> None:
    out = backend.arange(stop=stop)
    assert backend.dtype(out) is backend.index_dtype
    np.testing.assert_array_equal(backend.to_numpy(out), range(stop))


# ---- cast --------------------------------------------------------------------------------

WHOLE = np.array([0, 1, 2, 3, 100, 7])
TOWARDS_ZERO = np.array([2.75, -2.75, 0.5, -0.5, 0.0, 99.99])


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_cast_between_any_two(backend: Backend, shape: tuple[int, ...]) -> None:
    values = WHOLE.reshape(shape) if shape else WHOLE[3]
    for source in sorted(backend.dtypes - {DType.bfloat16}):
        for target in sorted(backend.dtypes - {DType.bfloat16}):
            with told(source, target):
                given = np.asarray(values).astype(str(source))
                out = call(backend, "cast", [given], {"dtype": target})
                np.testing.assert_array_equal(out, given.astype(str(target)))


def test_floats_to_integers_truncate_and_to_bool_ask_for_zero(backend: Backend) -> None:
    for source in sorted(FLOATS & backend.dtypes - {DType.bfloat16}):
        given = TOWARDS_ZERO.astype(str(source))
        for target in sorted(INTEGERS & backend.dtypes - {DType.uint8}):
            out = call(backend, "cast", [given], {"dtype": target})
            np.testing.assert_array_equal(out, np.trunc(given.astype(np.float64)))
        out = call(
            backend,
            "cast",
            [np.append(given, [np.nan, np.inf]).astype(given.dtype)],
            {"dtype": DType.bool},
        )
        assert out.tolist() == [True, True, True, True, False, True, True, True]


def test_narrower_floats_round_to_even_and_overflow_to_infinity(backend: Backend) -> None:
    given = np.array([1 + 2**-24, 1 + 3 * 2**-24, 1e39, -1e39, 1e-46, np.nan, -np.inf, 65520.0])
    for target in (DType.float32, DType.float16):
        with np.errstate(all="ignore"):
            expected = given.astype(str(target))
        out = call(backend, "cast", [given], {"dtype": target})
        np.testing.assert_array_equal(out, expected)


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
    (2.0**-133, 0x0001),  # the smallest
]
"""Numbers and their bfloat16, by the definition of the format."""


@pytest.mark.parametrize("source", FLOAT32_AND_64)
def test_bfloat16(backend: Backend, source: DType) -> None:
    if DType.bfloat16 not in backend.dtypes | backend.storage_dtypes:
        pytest.skip(f"{backend} has no bfloat16")
    numbers = np.array([number for number, _ in BFLOAT16], str(source))
    words = np.array([word for _, word in BFLOAT16], np.uint16)
    half = backend.cast(backend.asarray(numbers, dtype=source), dtype=DType.bfloat16)
    assert backend.dtype(half) is DType.bfloat16
    np.testing.assert_array_equal(backend.to_numpy(half), words)

    for shape in [(), (13,), (13, 1)]:
        given = words.reshape(shape) if shape else words[3]
        raw = backend.asarray(np.asarray(given), dtype=DType.bfloat16)
        assert backend.shape(raw) == shape
        for target in sorted(FLOATS & backend.dtypes - {DType.float16, DType.bfloat16}):
            wide = backend.cast(raw, dtype=target)
            assert backend.is_array(wide) and backend.dtype(wide) is target
            expected = (
                (np.asarray(given).astype(np.uint32) << 16).astype(np.uint32).view(np.float32)
            )
            np.testing.assert_array_equal(backend.to_numpy(wide), expected)


def test_bfloat16_keeps_nan(backend: Backend) -> None:
    if DType.bfloat16 not in backend.dtypes | backend.storage_dtypes:
        pytest.skip(f"{backend} has no bfloat16")
    odd = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    half = backend.cast(backend.asarray(odd, dtype=DType.float32), dtype=DType.bfloat16)
    assert np.isnan(backend.to_numpy(backend.cast(half, dtype=DType.float32))).all()
    one = backend.full(shape=(2,), value=1.0, dtype=DType.bfloat16)
    assert backend.to_numpy(one).tolist() == [0x3F80, 0x3F80]


# ---- what the tables do not say ----------------------------------------------------------


def test_integers_wrap(backend: Backend) -> None:
    for dtype in sorted(INTEGERS & backend.dtypes - {DType.int64}):
        top = np.iinfo(str(dtype)).max
        given = np.array([top, top, 1], str(dtype))
        others: list[tuple[str, Any, Any]] = [
            ("add", np.add, 1),
            ("mul", np.multiply, 3),
            ("sub", np.subtract, np.array([2, 5, 9], str(dtype))),
        ]
        for name, numpy, other in others:
            out = call(backend, name, [given, other], {})
            np.testing.assert_array_equal(
                out, numpy(given.astype(np.int64), other).astype(str(dtype))
            )
        total = call(backend, "sum", [given], {"axis": (0,), "keepdims": False})
        assert total == np.int64(2 * int(top) + 1).astype(str(dtype))


def test_half_sums_and_products_accumulate_in_float32(backend: Backend) -> None:
    if DType.float16 not in backend.dtypes:
        pytest.skip(f"{backend} has no float16")
    many = np.ones((2, 5000), np.float16)
    total = call(backend, "sum", [many], {"axis": (1,), "keepdims": False})
    product = call(backend, "matmul", [many, many.T.copy()], {})
    assert total.tolist() == [5000, 5000]  # in float16, 2048 + 1 is 2048
    assert product.tolist() == [[5000, 5000], [5000, 5000]]


def test_float32_products_are_true_float32(backend: Backend) -> None:
    x = np.array(
        [[1 + 2**-13, 2.0]], np.float32
    )  # ten bits of fraction, as in TF32, lose the 2**-13
    y = np.array([[1.0], [0.0]], np.float32)
    assert call(backend, "matmul", [x, y], {}).item() == 1 + 2**-13


def test_zero_times_and_minus_zero(backend: Backend) -> None:
    zeros = call(backend, "neg", [np.array([0.0, -0.0])], {})
    assert np.signbit(zeros).tolist() == [True, False]
    assert np.isnan(call(backend, "mul", [np.array([np.inf]), 0.0], {})).all()


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("index", [None, DType.int32, DType.int64])
def test_write_changes_nothing_else(backend: Backend, start: int, index: DType | None) -> None:
    buffer, slab = np.arange(10.0).reshape(2, 5), np.array([[-1.0, -2, -3], [-4, -5, -6]])
    at = start if index is None else backend.asarray(np.array(start), dtype=index)
    raw = backend.asarray(slab, dtype=DType.float64)
    out = backend.write(backend.asarray(buffer, dtype=DType.float64), raw, at, axis=1)
    expected = buffer.copy()
    expected[:, start : start + 3] = slab
    np.testing.assert_array_equal(backend.to_numpy(out), expected)
    np.testing.assert_array_equal(backend.to_numpy(raw), slab)


def test_write_into_a_repeated_row_repeats_nothing(backend: Backend) -> None:
    row = backend.broadcast_to(backend.asarray(np.zeros((1, 3)), dtype=DType.float64), shape=(2, 3))
    slab = backend.asarray(np.ones((1, 3)), dtype=DType.float64)
    out = backend.to_numpy(backend.write(row, slab, 1, axis=0))
    assert out.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_the_same_input_gives_the_same_bits(backend: Backend) -> None:
    if not backend.deterministic:
        pytest.skip(f"{backend} does not promise it")
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    where = rng.integers(0, 8, 64)
    for _ in range(3):
        runs = [
            (
                call(backend, "matmul", [x, y], {}),
                call(backend, "sum", [x], {"axis": (0, 1), "keepdims": False}),
                call(backend, "scatter_add", [y[:8].copy(), where, x], {"axis": 0}),
            )
            for _ in range(2)
        ]
        for first, second in zip(*runs, strict=True):
            np.testing.assert_array_equal(first, second)
