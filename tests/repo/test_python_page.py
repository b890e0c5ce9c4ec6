"""The examples in docs/python.md give what they say."""

from __future__ import annotations

import doctest

from source_tree import ROOT


def test_the_examples_give_what_they_say() -> None:
    page = str(ROOT / "docs" / "python.md")
    results = doctest.testfile(page, module_relative=False, encoding="utf-8")
    assert results.attempted > 8
    assert results.failed == 0
