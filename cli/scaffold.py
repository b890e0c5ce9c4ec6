"""The files of a new plugin: a backend of stubs, with what holds it to the contract."""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

from tfx.core.backend import REQUIRED, Backend
from tfx.core.errors import TfxError, UsageError
from tfx.core.files import (
    make_folder,
    reason,
    replace_file,
    shown,
    sync_folder,
    unfinished_folder,
)
from tfx.core.specs import API

TEMPLATES = Path(__file__).parent / "templates"

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "src/$module/__init__.py": "__init__.py",
    "src/$module/plugin.py": "plugin.py",
    "src/$module/backend.py": "backend.py",
    "tests/test_conformance.py": "test_conformance.py",
}
"""What a project holds, and the template of each."""


def distribution_of(name: str) -> str:
    """What `pip` calls the plugin that brings the backend `name`.

    >>> distribution_of("acme_x")
    'tfx-acme-x'

    Raises:
        UsageError: nothing that a distribution, a module, a class and a backend can all be called.
    """
    if name == "auto" or not re.fullmatch(r"[a-z]([a-z0-9_-]*[a-z0-9])?", name):
        raise UsageError(
            f"{name!r} cannot be the name of a backend and of a Python package; "
            "expected lower case letters, digits, '-' and '_', as in 'acme', a letter first"
        )
    return f"tfx-{name.replace('_', '-')}"


def project(name: str) -> dict[str, str]:
    """The text of every file of the plugin for the backend `name`, by its path."""
    stubs = list(_stubs())
    words = {
        "name": name,
        "distribution": distribution_of(name),
        "module": f"tfx_{name.replace('-', '_')}",
        "backend": "".join(map(str.capitalize, re.split("[-_]", name))) + "Backend",
        "api": API,
        "stubs": "\n\n".join(stubs),
        "count": len(stubs),
    }
    return {
        Template(path).substitute(words): Template(
            (TEMPLATES / f"{template}.in").read_text(encoding="utf-8")
        ).substitute(words)
        for path, template in FILES.items()
    }


def write_project(files: Mapping[str, str], folder: Path) -> None:
    """Write files to a folder that is new, or empty: all of them or none.

    Raises:
        TfxError: the folder is not empty, or it cannot be written.
    """
    absolute = Path(os.path.abspath(folder))
    try:
        if os.path.lexists(folder) and any(absolute.iterdir()):
            raise TfxError(f"{shown(folder)} is not empty; choose another folder with --out")
        with unfinished_folder(absolute) as hidden:
            for path, text in files.items():
                make_folder((hidden / path).parent)
                replace_file(hidden / path, [text.encode()])
            _move(hidden, absolute)
    except (OSError, ValueError) as error:
        raise TfxError(f"cannot write {shown(folder)}: {reason(error)}") from error


def _move(source: Path, target: Path) -> None:
    """Rename a folder, or what is in it: an empty one may be where the user's shell stands."""
    if not target.exists():
        os.rename(source, target)
    else:
        for entry in source.iterdir():
            os.rename(entry, target / entry.name)
        sync_folder(target)
    sync_folder(target.parent)


def _stubs() -> Iterator[str]:
    """What `Backend` leaves to the library, as it stands there, under its headings."""
    lines = inspect.getsource(Backend).splitlines()
    (interface,) = ast.parse("\n".join(lines)).body
    above: list[str] = []
    end = 0
    for method in (node for node in ast.walk(interface) if isinstance(node, ast.FunctionDef)):
        start = method.lineno - 1
        above += [f"{line}\n" for line in lines[end:start] if "# ----" in line]
        end = method.body[-1].lineno
        if method.name in REQUIRED:
            yield "\n".join([*above, *lines[start:end]])
            above = []
