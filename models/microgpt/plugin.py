"""microGPT, as a plugin offers it."""

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import ModelSpec


@hookimpl
def tfx_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="microgpt",
            target="tfx.models.microgpt.recipe:MicroGPT",
            summary="Karpathy's microGPT: learns names from a list of them",
        )
    ]
