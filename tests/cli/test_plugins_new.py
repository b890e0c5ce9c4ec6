"""`tfx plugins new`: a project that is whole, installs as it is, and owes just the primitives."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import pytest
from installing import forget

from tfx.cli import scaffold
from tfx.core.backend import PRIMITIVES, Backend
from tfx.core.errors import MissingPrimitive
from tfx.core.plugins import PluginHost
from tfx.core.resolve import open_backend
from tfx.core.specs import API

FILES = [
    "README.md",
    "pyproject.toml",
    "src/tfx_acme/__init__.py",
    "src/tfx_acme/backend.py",
    "src/tfx_acme/plugin.py",
    "tests/test_conformance.py",
]


@pytest.fixture
def written(invoke: Any, tmp_path: Path) -> Path:
    """The folder that `tfx plugins new acme` makes where it is called."""
    done = invoke("plugins", "new", "acme")
    assert done.exit_code == 0, done.stderr
    return tmp_path / "tfx-acme"


def tree(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_it_holds_all_that_a_package_needs(written: Path) -> None:
    assert tree(written) == FILES
    assert "$" not in "".join((written / file).read_text() for file in FILES)


def test_it_says_what_to_do_next(invoke: Any) -> None:
    done = invoke("plugins", "new", "acme", "--out", "my work")
    assert done.stdout.splitlines() == [
        "my work: 6 files, among them a backend to fill in. Next:",
        "  pip install -e 'my work[test]'",
        "  tfx backends                # lists acme",
        "  tfx conformance acme        # says what is missing, and what is wrong",
    ]


# ---- the project, installed ----------------------------------------------------------------------


@pytest.fixture
def installed(written: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginHost]:
    """A host that sees the project alone, as an editable install would show it."""
    project = tomllib.loads((written / "pyproject.toml").read_text())["project"]
    source = written / "src"
    info = source / "tfx_acme-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}\n" for name, value in project["entry-points"]["tfx"].items()]
    (info / "entry_points.txt").write_text("[tfx]\n" + "".join(lines))
    monkeypatch.syspath_prepend(str(source))
    yield PluginHost(distributions(path=[str(source)]), {})
    forget(source)


def test_it_is_listed_as_ready_before_a_line_is_written(installed: PluginHost) -> None:
    (plugin,) = installed.plugins()
    assert (plugin.name, plugin.distribution, plugin.status) == ("acme", "tfx-acme", "ok")
    assert plugin.offers == ("acme",)
    assert installed.probe("acme").ready
    assert installed.backends()["acme"].spec.api == API


def test_its_backend_opens(installed: PluginHost) -> None:
    backend = open_backend(installed, "acme").backend
    assert str(backend) == "acme"
    assert type(backend).__name__ == "AcmeBackend"
    assert "api" in vars(type(backend))  # that of tfx would rise with tfx
    assert backend.api == API


def required() -> list[str]:
    return [name for name in ("is_array", "dtype", *PRIMITIVES) if name != "random_bits"]


def test_every_primitive_is_a_stub_that_says_what_it_owes(installed: PluginHost) -> None:
    backend = open_backend(installed, "acme").backend
    stubs = vars(type(backend))
    assert [name for name in stubs if hasattr(Backend, name) and callable(stubs[name])] == [
        "__init__",
        *required(),
    ]
    for name in required():
        ours, theirs = getattr(Backend, name), stubs[name]
        assert inspect.signature(theirs) == inspect.signature(ours)
        assert inspect.getdoc(theirs) == inspect.getdoc(ours)
        message = f"backend 'acme' does not implement {name!r} yet; `tfx conformance acme` lists"
        with pytest.raises(MissingPrimitive, match=message):
            call(getattr(backend, name))


def call(method: Callable[..., Any]) -> None:
    """Call it with what its signature asks for."""
    parameters = inspect.signature(method).parameters.values()
    named = [p for p in parameters if p.kind != p.VAR_POSITIONAL]
    method(**{p.name: None for p in named})


def test_a_run_on_it_ends_with_a_line_that_says_what_is_left(
    invoke: Any, installed: PluginHost
) -> None:
    done = invoke("run", "gpt2-tiny", "x", "-b", "acme", env={"TFX_DISABLE_PLUGINS": ""})
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("tfx: backend 'acme' does not implement '")


def test_stubs_stand_under_the_headings_of_the_interface(written: Path) -> None:
    def headings(source: str) -> list[str]:
        return [line for line in source.splitlines() if line.startswith("    # ----")]

    theirs = headings((written / "src/tfx_acme/backend.py").read_text())
    ours = headings(inspect.getsource(Backend))
    assert theirs[:-1] == ours[: len(theirs) - 1]
    assert {heading.split()[2].strip(":") for heading in theirs} >= set(PRIMITIVES.values()) - {
        "random"
    }


def test_what_it_says_of_capabilities_is_what_it_has(installed: PluginHost) -> None:
    declared = vars(type(open_backend(installed, "acme").backend))
    for name in ("storage_dtypes", "index_dtype", "deterministic", "device_random"):
        assert declared[name] == getattr(Backend, name)
    assert declared["native_autograd"] is False
    assert declared["index_dtype"] in declared["dtypes"]


def test_its_plugin_module_imports_no_array_library(installed: PluginHost) -> None:
    code = "import sys; before = set(sys.modules); import tfx_acme.plugin; print(*sys.modules)"
    path = next(p for p in sys.path if p.endswith("src") and "tfx-acme" in p)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"numpy", "tfx.core.backend"} & set(done.stdout.split())


def test_filled_in_it_computes(installed: PluginHost) -> None:
    """What a stub owes is enough: with NumPy's bodies in their place, tensors compute and learn."""
    import numpy as np

    import tfx
    from tfx.backends.numpy.backend import NumpyBackend

    source = NumpyBackend()
    kind = type(open_backend(installed, "acme").backend)
    for name in required():
        body: Callable[..., Any] = getattr(source, name)
        setattr(kind, name, staticmethod(body))
    backend = open_backend(installed, "acme").backend
    x = tfx.tensor([[1.0, 2.0], [3.0, 4.0]], backend=backend, requires_grad=True)
    (x @ x).sum().backward()
    assert x.backend.name == "acme"
    assert x.grad is not None
    ones = np.ones((2, 2))
    value = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(x.grad.numpy(), ones @ value.T + value.T @ ones)


