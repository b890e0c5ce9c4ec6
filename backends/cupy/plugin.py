"""The cupy backend, as a plugin offers it: what can be said without importing cupy."""

from __future__ import annotations

from importlib.util import find_spec

from tfx.backends.cupy.machine import (
    device_numbers,
    driver_cuda,
    installed,
    one_of,
    unusable,
    wheel_for,
)
from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec, Probe


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
        cuda = driver_cuda()
        cure = f"pip install '{wheel_for(cuda)}'" if cuda else None
        return Probe(ready=False, installed=False, cure=cure)
    packages = installed()
    version = ", ".join(packages.values()) or None
    fault = unusable(packages)
    if fault is not None:
        return Probe(ready=False, version=version, reason=fault.reason, cure=fault.cure)
    warning = None
    if len(packages) > 1:
        warning = f"{len(packages)} CuPy packages lie over each other; {one_of(packages)}"
    return Probe(ready=True, devices=device_numbers(), version=version, warning=warning)
