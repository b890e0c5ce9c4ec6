"""The most memory that this process has had so far, on the host and on a device."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

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
