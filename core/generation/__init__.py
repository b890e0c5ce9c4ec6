"""Text from any causal model: greedy, by chance, or by beam search."""

from tfx.core.generation.causal import Cache, CausalModel
from tfx.core.generation.generate import Text, Token, generate, stream
from tfx.core.generation.options import GenerationOptions
from tfx.core.generation.stopping import settled

__all__ = [
    "Cache",
    "CausalModel",
    "GenerationOptions",
    "Text",
    "Token",
    "generate",
    "settled",
    "stream",
]
