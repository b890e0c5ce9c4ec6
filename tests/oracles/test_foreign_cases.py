"""The judge of foreign cases, and the file of what is unmapped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from foreign_cases import (
    Listing,
    Unmapped,
    assert_listed,
    assert_same,
    call,
    imported,
    judge,
    read,
    summary,
    told,
)

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.tensor import Tensor

B = NumpyBackend()


@dataclass
class Given:
    """A case that does whatever it is given."""

    name: str
    check: Callable[[Backend], None]
    dtypes: tuple[str, ...] = ("float32",)


def one(dtype: str = "float32", value: float = 1.0) -> Tensor:
    return imported(np.array([value]), dtype, B)


def lacking(backend: Backend) -> None:
    raise Unmapped("nothing of the kind")


def test_what_a_case_comes_to() -> None:
    score = judge(
        [
            Given("right", lambda B: assert_same(one(), np.ones(1), "float32")),
            Given("wrong", lambda B: assert_same(one(), np.full(1, 1.0001), "float32")),
            Given("broken", lambda B: one().reshape(None)),  # type: ignore[arg-type]
            Given("lacking", lacking),
            Given("refused", lambda B: one("int64") / 2, ("int64",)),
            Given("not here", lambda B: one("bfloat16") + 1, ("bfloat16",)),
        ],
        B,
    )
    assert [fault.partition(":")[0] for fault in score.failed] == ["wrong", "broken"]
    assert score.unmapped == Counter(
        {"nothing of the kind": 1, "refused: div is for floats, not int64; cast first": 1}
    )
    assert summary([score]) == "1 passed, 2 failed, 2 unmapped, 1 left out for their dtype"


@pytest.mark.parametrize(
    ("value", "dtype", "shape"), [(2, "float32", (1,)), (1, "float64", (1,)), (1, "float32", ())]
)
def test_value_dtype_and_shape_count(value: float, dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        assert_same(one(), np.full(shape, value), dtype)


def test_dtypes_and_arguments_that_tfx_lacks_are_unmapped() -> None:
    with pytest.raises(Unmapped, match="dtype uint16"):
        imported(np.array([1], np.uint16), "uint16", B)
    with pytest.raises(Unmapped, match="no argument 'alpha'"):
        call(lambda x, y: x, (1, 2), {"alpha": 3})


def test_more_and_less_than_listed_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    listing: Listing = Counter({("b", "no such thing"): 2, ("a.b", "x"): 1})
    file.write_text(told(listing))
    assert file.read_text() == "a.b: x\nb: 2 cases: no such thing\n"
    assert read(file) == listing
    assert_listed(listing, file, "adapter.py")
    with pytest.raises(AssertionError, match=r"(?s)not in list.txt.*adapter.py\nb: no such thing"):
        assert_listed(listing + Counter({("b", "no such thing"): 1}), file, "adapter.py")
    with pytest.raises(AssertionError, match=r"(?s)mapped by now.*a.b: x"):
        assert_listed(listing - Counter({("a.b", "x"): 1}), file, "adapter.py")
