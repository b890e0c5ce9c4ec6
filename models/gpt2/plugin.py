"""GPT-2 in its sizes, as a plugin offers them."""

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import ModelSpec

_SUMMARIES = {
    "gpt2-tiny": "GPT-2 of 0.9 million parameters, comes with tfx: writes like Shakespeare",
    "distilgpt2": "GPT-2 distilled by Hugging Face: 82 million parameters",
    "gpt2": "OpenAI's GPT-2: 124 million parameters",
    "gpt2-medium": "OpenAI's GPT-2: 355 million parameters",
    "gpt2-large": "OpenAI's GPT-2: 774 million parameters",
    "gpt2-xl": "OpenAI's GPT-2: 1.6 billion parameters",
}


@hookimpl
def tfx_models() -> list[ModelSpec]:
    return [
        ModelSpec(name, f"tfx.models.gpt2.recipe:{name.replace('-', '_')}", summary)
        for name, summary in _SUMMARIES.items()
    ]
