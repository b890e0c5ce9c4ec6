"""Text from any causal model: greedy, by chance, or by beam search."""

from tfx.core.generation.causal import Cache, CausalModel, Rewinding, Verifying
from tfx.core.generation.generate import (
    Text,
    Token,
    check_prompt,
    generate,
    room_after,
    stream,
)
from tfx.core.generation.logits import Logprob
from tfx.core.generation.options import GenerationOptions
from tfx.core.generation.showing import Growing, Turns, decoder
from tfx.core.generation.speculation import Speculation
from tfx.core.generation.stopping import settled

__all__ = [
    "Cache",
    "CausalModel",
    "GenerationOptions",
    "Growing",
    "Logprob",
    "Rewinding",
    "Speculation",
    "Text",
    "Token",
    "Turns",
    "Verifying",
    "check_prompt",
    "decoder",
    "generate",
    "room_after",
    "settled",
    "stream",
]
