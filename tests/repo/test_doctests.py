"""Every example in a docstring of tfx gives what it says.

`pytest --doctest-modules` would import the files of the tree under names of their own, and so a
second copy of each class: the modules are imported here, as users do.
"""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest
from source_tree import members_of, modules

MAY_BE_MISSING = {*members_of("tfx.backends"), "llvmlite"}
"""The array libraries, after which folders of backends are named; and what Numba brings along."""


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in MAY_BE_MISSING:
            raise
        pytest.skip(f"{error.name} is not installed")
    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    """Without this, a finder that finds none would go unnoticed."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(import_module("tfx.core.shapes"))
    assert sum(len(test.examples) for test in found) >= 3