def test_ruff_has_nothing_to_say(written: Path) -> None:
    ruff = shutil.which("ruff", path=os.path.dirname(sys.executable)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run([ruff, *command, "."], cwd=written, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(".py")])
def test_it_compiles(written: Path, file: str) -> None:
    compile((written / file).read_text(), file, "exec")


def test_every_link_of_its_readme_leads_somewhere(written: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (written / "README.md").read_text())
    assert len(links) >= 4
    assert [link for link in links if not (written / link).exists()] == []


# ---- names and folders ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder", "module", "kind"),
    [
        ("acme-x", "tfx-acme-x", "tfx_acme_x", "AcmeXBackend"),
        ("my_lib2", "tfx-my-lib2", "tfx_my_lib2", "MyLib2Backend"),
        ("class", "tfx-class", "tfx_class", "ClassBackend"),
    ],
)
def test_one_name_makes_the_others(
    invoke: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    folder: str,
    module: str,
    kind: str,
) -> None:
    assert invoke("plugins", "new", name).exit_code == 0
    source = tmp_path / folder / "src"
    monkeypatch.syspath_prepend(str(source))
    (spec,) = import_module(f"{module}.plugin").tfx_backends()
    assert (spec.name, spec.target) == (name, f"{module}.backend:{kind}")
    assert getattr(import_module(f"{module}.backend"), kind).name == name
    project = tomllib.loads((tmp_path / folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == folder
    assert project["entry-points"]["tfx"] == {name: f"{module}.plugin"}
    forget(source)


@pytest.mark.parametrize(
    "name", ["Acme", "acme.x", "acme:0", "3d", "-acme", "acme-", "", "ac me", "auto", "../x", "é"]
)
def test_a_name_that_will_not_do(invoke: Any, tmp_path: Path, name: str) -> None:
    done = invoke("plugins", "new", "--", name)
    assert done.exit_code == 2
    assert done.stderr == (
        f"tfx: {name!r} cannot be the name of a backend and of a Python package; "
        "expected lower case letters, digits, '-' and '_', as in 'acme', a letter first\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "owner"),
    [("chip", "tfx-fake 1.0"), ("fake", "tfx-fake 1.0"), ("numpy", f"tfx-lm {version('tfx-lm')}")],
)
def test_a_name_that_is_taken(invoke: Any, tmp_path: Path, name: str, owner: str) -> None:
    done = invoke("plugins", "new", name)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"tfx: the name {name!r} is taken: {owner} has it; choose another\n"
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_folder_is_left_alone(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "tfx-acme").mkdir()
    (tmp_path / "tfx-acme/mine.txt").write_text("mine")
    done = invoke("plugins", "new", "acme")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "tfx: tfx-acme is not empty; choose another folder with --out\n"
    assert tree(tmp_path) == ["tfx-acme/mine.txt"]


def test_a_file_of_that_name(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    done = invoke("plugins", "new", "acme", "--out", "taken")
    assert (done.exit_code, done.stderr) == (1, "tfx: cannot write taken: Not a directory\n")
    assert tree(tmp_path) == ["taken"]


@pytest.mark.parametrize("out", [".", "deep/er", "empty"])
def test_a_folder_that_is_empty_or_new(invoke: Any, tmp_path: Path, out: str) -> None:
    (tmp_path / "empty").mkdir()
    if out == ".":
        (tmp_path / "empty").rmdir()
    before = tmp_path.stat().st_ino
    assert invoke("plugins", "new", "acme", "--out", out).exit_code == 0
    assert tree(tmp_path / out) == FILES
    assert tmp_path.stat().st_ino == before  # a shell that stands there still does
    assert not list(tmp_path.rglob(".*"))


def test_nothing_is_left_when_it_cannot_be_written(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = scaffold.replace_file

    def full(path: Path, chunks: Any) -> None:
        if path.name == "plugin.py":
            raise OSError(28, "No space left on device")
        write(path, chunks)

    monkeypatch.setattr(scaffold, "replace_file", full)
    done = invoke("plugins", "new", "acme")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "tfx: cannot write tfx-acme: No space left on device\n"
    assert list(tmp_path.iterdir()) == []


# ---- beside the list of plugins ------------------------------------------------------------------


def test_the_list_is_still_there(invoke: Any) -> None:
    assert invoke("plugins").stdout.startswith("PLUGIN")
    assert invoke("plugins", "--json").stdout.startswith("{")


def test_json_is_for_the_list(invoke: Any, tmp_path: Path) -> None:
    done = invoke("plugins", "--json", "new", "acme")
    assert done.exit_code == 2
    assert done.stderr == "tfx: --json is for the list of plugins; leave it out\n"
    assert list(tmp_path.iterdir()) == []


def test_a_typo(invoke: Any) -> None:
    done = invoke("plugins", "nwe", "acme")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "tfx: No such command 'nwe'. Did you mean 'new'?",
        "Try 'tfx plugins --help' for help.",
    ]
