"""Nests of tensors: a tensor, dicts, lists and tuples of nests, or an object that is a `Branch`."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Protocol, Self, runtime_checkable

from tfx.core.stored import Stored
from tfx.core.tensor import Tensor


@runtime_checkable
class Branch(Protocol):
    """An object that says itself which tensors it consists of."""

    def tree_leaves(self) -> list[Tensor]:
        """Those tensors."""

    def tree_form(self) -> Hashable:
        """What tells it from others of its kind, but for tensors and their shapes."""

    def tree_like(self, values: Iterator[Any]) -> Self:
        """The same object of other values, as many as it has leaves and in their order."""


def is_nest(x: Any) -> bool:
    """Whether something is a nest, as far as can be seen from outside."""
    return isinstance(x, Tensor | Mapping | list | tuple) or _is_branch(x)


def _is_leaf(nest: Any) -> bool:
    return isinstance(nest, Tensor) and not isinstance(nest, Stored)


def _is_branch(nest: Any) -> bool:
    return hasattr(nest, "tree_leaves")  # isinstance takes microseconds with a protocol


def leaves(nest: Any) -> list[Tensor]:
    """The tensors of a nest, dicts in their own order."""
    if _is_leaf(nest):
        return [nest]
    if isinstance(nest, Mapping):
        return [leaf for part in nest.values() for leaf in leaves(part)]
    if isinstance(nest, list | tuple):
        return [leaf for part in nest for leaf in leaves(part)]
    if _is_branch(nest):
        parts: list[Tensor] = nest.tree_leaves()
        return parts
    raise _no_nest(nest)


def form(nest: Any, found: list[Tensor]) -> Any:
    """What a nest looks like but for its tensors, as something to compare, and its tensors in
    `found`. What is no nest stands for itself."""
    if _is_leaf(nest):
        found.append(nest)
        return None
    if _is_branch(nest):
        parts = nest.tree_leaves()
        found.extend(parts)
        return type(nest), len(parts), nest.tree_form()
    if isinstance(nest, list | tuple):
        return type(nest), *[form(part, found) for part in nest]
    if isinstance(nest, Mapping):
        return dict, *[(name, form(part, found)) for name, part in nest.items()]
    return type(nest), repr(nest) if isinstance(nest, float) else nest  # 0.0 equals -0.0, and 0


def like(nest: Any, values: Iterator[Any]) -> Any:
    """A nest of the same form with other values at its leaves; mappings become dicts."""
    if _is_leaf(nest):
        return next(values)
    if isinstance(nest, Mapping):
        return {name: like(part, values) for name, part in nest.items()}
    if isinstance(nest, list | tuple):
        parts = [like(part, values) for part in nest]
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    if _is_branch(nest):
        return nest.tree_like(values)
    raise _no_nest(nest)


def _no_nest(found: Any) -> TypeError:
    return TypeError(f"expected tensors in dicts, lists and tuples, found {type(found).__name__}")
