"""A GPT-2 without some of its heads: the configuration, and what is left of its matrices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfx.core.errors import UsageError
from tfx.core.weights import StoredTensor
from tfx.models.gpt2.model import Config


class Cut(NamedTuple):
    """The places along an axis that a parameter keeps."""

    axis: int
    kept: npt.NDArray[np.int64]


def without_heads(config: Config, heads: Mapping[int, Collection[int]]) -> Config:
    """The configuration of the same model without some heads, by layer.

    >>> config = without_heads(Config(), {3: [5, 2]})
    >>> without_heads(config, {0: [11], 3: [2, 0]}).pruned_heads
    ((0, (11,)), (3, (0, 2, 5)))

    Raises:
        UsageError: there is no such layer or head, or a layer would lose all of its heads.
    """
    pruned = {layer: set(lost) for layer, lost in config.pruned_heads}
    for layer, lost in heads.items():
        if layer not in range(config.n_layer):
            raise UsageError(f"there is no layer {layer}; the model has 0 to {config.n_layer - 1}")
        if wrong := [head for head in lost if head not in range(config.n_head)]:
            raise UsageError(
                f"layer {layer} has no head {wrong[0]}; heads are 0 to {config.n_head - 1}"
            )
        pruned.setdefault(int(layer), set()).update(map(int, lost))
        if len(pruned[layer]) == config.n_head:
            raise UsageError(f"layer {layer} would have no head left; leave it at least one")
    listed = ((layer, tuple(sorted(lost))) for layer, lost in sorted(pruned.items()) if lost)
    return replace(config, pruned_heads=tuple(listed))


def cuts(before: Config, after: Config) -> dict[str, Cut]:
    """What shrinks from one configuration to the other, by the names of parameters.

    The queries, keys and values of a layer lie side by side in `c_attn`, and in each of them the
    heads; `c_proj` reads the heads side by side.
    """
    found = {}
    for layer in range(before.n_layer):
        old, new, size = before.heads(layer), after.heads(layer), before.head_size
        if old == new:
            continue
        channels = np.arange(before.width(layer)).reshape(len(old), size)
        kept = channels[[i for i, head in enumerate(old) if head in new]].reshape(-1)
        thrice = np.concatenate([kept + part * before.width(layer) for part in range(3)])
        found[f"h.{layer}.attn.c_attn.weight"] = Cut(1, thrice)
        found[f"h.{layer}.attn.c_attn.bias"] = Cut(0, thrice)
        found[f"h.{layer}.attn.c_proj.weight"] = Cut(0, kept)
    return found


def shrunk(
    tensors: Mapping[str, StoredTensor], before: Config, after: Config
) -> dict[str, StoredTensor]:
    """Stored tensors of one configuration as the other has them."""
    found = dict(tensors)
    for name, cut in cuts(before, after).items():
        kept = np.take(found[name].array, cut.kept, cut.axis)
        found[name] = StoredTensor(found[name].dtype, kept)
    return found
