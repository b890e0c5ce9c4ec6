"""What is asked for by flags, and the tensors that come of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.errors import DTypeError, UsageError, WeightsError
from tfx.core.quantization import Rounding
from tfx.core.quantized import Half, Quantized
from tfx.core.recipe import RunSettings
from tfx.core.storage import Storage, bytes_of, placed
from tfx.core.tensor import Tensor
from tfx.core.weights import StoredTensor
from tfx.testing import StrictBackend

NUMBERS = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)


def asked(**given: Any) -> Storage | None:
    return Storage.asked(RunSettings(**given))


@pytest.mark.parametrize(
    ("given", "storage", "words"),
    [
        ({"quantize": "int8"}, Storage("int8", "int8"), "int8 in groups of 64"),
        (
            {"quantize": "int4", "group_size": 32},
            Storage("int4", "int8", 32),
            "int4 in groups of 32, embeddings int8",
        ),
        (
            {"quantize": "int4", "quantize_embeddings": "int4"},
            Storage("int4", "int4"),
            "int4 in groups of 64",
        ),
        (
            {"quantize": "bfloat16", "quantize_embeddings": "none"},
            Storage("bfloat16", "none"),
            "bfloat16, embeddings as they are",
        ),
    ],
)
def test_what_was_asked_for(given: Any, storage: Storage, words: str) -> None:
    assert asked(**given) == storage
    assert str(storage) == words
    assert asked() is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantize": "int5"}, "--quantize int5: expected one of int8, int4, float16, bfloat16"),
        (
            {"quantize": "int8", "quantize_embeddings": "half"},
            "--quantize-embeddings half: expected one of int8, int4, float16, bfloat16, none",
        ),
        ({"group_size": 8}, "--group-size says how to quantize; add --quantize int8 or int4"),
        ({"quantize_embeddings": "int8"}, "--quantize-embeddings says how to quantize"),
        (
            {"quantize": "float16", "group_size": 8},
            "--group-size is for int8 and int4; float16 has no groups",
        ),
    ],
)
def test_flags_that_do_not_go_together(given: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(**given)
    assert str(caught.value).startswith(message)


def test_forms() -> None:
    mixed = Storage("int4", "int8", 16, DType.float32)
    assert mixed.form("w", 32, embedding=False) == Rounding(4, 16, DType.float32)
    assert mixed.form("w", 32, embedding=True) == Rounding(8, 16, DType.float32)
    halves = Storage("float16", "none")
    assert halves.form("w", 7, embedding=False) is DType.float16
    assert halves.form("w", 7, embedding=True) is None


@pytest.mark.parametrize(
    ("storage", "row", "message"),
    [
        (Storage("int8", "int8"), 96, "rows of 96 numbers in 'w' do not fall into groups of so"),
        (Storage("int8", "int8"), 96, "so many; choose 32"),
        (Storage("int4", "int8", 3), 9, "groups of even length of so many; do not quantize it"),
        (Storage("int8", "int8"), 7, "do not quantize it"),
    ],
)
def test_groups_that_do_not_fit(storage: Storage, row: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        storage.form("w", row, embedding=False)
    assert str(caught.value).startswith(f"group size {storage.group_size}: the rows of {row}")
    assert message in str(caught.value)


@pytest.mark.parametrize("form", [Rounding(8, 8), Rounding(4, 8), DType.float16, DType.bfloat16])
@pytest.mark.parametrize("inputs_first", [False, True])
def test_placed(backend: Backend, form: Any, inputs_first: bool) -> None:
    given = NUMBERS.T if inputs_first else NUMBERS
    stored = StoredTensor(DType.float32, given)
    w = placed("w", stored, form, backend, DType.float32, inputs_first=inputs_first)
    plain = placed("w", stored, None, backend, DType.float32)
    assert (w.shape, w.dtype, plain.dtype) == (given.shape, "float32", "float32")
    assert type(plain) is Tensor
    np.testing.assert_array_equal(plain.numpy(), given)
    bits = {Rounding(8, 8): 8, Rounding(4, 8): 4}.get(form, 16)
    scales = 0 if bits == 16 else 4 * 64 // 8
    assert bytes_of([w]) == 64 * bits // 8 + scales
    assert isinstance(w, Half if bits == 16 else Quantized)
    near = np.abs(given).max() * {4: 0.1, 8: 0.005, 16: 0.005}[bits]
    np.testing.assert_allclose(w.numpy(), given, atol=near)
    assert bytes_of([plain, stored]) == 2 * 256


def test_what_is_computed_in_needs_no_other_form(backend: Backend) -> None:
    if "float16" not in backend.dtypes:
        pytest.skip("float16 is not among its dtypes")
    stored = StoredTensor(DType.float32, NUMBERS)
    w = placed("w", stored, DType.float16, backend, DType.float16)
    assert type(w) is Tensor and w.dtype == "float16"


def test_a_number_that_halves_do_not_have() -> None:
    stored = StoredTensor(DType.float32, np.array([[1e6]], np.float32))
    with pytest.raises(WeightsError, match=r"up to 1e\+06, too large for float16; choose a wider"):
        placed("w", stored, DType.float16, StrictBackend(), DType.float32)


def test_a_backend_without_bytes() -> None:
    class Narrow(StrictBackend):
        dtypes = StrictBackend.dtypes - {DType.int8}

    stored = StoredTensor(DType.float32, NUMBERS)
    with pytest.raises(DTypeError, match="has no int8"):
        placed("w", stored, Rounding(8, 8), Narrow(), DType.float32)
