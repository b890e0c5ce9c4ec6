"""The source of tfx as it lies in the repository, and the modules that are made of it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

TOPS = {
    name: ROOT / folder for name, folder in PROJECT["tool"]["setuptools"]["package-dir"].items()
}
"""Packages and the folders they lie in: `tfx` in `core/_facade`, `tfx.core` in `core`."""

SOURCES = ("core", "backends", "models", "cli", "tests", "benchmarks", "examples")
"""The folders that hold Python files."""


def packages() -> dict[str, Path]:
    """Every package and its folder: each folder below the tops with a Python file in it."""
    found = {}
    for top, folder in TOPS.items():
        others = [other for other in TOPS.values() if other != folder]
        for file in sorted(folder.rglob("*.py")):
            if not any(file.is_relative_to(other) for other in others if folder in other.parents):
                found[".".join((top, *file.parent.relative_to(folder).parts))] = file.parent
    return found


def modules() -> dict[str, Path]:
    """Every module that an installed tfx has, by its full name, and its file."""
    return {
        package if file.stem == "__init__" else f"{package}.{file.stem}": file
        for package, folder in packages().items()
        for file in sorted(folder.glob("*.py"))
    }


def members_of(package: str) -> list[str]:
    """What lies right below a package: the backends of `tfx.backends`."""
    below = [name.removeprefix(f"{package}.") for name in packages() if f"{package}." in name]
    return [name for name in below if "." not in name]


def python_files() -> list[Path]:
    """Every Python file of the repository."""
    return [file for folder in SOURCES for file in sorted((ROOT / folder).rglob("*.py"))]
