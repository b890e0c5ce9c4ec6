"""What to lower on a command line when memory ran out."""

from __future__ import annotations

from typing import Any

from tfx.core.wording import in_words

_SMALLER = {
    "batch_size": "a smaller --batch-size",
    "checkpoint_activations": "--checkpoint-activations",
    "set_": "a smaller --set block_size",
    "stride": "a smaller --stride",
    "prompt_tokens": "fewer --prompt-tokens",
    "max_new_tokens": "fewer --max-new-tokens",
    "num_beams": "fewer --num-beams",
    "quantize": "--quantize int8",
    "kv_dtype": "--kv-dtype float16",
}
"""What takes less memory, by the option it is asked for with."""

_ONCE = {"checkpoint_activations", "quantize", "kv_dtype"}
"""Options that are no advice to somebody who has given them."""

_IF_GIVEN = {"num_beams", "stride"}
"""Options that cost nothing at their defaults."""


def lighter(ctx: Any) -> str | None:
    """What to try with the command that was called; None where it has nothing to lower."""
    given, own = ctx.params, {option.name for option in ctx.command.params}
    useful = [
        advice
        for name, advice in _SMALLER.items()
        if name in own
        and not (name in _ONCE and given[name])
        and not (name in _IF_GIVEN and not given[name])
        and not (name == "batch_size" and "jsonl" in own and not given["jsonl"])
    ]
    return f"it takes less with {in_words(useful)}, where the model has that" if useful else None
