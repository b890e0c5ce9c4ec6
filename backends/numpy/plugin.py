"""The numpy backend, as a plugin offers it: what can be said without importing numpy."""

import runpy
from importlib.util import find_spec
from pathlib import Path

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec, Probe


@hookimpl
def tfx_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="numpy",
            target="tfx.backends.numpy.backend:NumpyBackend",
            summary="NumPy on the CPU; always there",
            probe="tfx.backends.numpy.plugin:probe",
            priority=10,
        )
    ]


def probe() -> Probe:
    """numpy runs wherever tfx is installed; it is imported by those who compute."""
    found = find_spec("numpy")
    if found is None or found.origin is None:
        return Probe(ready=False, installed=False)
    build = runpy.run_path(str(Path(found.origin).with_name("version.py")))
    return Probe(ready=True, version=f"numpy {build['version']}")
