"""Nests of tensors: a tensor, or dicts, lists and tuples of nests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfx.core.tensor import Tensor


def leaves(nest: Any) -> list[Tensor]:
    """The tensors of a nest, dicts in their own order."""
    if isinstance(nest, Tensor):
        return [nest]
    if isinstance(nest, Mapping):
        return [leaf for part in nest.values() for leaf in leaves(part)]
    if isinstance(nest, list | tuple):
        return [leaf for part in nest for leaf in leaves(part)]
    raise _no_nest(nest)


def like(nest: Any, values: Iterator[Any]) -> Any:
    """A nest of the same form with other values at its leaves; mappings become dicts."""
    if isinstance(nest, Tensor):
        return next(values)
    if isinstance(nest, Mapping):
        return {name: like(part, values) for name, part in nest.items()}
    if isinstance(nest, list | tuple):
        parts = [like(part, values) for part in nest]
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    raise _no_nest(nest)


def map_leaves(function: Callable[[Tensor], Any], nest: Any) -> Any:
    """`function` of every tensor of a nest, in a nest of the same form."""
    return like(nest, iter([function(leaf) for leaf in leaves(nest)]))


def _no_nest(found: Any) -> TypeError:
    return TypeError(f"expected tensors in dicts, lists and tuples, found {type(found).__name__}")
