"""The numpy backend, as a plugin offers it."""

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
    import numpy as np

    return Probe(ready=True, version=f"numpy {np.__version__}")
