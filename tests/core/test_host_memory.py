"""Memory that is used again: never while somebody still looks at it."""

from __future__ import annotations

import subprocess
import sys
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


def test_what_is_kept_can_be_given_back(nothing_free: list[Any]) -> None:
    x = empty((LARGE,), np.uint8)
    del x
    assert len(nothing_free) == 1
    host_memory.give_back()
    assert not nothing_free


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


# ---- all that is allocated -----------------------------------------------------------------------

ROUNDS = """
import resource
import numpy as np
from tfx.core.host_memory import retained

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in (70, 40):
        np.ones(size << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

print(faults(), faults(), resident())
with retained():
    with retained():
        print(faults(), faults(), resident())
    print(faults(), faults(), resident())
print(faults(), faults(), resident())
"""


def rounds(**variables: str) -> list[tuple[int, int, int]]:
    """Page faults of two rounds, and what is resident after them in kB: before, inside two, inside
    one, afterwards."""
    pytest.importorskip("resource")
    environment = {"NUMPY_MADVISE_HUGEPAGE": "0", "PYTHONPATH": ":".join(sys.path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS], capture_output=True, text=True, check=True, env=environment
    )
    lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    return [(first, second, kept) for first, second, kept in lines]


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's C library")
def test_pages_are_touched_once_and_given_back_in_the_end() -> None:
    if host_memory._glibc() is None:
        pytest.skip("not glibc, or set up by the user")
    before, inside, still, after = rounds()
    assert before[1] > 10_000  # of 4 kB: everything anew
    assert inside[1] < before[1] / 20 and still[0] < before[1] / 20
    assert inside[2] > before[2] + 50_000
    assert after[1] > before[1] / 2
    assert after[2] < before[2] + 20_000


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's C library")
def test_an_allocator_that_the_user_set_up_stays_as_it_is() -> None:
    before, inside, _, _ = rounds(MALLOC_MMAP_MAX_="65536")
    assert inside[1] > before[1] / 2
