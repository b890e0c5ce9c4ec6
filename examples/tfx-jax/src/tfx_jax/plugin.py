"""What tfx may know of this backend without importing JAX."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec, Probe


@hookimpl
def tfx_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="jax",
            target="tfx_jax.backend:JaxBackend",
            summary="JAX on the CPU, compiled by XLA, with its own autograd",
            probe="tfx_jax.plugin:probe",
            install_hint="pip install jax",
            api=1,
        )
    ]


def probe() -> Probe:
    if find_spec("jax") is None:
        return Probe(ready=False, installed=False)
    return Probe(ready=True, version=f"jax {version('jax')}")
