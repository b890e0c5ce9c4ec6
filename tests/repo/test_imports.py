"""Who may know whom: imports run downhill, only a backend knows which backend it is, and core and
the command line know no model by name.

The rules are checked on the syntax tree of every file, without importing any. `PLANTED` below holds
an offence against each, so that a rule that sees nothing is noticed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from source_tree import PROJECT, ROOT, members_of, modules, python_files

FLOORS = {
    "tfx.core": ("tfx.core",),
    "tfx.testing": ("tfx.core", "tfx.testing"),
    "tfx.__main__": ("tfx.cli",),
    "tfx.cli": ("tfx", "tfx.core", "tfx.testing", "tfx.cli"),
}
"""What the modules below a name may import of tfx, the module `tfx` itself by its bare name."""

for _floor in ("tfx.backends", "tfx.models"):
    for _member in members_of(_floor):
        FLOORS[f"{_floor}.{_member}"] = ("tfx.core", f"{_floor}.{_member}")

DEPENDENCIES = {re.split(r"[<>=!~ ]", text)[0] for text in PROJECT["project"]["dependencies"]}
BACKENDS = frozenset(members_of("tfx.backends"))
LIBRARIES = BACKENDS - DEPENDENCIES
"""The array libraries that only the backend of the same name may import, or call by name."""

MODEL_NAME = re.compile(
    "|".join(
        rf"\w*{re.sub(r'(?<=[a-z])(?=[0-9])', '-?', name)}(?![a-z0-9])"
        for name in members_of("tfx.models")
    ),
    re.IGNORECASE,
)
"""A model's name, also with a hyphen before its number, or as part of that of one of its sizes."""


# ---- the rules -----------------------------------------------------------------------------------


def uphill(module: str, tree: ast.AST) -> Iterator[str]:
    """Imports of tfx that the floor of `module` does not allow."""
    allowed = FLOORS[max((f for f in FLOORS if _within(module, f)), key=len, default="tfx.core")]
    for line, name in (*_imports(tree), *_import_strings(tree)):
        if _within(name, "tfx") and not _allows(allowed, name):
            yield f"line {line}: {module} must not know {name}"


def foreign(module: str, tree: ast.AST) -> Iterator[str]:
    """Imports of an array library outside its backend."""
    for line, name in _imports(tree):
        library = name.partition(".")[0]
        if library in LIBRARIES and not _within(module, f"tfx.backends.{library}"):
            yield f"line {line}: {module} must not import {library}"


def bare(tree: ast.AST) -> Iterator[str]:
    """Imports that would give a second copy of a module, or depend on where a file lies."""
    for line, name in _imports(tree):
        if name.partition(".")[0] in ("core", "backends", "models", "cli", ""):
            yield f"line {line}: write the full name, tfx. and so on, for {name}"


def partial_to_a_backend(tree: ast.AST) -> Iterator[str]:
    """Decisions by the name of a backend, and names of array libraries that nobody else may use."""
    for part in (part for node in ast.walk(tree) for part in _compared(node)):
        if any(_names_backend(text, BACKENDS) for text in _choices(part)):
            yield f"line {part.lineno}: compares with the name of a backend"
        if _asks_name(part):
            yield f"line {part.lineno}: asks which backend it is: {ast.unparse(part)}"
    for line, text in _texts(tree):
        if _names_backend(text, LIBRARIES):
            yield f"line {line}: names the backend {text!r}"


def partial_to_a_model(tree: ast.AST) -> Iterator[str]:
    """Texts that name a model: a message, or a line of the help."""
    for line, text in _texts(tree):
        if found := MODEL_NAME.search(text):
            yield f"line {line}: names the model {found[0]!r}"


# ---- what the rules look at ----------------------------------------------------------------------


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _allows(allowed: tuple[str, ...], name: str) -> bool:
    return name in allowed or any(_within(name, p) for p in allowed if p != "tfx")


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every imported name, in full; that of a relative import begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def _import_strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Texts that are import strings, such as `"tfx.core.tensor:Tensor"`, or the start of one."""
    for line, text in _texts(tree):
        if re.fullmatch(r"tfx(\.\w+)+\.?(:[\w.]+)?", text):
            yield line, text.replace(":", ".").rstrip(".")


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text but docstrings."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in told and isinstance(node.value, str):
            yield node.lineno, node.value


def _compared(node: ast.AST) -> list[ast.expr]:
    """The expressions that `node` compares with one another, or takes apart as texts."""
    match node:
        case ast.Compare():
            return [node.left, *node.comparators]
        case ast.Match():
            values = [n.value for n in ast.walk(node) if isinstance(n, ast.MatchValue)]
            return [node.subject, *values]
        case ast.Call(func=ast.Attribute(attr="startswith" | "endswith" | "get") as method):
            return [method.value, *node.args]
    return []


def _choices(node: ast.expr) -> list[str]:
    """The texts that something is compared with: one, or those of a display such as ("a", "b")."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]


def _names_backend(text: str, names: frozenset[str]) -> bool:
    return text.partition(":")[0] in names


