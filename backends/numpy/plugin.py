"""The numpy backend, as a plugin offers it."""

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec


@hookimpl
def tfx_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="numpy",
            target="tfx.backends.numpy.backend:NumpyBackend",
            summary="NumPy on the CPU; always there",
            priority=10,
        )
    ]
