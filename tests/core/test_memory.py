"""Peak memory: what the system says, and what it says when asked in another way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import memory
from tfx.core.memory import forget_peak, peak_memory, peak_resident

MB = 10**6
linux = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")


def test_what_was_in_use_at_once_counts_when_it_is_gone() -> None:
    code = """
from tfx.core.memory import peak_resident
print(peak_resident())
held = b"x" * 100_000_000
print(peak_resident())
del held
print(peak_resident())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, held, after = map(int, done.stdout.split())
    assert held == pytest.approx(before + 100 * MB, abs=10 * MB)
    assert after == pytest.approx(held, abs=5 * MB)


@linux
def test_the_system_s_other_answer_is_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    one = peak_resident()
    monkeypatch.setattr(memory, "_STATUS", Path("/no such file"))
    other = peak_resident()
    assert one and other and other > 0.9 * one
    monkeypatch.setattr(sys, "platform", "darwin")  # where the unit is a byte
    in_bytes = peak_resident()
    assert in_bytes and in_bytes * 1024 == pytest.approx(other, rel=0.05)


def test_nothing_is_claimed_where_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", Path("/no such file"))
    monkeypatch.setattr(memory, "_CLEAR", Path("/no such folder/file"))
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_resident() is None
    assert not forget_peak()
    assert peak_memory(NumpyBackend()) == {"peak_host_bytes": None, "peak_device_bytes": None}


@linux
def test_a_peak_can_be_forgotten() -> None:
    touched = np.ones(200 * MB, np.uint8)
    del touched
    before = peak_resident()
    if not forget_peak():
        pytest.skip("this system lets nobody reset it")
    after = peak_resident()
    assert before and after and after < before - 100 * MB


def test_a_device_s_memory_is_what_its_backend_says() -> None:
    class OnDevice(NumpyBackend):
        def peak_memory(self) -> int | None:
            return 5 * MB

    assert peak_memory(OnDevice())["peak_device_bytes"] == 5 * MB
