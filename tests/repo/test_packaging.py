"""What is installed is what lies in the tree: no package forgotten, nothing of the tests along."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import PROJECT, ROOT, TOPS, modules, packages

SETUPTOOLS = PROJECT["tool"]["setuptools"]


def test_every_package_of_the_tree_is_listed() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages())


def test_packages_come_from_four_folders() -> None:
    folders = {folder.relative_to(ROOT).parts[0] for folder in packages().values()}
    assert folders == {"core", "backends", "models", "cli"}


def test_every_package_has_an_init_file() -> None:
    assert [
        name for name, folder in packages().items() if not (folder / "__init__.py").exists()
    ] == []


def test_every_data_file_of_the_tree_is_listed() -> None:
    listed = {
        packages()[package] / name
        for package, names in SETUPTOOLS["package-data"].items()
        for name in names
    }
    assert listed == set(_data_files())


def test_every_plugin_module_is_an_entry_point() -> None:
    written = [name for name in modules() if name.endswith(".plugin")]
    assert sorted(PROJECT["project"]["entry-points"]["tfx"].values()) == sorted(written)


def test_the_installed_entry_points_are_those_of_the_tree() -> None:
    """An editable install keeps the entry points of the day it was made."""
    installed = {
        e.name: e.value for e in entry_points(group="tfx") if e.dist and e.dist.name == "tfx-lm"
    }
    assert installed == PROJECT["project"]["entry-points"]["tfx"], "reinstall: pip install -e ."


@pytest.mark.installed
def test_importing_tfx_imports_nothing_that_had_to_be_installed() -> None:
    code = "import sys; before = set(sys.modules); import tfx; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    assert tops - sys.stdlib_module_names == {"tfx"}


# ---- the versions of constraints.txt -----------------------------------------------------------


def _requirements() -> list[Requirement]:
    project = PROJECT["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    parsed = [Requirement(text) for text in (*project["dependencies"], *extras)]
    return [requirement for requirement in parsed if requirement.name != project["name"]]


@pytest.mark.parametrize("requirement", _requirements(), ids=str)
def test_every_requirement_is_pinned_within_its_range(requirement: Requirement) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])


# ---- the wheel ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in the wheel, but for its metadata, built from a copy of the tree."""
    if find_spec("pip") is None:
        pytest.skip("no pip in this environment to build a wheel with")
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("core", "backends", "models", "cli", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*_cache", "*.pyc"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(copy), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (built,) = copy.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    return [name for name in names if not re.match(r"[^/]+\.dist-info/", name)]


@pytest.mark.slow
def test_the_wheel_holds_the_modules_and_their_data_and_nothing_else(wheel: list[str]) -> None:
    homes = {folder: package.replace(".", "/") for package, folder in packages().items()}
    expected = []
    for file in chain.from_iterable(top.rglob("*") for top in set(TOPS.values())):
        if file.is_file() and file.parent.name != "__pycache__":
            home = next(folder for folder in file.parents if folder in homes)
            expected.append(f"{homes[home]}/{file.relative_to(home)}")
    expected = sorted(set(expected))  # one top lies in another
    assert sorted(wheel) == expected


def _data_files() -> Iterator[Path]:
    """What lies in the packages, and in folders of theirs, beside Python files."""
    for folder in set(TOPS.values()):
        for file in folder.rglob("*"):
            if file.suffix != ".py" and file.is_file() and file.parent.name != "__pycache__":
                yield file