def _asks_name(node: ast.AST) -> bool:
    """Whether it is `backend.name`, `x.backend.device`, `str(backend)` or `type(backend)`."""
    if isinstance(node, ast.Attribute) and node.attr in ("name", "device"):
        return _is_backend(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("str", "type") and any(map(_is_backend, node.args))
    if isinstance(node, ast.Attribute | ast.Call):
        return any(map(_asks_name, ast.iter_child_nodes(node)))
    return False


def _is_backend(node: ast.AST) -> bool:
    name = getattr(node, "attr", getattr(node, "id", ""))
    return name in ("B", "library") or name.endswith("backend")


# ---- the tests -----------------------------------------------------------------------------------

TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in modules().items()}
ASKS = ("tfx.backends", "tfx.testing.levels.contract")
"""Who may ask a backend for its name: itself, and the check that it has the right one."""

OUTSIDE = {n: tree for n, tree in TREES.items() if not any(_within(n, part) for part in ASKS)}


def test_imports_run_downhill() -> None:
    assert [fault for name, tree in TREES.items() for fault in uphill(name, tree)] == []


def test_only_a_backend_imports_its_library() -> None:
    assert {"torch", "cupy"} <= LIBRARIES
    assert [fault for name, tree in TREES.items() for fault in foreign(name, tree)] == []


def test_imports_are_by_full_name() -> None:
    faults = [
        f"{file.relative_to(ROOT)}, {fault}"
        for file in python_files()
        for fault in bare(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert faults == []


def test_nothing_but_a_backend_knows_which_it_is() -> None:
    faults = [
        f"{name}, {fault}" for name, tree in OUTSIDE.items() for fault in partial_to_a_backend(tree)
    ]
    assert faults == []


def test_core_and_the_command_line_know_no_model() -> None:
    faults = [
        f"{name}, {fault}"
        for name, tree in TREES.items()
        if _within(name, "tfx.core") or _within(name, "tfx.cli")
        for fault in partial_to_a_model(tree)
    ]
    assert faults == []


PLANTED = {
    "core.x": [
        "import tfx.backends.numpy.backend",
        "from tfx import cli",
        "from tfx.models.microgpt import model",
        "from tfx.testing import StrictBackend",
        "target = 'tfx.backends.numpy.backend:NumpyBackend'",
        "if TYPE_CHECKING:\n    from tfx.cli.report import emit",
        "def f():\n    import torch",
    ],
    "backends.numpy.x": ["import tfx.backends.torch.backend", "import torch", "import tfx.cli"],
    "models.microgpt.x": ["from tfx.backends import numpy", "import cupy", "import tfx"],
    "cli.x": ["import tfx.models.microgpt.recipe", "from tfx.backends.numpy.plugin import x"],
}


@pytest.mark.parametrize(
    ("module", "code"),
    [(f"tfx.{module}", code) for module, codes in PLANTED.items() for code in codes],
)
def test_an_uphill_import_is_seen(module: str, code: str) -> None:
    tree = ast.parse(code)
    assert [*uphill(module, tree), *foreign(module, tree)]


@pytest.mark.parametrize("code", ["import core", "from cli.main import app", "from . import x"])
def test_a_bare_import_is_seen(code: str) -> None:
    assert list(bare(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "if backend == 'numpy': pass",
        "if x.backend.name == wanted: pass",
        "fast = str(backend).startswith(prefix)",
        "fast = backend.name.startswith(prefix)",
        "if name in ('numpy', 'jax'): pass",
        "if spelling.startswith('numpy:'): pass",
        "if type(B) is kind: pass",
        "match name:\n    case 'numpy': pass",
        "if self.backend.device != 'cpu': pass",
        "FAST = ['torch']",
        "open_backend(host, 'torch:cuda:0')",
    ],
)
def test_a_decision_by_name_is_seen(code: str) -> None:
    assert list(partial_to_a_backend(ast.parse(code)))


@pytest.mark.parametrize(
    "text",
    ["run gpt2-tiny", "GPT-2: 0.8 by default", "distilgpt2", "microGPT", "a\ngpt2_xl"],
)
def test_the_name_of_a_model_is_seen(text: str) -> None:
    assert list(partial_to_a_model(ast.parse(f"x = f({text!r})")))
    assert list(partial_to_a_model(ast.parse(f'x = f"{{y}} {text!r}"')))


@pytest.mark.parametrize("code", ["kind = 'GPT2Tokenizer'", "'A docstring may say GPT-2.'"])
def test_what_is_no_models_name_is_let_through(code: str) -> None:
    assert list(partial_to_a_model(ast.parse(code))) == []


@pytest.mark.parametrize(
    "code",
    [
        "'''A docstring may say torch.'''",
        "if x.backend is not y.backend: pass",
        "if name == AUTO: pass",
        "versions = {'numpy': numpy.__version__}",
        "label = f'{backend.name} is ready'",
    ],
)
def test_an_innocent_line_is_let_through(code: str) -> None:
    assert list(partial_to_a_backend(ast.parse(code))) == []
