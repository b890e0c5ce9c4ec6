"""The cupy backend, as a plugin offers it: what can be said without importing cupy."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec, Probe

_DISTRIBUTIONS = ("cupy-cuda12x", "cupy-cuda13x", "cupy-cuda11x", "cupy")


@hookimpl
def tfx_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="cupy",
            target="tfx.backends.cupy.backend:CupyBackend",
            summary="CuPy on a CUDA device",
            probe="tfx.backends.cupy.plugin:probe",
            install_hint="pip install 'tfx-lm[cupy]' (CUDA 12) or 'tfx-lm[cupy13]' (CUDA 13)",
            priority=30,
        )
    ]


def probe() -> Probe:
    """cupy runs where a driver has a device for it; it is imported only where there is a driver."""
    if find_spec("cupy") is None:
        return Probe(ready=False, installed=False)
    devices: tuple[str, ...] = ()
    reason = _why_unusable()
    if reason is None:
        devices, reason = _devices()
    return Probe(ready=bool(devices), devices=devices, version=_version(), reason=reason)


def _why_unusable() -> str | None:
    """What CuPy needs and does not find on this machine, in one clause."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "no CUDA driver found"
    try:
        from cupy.cuda import cublas, nvrtc  # noqa: F401 (the import of cublas loads the library)

        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        return f"a library of the CUDA toolkit is missing ({_one_line(error)})"
    return None


def _devices() -> tuple[tuple[str, ...], str | None]:
    """Every device by its number, or none and the reason."""
    from cupy.cuda import runtime

    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return (), _one_line(error)
    return tuple(map(str, range(count))), None if count else "the CUDA driver finds no device"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _version() -> str | None:
    """The distribution that brought CuPy, of the several there are, and its version."""
    for name in _DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return None
