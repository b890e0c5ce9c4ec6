"""What tfx is told when it lists its plugins; nothing else is imported for that."""

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec


@hookimpl
def tfx_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="loops",
            target="tfx_loops.backend:LoopsBackend",
            summary="plain Python loops: slow, and every step in view",
            api=1,
            priority=-10,  # `auto` takes anything else first
        )
    ]
