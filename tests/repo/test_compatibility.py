"""`docs/compatibility.md` names tests that exist, and nothing of transformers' GPT-2 is missing."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from source_tree import ROOT

PAGE = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
TESTS = re.findall(r"`((?:[a-z_0-9]+/)+test_\w+\.py)::(\w+)`", PAGE)
NAMED = set(re.findall(r"`([A-Za-z_0-9]+)`", PAGE))


@cache
def functions_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def missing(named: list[tuple[str, str]]) -> list[str]:
    """Those of the tests, by file and name, that are not there."""
    files = [(ROOT / "tests" / file, test) for file, test in named]
    return [
        f"{file}::{test}"
        for file, test in files
        if not file.is_file() or test not in functions_in(file)
    ]


def test_every_test_that_is_named_exists() -> None:
    assert len(TESTS) > 100
    assert missing(TESTS) == []
    [(file, _), *_] = TESTS
    assert len(missing([(file, "test_of_nothing"), ("core/test_nothing.py", "test")])) == 2


def test_every_row_has_a_test_or_says_that_there_is_nothing() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    for row in rows:
        shown = len(row) == 3 and "::test_" in row[2]
        assert shown or row[1] == "tfx" or row[1].startswith("none"), row


def of_transformers() -> Iterator[tuple[str, set[str]]]:
    """What there is of each kind."""
    transformers: Any = pytest.importorskip("transformers")
    gpt2 = transformers.models.gpt2.modeling_gpt2
    yield "classes", set(gpt2.__all__)
    for name in gpt2.__all__:
        forward = inspect.signature(getattr(gpt2, name).forward).parameters
        yield f"arguments of {name}", set(forward) - {"self", "kwargs", "input"}
    yield "keys of GPT2Config", set(transformers.GPT2Config().to_dict())
    options = set(transformers.GenerationConfig().to_dict())
    yield "options of generate()", {name for name in options if not name.startswith("_")}


def test_nothing_of_transformers_is_left_out() -> None:
    left_out = {kind: sorted(names - NAMED) for kind, names in of_transformers()}
    assert {kind: names for kind, names in left_out.items() if names} == {}
