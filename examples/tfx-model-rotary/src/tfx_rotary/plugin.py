"""What tfx is told when it lists its plugins; nothing else is imported for that."""

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import ModelSpec


@hookimpl
def tfx_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="rotary",
            target="tfx_rotary.recipe:Rotary",
            summary="characters by rotary attention, RMSNorm and SwiGLU: LLaMA in small",
            api=1,
        )
    ]
