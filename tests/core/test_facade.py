"""`import tfx`: nothing is imported before it is used, and everything promised is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import tfx
from tfx.core.dtypes import DType


def test_importing_tfx_imports_nothing_of_it() -> None:
    code = "import sys, tfx; print(*(m for m in sys.modules if m.startswith(('tfx', 'numpy'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["tfx"]


@pytest.mark.parametrize("name", tfx.HOMES)
def test_every_name_leads_somewhere(name: str) -> None:
    value = getattr(tfx, name)
    assert tfx.__dict__[name] is value  # so that it is looked up once
    assert name in dir(tfx)


@pytest.mark.parametrize("dtype", DType)
def test_every_dtype_has_a_name(dtype: DType) -> None:
    assert getattr(tfx, dtype) is dtype


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(tfx.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    told = set()
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            told |= {alias.asname for alias in node.names}
        elif isinstance(node, ast.Assign):
            told |= {ast.unparse(target) for target in node.targets}
    assert told == set(tfx.HOMES)


def test_the_version_is_that_of_the_distribution() -> None:
    assert tfx.__version__ == version("tfx-lm")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tfx' has no attribute 'Tensr'"):
        tfx.Tensr  # noqa: B018
