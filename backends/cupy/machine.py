"""What this machine has of what CuPy needs: a package, a driver, the toolkit's libraries, a device.

Whatever is missing is told with its cure. CuPy is imported only where there is a driver.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from importlib import metadata
from typing import NamedTuple

from tfx.core.wording import one_line

PACKAGES = (
    "cupy-cuda12x",
    "cupy-cuda13x",
    "cupy-cuda11x",
    "cupy",
    "cupy-rocm-7-0",
    "cupy-rocm-7-1",
)
"""The distributions that bring the module `cupy`, of which one may be installed."""

_EXTRAS = {12: "tfx-lm[cupy]", 13: "tfx-lm[cupy13]"}
"""What to install for the CUDA of a driver."""

_DRIVERS = {12: "525", 13: "580"}
"""The oldest driver for each CUDA.

Source: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
"""


class Fault(NamedTuple):
    """Why CuPy cannot be used here, and what to do about it: a clause each."""

    reason: str
    cure: str


def installed() -> dict[str, str]:
    """The packages that brought CuPy, each by name and with its version."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = f"{name} {metadata.version(name)}"
    return found


def driver_cuda() -> int | None:
    """The CUDA that the driver is for, 12 of 12.4; None without a driver. Imports no CuPy."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    with suppress(AttributeError):
        library.cuDriverGetVersion(ctypes.byref(number))
    return number.value // 1000 or None


def wheel_for(cuda: int) -> str:
    """What to install where the driver is for `cuda`."""
    return _EXTRAS.get(cuda, _EXTRAS[max(_EXTRAS) if cuda > max(_EXTRAS) else min(_EXTRAS)])


def one_of(packages: Collection[str]) -> str:
    """The cure for several packages over each other: removing one takes files of the other."""
    keep = wheel_for(driver_cuda() or max(_EXTRAS))
    return f"pip uninstall -y {' '.join(packages)}, then pip install '{keep}'"


def device_numbers() -> tuple[str, ...]:
    """Every device, once `unusable` found nothing."""
    from cupy.cuda import runtime

    return tuple(map(str, range(runtime.getDeviceCount())))


def unusable(packages: Mapping[str, str]) -> Fault | None:
    """The first thing that CuPy lacks on this machine; None where it can be used."""
    driver = driver_cuda()
    if driver is None:
        return Fault(
            "no CUDA driver found",
            "install NVIDIA's driver, or start the container with its GPUs (--gpus all)",
        )
    try:
        from cupy.cuda import driver as api
        from cupy.cuda import runtime

        built_for = api.get_build_version() // 1000
    except Exception as error:
        return Fault(f"CuPy cannot be imported ({one_line(error)})", _reinstalling(packages))
    return (
        _old_driver(driver, built_for, packages)
        or _missing_part(built_for, packages)
        or _no_device(runtime)
    )


def _reinstalling(packages: Collection[str]) -> str:
    if len(packages) == 1:
        return f"pip install --force-reinstall {' '.join(packages)}"
    return one_of(packages or PACKAGES[:2])


def _old_driver(driver: int, built_for: int, packages: Collection[str]) -> Fault | None:
    """CuPy for CUDA 13 runs on any driver for CUDA 13 or later, but on no earlier one."""
    if driver >= built_for:
        return None
    newer = f"upgrade NVIDIA's driver to {_DRIVERS.get(built_for, 'a newer one')} or later"
    other = (
        f", or: pip uninstall -y {' '.join(packages)}, then pip install '{_EXTRAS[driver]}'"
        if driver in _EXTRAS and packages
        else ""
    )
    return Fault(
        f"the driver is for CUDA {driver}, and this CuPy for CUDA {built_for}", newer + other
    )


def _missing_part(built_for: int, packages: Collection[str]) -> Fault | None:
    """NVRTC compiles every kernel of CuPy's, with headers of CUDA's, and cuBLAS multiplies; they
    come with the toolkit."""
    wheels = [name for name in packages if name.startswith("cupy-cuda")]
    cure = (
        f"pip install '{wheels[0]}[ctk]'"
        if len(wheels) == 1
        else f"install the CUDA {built_for} toolkit, and set CUDA_PATH to its folder"
    )
    try:
        from cupy.cuda import cublas, nvrtc  # noqa: F401 (the import of cublas loads the library)

        compiler = nvrtc.getVersion()[0]
    except (ImportError, RuntimeError) as error:
        return Fault(f"a library of the CUDA toolkit is missing ({one_line(error)})", cure)
    if compiler != built_for:
        return Fault(f"NVRTC here is of CUDA {compiler}, and this CuPy for CUDA {built_for}", cure)
    return None if _has_headers() else Fault("the headers of the CUDA toolkit are missing", cure)


def _has_headers() -> bool:
    """Whether CuPy finds `cuda_fp16.h` and the like: CuPy 14 looks where this does, and compiles
    nothing without. An earlier one, which brings headers of its own, has no `cuda.pathfinder`."""
    try:
        from cuda.pathfinder import find_nvidia_header_directory
    except ImportError:
        return True
    return find_nvidia_header_directory("cudart") is not None


def _no_device(runtime: object) -> Fault | None:
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    cure = (
        "see what nvidia-smi lists"
        if seen is None
        else f"CUDA_VISIBLE_DEVICES={seen!r} hides those that are not in it; unset it"
    )
    try:
        count = runtime.getDeviceCount()  # type: ignore[attr-defined]
    except Exception as error:
        return Fault(f"the CUDA driver gives no device ({one_line(error)})", cure)
    return None if count else Fault("the CUDA driver finds no device", cure)
