"""What a GPT-2 is made of: the parameters of each part, and the FLOPs of its products.

A product of (T, A) and (A, B) takes 2 T A B floating-point operations: a multiplication and an
addition for each of T A B terms. That is all that is counted: biases, norms, activations and
softmax are about a hundredth of it for a model of usual width, and embeddings are looked up.
Attention counts all T * T scores, those that no token may see among them, as appendix B of PaLM
(Chowdhery et al. 2022, arXiv:2204.02311) and torch's counter do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tfx.core.explanation import Part
from tfx.models.gpt2.model import Config


def sizes_of(config: Config, tokens: int) -> dict[str, int]:
    """What the letters of the formulas stand for. W, the width of a layer's heads together, is
    left out where heads were pruned, as it may be another in each layer."""
    sizes = {
        "T": tokens,
        "C": config.n_embd,
        "W": config.n_embd,
        "F": config.inner,
        "V": config.vocab_size,
    }
    if config.pruned_heads:
        del sizes["W"]
    return sizes


def parts_of(config: Config, tokens: int) -> tuple[Part, ...]:
    """Every part in the order of a pass over so many tokens; a tied head has no parameters.

    >>> parts = parts_of(Config(n_layer=1), 1)
    >>> [part.name for part in parts]  # doctest: +NORMALIZE_WHITESPACE
    ['wte', 'wpe', 'ln_1', 'attn.c_attn', 'attn', 'attn.c_proj', 'ln_2', 'mlp.c_fc', 'mlp.c_proj',
     'ln_f', 'lm_head']
    """
    return tuple(_parts(config, tokens))


def _parts(config: Config, t: int) -> Iterator[Part]:
    c, f, v = config.n_embd, config.inner, config.vocab_size
    yield Part("wte", None, _count(config, "wte"), 0)
    yield Part("wpe", None, _count(config, "wpe"), 0)
    for i in range(config.n_layer):
        w = config.width(i)
        for name, flops, formula in (
            ("ln_1", 0, ""),
            ("attn.c_attn", 2 * t * c * 3 * w, "2 T C 3W"),
            ("attn", 2 * 2 * t * t * w, "2 T T W + 2 T T W"),
            ("attn.c_proj", 2 * t * w * c, "2 T W C"),
            ("ln_2", 0, ""),
            ("mlp.c_fc", 2 * t * c * f, "2 T C F"),
            ("mlp.c_proj", 2 * t * f * c, "2 T F C"),
        ):
            yield Part(name, i, _count(config, f"h.{i}.{name}"), flops, formula)
    yield Part("ln_f", None, _count(config, "ln_f"), 0)
    yield Part("lm_head", None, _count(config, "lm_head"), 2 * t * c * v, "2 T C V")


def _count(config: Config, part: str) -> int:
    """How many parameters are called `part.weight` and `part.bias`."""
    shapes = config.shapes()
    names = (f"{part}.weight", f"{part}.bias")
    return sum(math.prod(shapes[name]) for name in names if name in shapes)
