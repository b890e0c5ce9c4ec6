"""Memory that is used again: never while somebody still looks at it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tfx.core import host_memory
from tfx.core.host_memory import LARGE, SPARE, empty


@pytest.fixture(autouse=True)
def nothing_free(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    free: list[Any] = []
    monkeypatch.setattr(host_memory, "_free", free)
    return free


def address(x: Any) -> int:
    return int(x.__array_interface__["data"][0])


def test_an_array_is_as_asked_for() -> None:
    for shape in [(), (0,), (3, 2), (1 << 10, 1 << 11), (LARGE,)]:
        for dtype in (np.float32, np.float64, np.int64, np.bool_):
            x = empty(shape, dtype)
            assert (x.shape, x.dtype) == (shape, np.dtype(dtype))
            assert x.flags.writeable and x.flags.c_contiguous
            x.fill(1)
            assert (x == 1).all()


def test_memory_is_used_again_once_the_last_view_is_gone() -> None:
    x = empty((LARGE,), np.uint8)
    where = address(x)
    part = x.reshape(2, -1)[1:].view(np.float32)[..., ::2]
    del x
    other = empty((LARGE,), np.uint8)
    assert address(other) != where
    part.fill(3)
    other.fill(0)
    assert (part == 3).all()
    del part
    assert address(empty((LARGE // 8,), np.float64)) == where


def test_torch_holds_it_too() -> None:
    torch = pytest.importorskip("torch")
    x = empty((LARGE,), np.float32)
    where = address(x)
    half = torch.from_numpy(x)[LARGE // 2 :]
    del x
    assert address(empty((LARGE,), np.float32)) != where
    del half
    assert address(empty((LARGE,), np.float32)) == where


def test_what_is_kept_is_of_one_size(nothing_free: list[Any]) -> None:
    arrays = [empty((LARGE,), np.uint8) for _ in range(3)]
    del arrays
    assert len(nothing_free) == 3
    empty((2 * LARGE,), np.uint8)
    assert [len(x) for x in nothing_free] == [2 * LARGE]


def test_threads_do_not_share() -> None:
    failures: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            x = empty((LARGE,), np.uint8)
            x[:: LARGE // 64] = number
            if not (x[:: LARGE // 64] == number).all():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_no_more_is_kept_than_a_step_needs(nothing_free: list[Any]) -> None:
    arrays = [empty((LARGE,), np.uint8) for _ in range(SPARE + 3)]
    del arrays
    assert len(nothing_free) == SPARE
