"""The most memory that this process has had so far, on the host and on a device; and what to say
when there is no more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tfx.core.errors import OutOfMemory, TfxError

if TYPE_CHECKING:
    from tfx.core.backend import Backend

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_memory(backend: Backend | None = None) -> dict[str, int | None]:
    """As results have it under `"memory"`, in bytes; None where there is none, or nobody knows.

    `peak_host_bytes` counts all that was resident at once: weights read from a mapped file as far
    as they were read, and the libraries themselves. `peak_device_bytes` is what the library of
    `backend` has taken from a device with memory of its own.

    >>> peak_memory()["peak_device_bytes"] is None
    True
    """
    device = None if backend is None else backend.peak_memory()
    return {"peak_host_bytes": peak_resident(), "peak_device_bytes": device}


@contextmanager
def memory_watched(backend: Backend) -> Iterator[None]:
    """Inside, an error of whatever kind by which `backend` has no room for an array becomes an
    `OutOfMemory` that says how much was asked for and how much there is.

    >>> from tfx.backends.numpy.backend import NumpyBackend
    >>> with memory_watched(NumpyBackend()):
    ...     raise MemoryError("Unable to allocate 8 TiB")
    Traceback (most recent call last):
    tfx.core.errors.OutOfMemory: out of memory on numpy: Unable to allocate 8 TiB
    """
    try:
        yield
    except TfxError:
        raise
    except Exception as error:
        shortage = backend.out_of_memory(error)
        if shortage is None:
            raise
        raise OutOfMemory(f"out of memory on {backend}: {shortage}") from error


def peak_resident() -> int | None:
    """The most bytes of the host's memory that were this process's at once; None on Windows."""
    with suppress(OSError):  # asked first: Linux's getrusage counts what became Python, too
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_peak() -> bool:
    """Begin anew with what is resident now; whether that could be done, as it can on Linux."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True
