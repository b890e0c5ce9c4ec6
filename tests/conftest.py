"""What all tests share: the backends that can run here, and the folder of optional data."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

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
    """The backend called `name`; skips the test, saying why, where it cannot run."""
    if name == "strict":
        return StrictBackend()
    (spec,) = import_module(PLUGINS[name]).tfx_backends()
    probe: Probe = import_target(spec.probe)() if spec.probe else Probe(ready=True)
    if not probe.ready:
        pytest.skip(f"backend {name}: {probe.reason or 'not ready'}")
    backend: Backend = import_target(spec.target)(None)
    return backend


@pytest.fixture(scope="session", params=[*PLUGINS, "strict"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend that is ready on this machine, and the strict one."""
    return open_or_skip(request.param)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Optional test data: `$TFX_TEST_DATA`, else `../shared/data` beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TFX_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; TFX_TEST_DATA names the folder")
    return folder
