"""The backends that live here, opened for a test or skipped with a reason."""

from __future__ import annotations

from importlib import import_module

import pytest

from tfx.core.backend import Backend
from tfx.core.plugins import import_target
from tfx.core.specs import Probe
from tfx.testing import StrictBackend

PLUGINS = {
    "numpy": "tfx.backends.numpy.plugin",
    "torch": "tfx.backends.torch.plugin",
    "cupy": "tfx.backends.cupy.plugin",
}
"""The backends that live here, and where each says what it needs."""


def open_or_skip(name: str) -> Backend:
    """The backend called `name`, or numpy's with the kernels by `numba`; skips the test where it
    cannot run, saying why."""
    if name == "strict":
        return StrictBackend()
    if name == "numba":
        pytest.importorskip("numba", reason="numba is not installed")
        specs = import_module("tfx.backends.numba.plugin").tfx_kernels()
        numpy = open_or_skip("numpy")
        numpy.fused.update({spec.op: import_target(spec.target) for spec in specs})
        return numpy
    (spec,) = import_module(PLUGINS[name]).tfx_backends()
    probe: Probe = import_target(spec.probe)() if spec.probe else Probe(ready=True)
    if not probe.ready:
        pytest.skip(f"backend {name}: {probe.reason or 'not ready'}")
    backend: Backend = import_target(spec.target)(None)
    return backend
