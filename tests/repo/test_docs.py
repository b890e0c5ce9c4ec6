"""What `docs/` says to those who write backends is so: the tutorial is followed to the letter, its
tables are those of the code, and the pages that are generated are up to date."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from source_tree import ROOT

from tfx.core.plugins import PluginHost
from tfx.core.specs import KernelSpec
from tfx.core.tolerances import TOLERANCES
from tfx.testing import Level, Subject, checks, run

DOCS = ROOT / "docs"
TUTORIAL = (DOCS / "backends.md").read_text(encoding="utf-8")
REPORT = (DOCS / "conformance.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fence of the tutorial: the comment above it, its language, and what is in it."""

    mark: str
    language: str
    text: str


BLOCKS = [
    Block(*found)
    for found in re.findall(
        r"(?:^<!-- ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE
    )
]


def marked(mark: str) -> str:
    """The text of the block below a comment."""
    (text,) = (block.text for block in BLOCKS if block.mark == mark)
    return text


# ---- following the tutorial ----------------------------------------------------------------------


PLUGIN, BACKEND = "src/tfx_acme/plugin.py", "src/tfx_acme/backend.py"


class Desk:
    """A folder in which somebody follows the tutorial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "tfx-acme"
        self.sources = self.project / "src"

    def follow(self, block: Block) -> None:
        """Write what a block says, or run its commands and look at what they print."""
        kind, _, path = block.mark.partition(": ")
        if block.language == "console":
            for command, shown in commands(block.text):
                assert_shows(self.run(command), shown, command)
        elif block.text == "pip install -e 'tfx-acme[test]'\n":
            self.install()
        elif kind == "file":
            (self.project / path).write_text(block.text, encoding="utf-8")
        elif kind == "backend" and block.text.startswith(" "):
            self.change(BACKEND, r"\Z", f"\n{block.text}")  # what comes last in a class counts
        elif kind == "backend":
            self.change(BACKEND, r"\n\n\n(?=class )", f"\n\n\n{block.text}\n\n")

    def change(self, file: str, old: str, new: str) -> None:
        """Put `new` in place of the pattern `old`, once."""
        path = self.project / file
        text, count = re.subn(old, lambda _: new, path.read_text(encoding="utf-8"), count=1)
        assert count == 1
        path.write_text(text, encoding="utf-8")

    def run(self, command: str) -> str:
        """What a command prints, or the error that ends it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TFX_")}
        search = os.pathsep.join([str(self.sources), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            cwd=self.folder,
            env=kept | {"PYTHONPATH": search, "TFX_OFFLINE": "1"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        return done.stdout or done.stderr

    def install(self) -> None:
        """Leave the metadata beside the package that an installer would."""
        project = tomllib.loads((self.project / "pyproject.toml").read_text())["project"]
        info = self.sources / f"tfx_acme-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = (f"{name} = {module}\n" for name, module in project["entry-points"]["tfx"].items())
        (info / "entry_points.txt").write_text("".join(["[tfx]\n", *lines]))


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console, each with the lines shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command, shown


def assert_shows(printed: str, shown: Sequence[str], command: str) -> None:
    """It printed these lines; dots stand for anything, a whole number for any."""
    wanted = "\n".join(shown)
    words = [r"\d+" if word.isdecimal() else re.escape(word) for word in wanted.split()]
    pattern = " ?".join(words).replace(re.escape("..."), ".*?")
    found = re.fullmatch(pattern, " ".join(printed.split()))
    assert found, f"$ {command}\n{printed}\n--- is not ---\n{wanted}"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.slow
def test_who_follows_the_tutorial_sees_what_it_shows(desk: Desk) -> None:
    for block in BLOCKS:
        desk.follow(block)


CHANGES = {
    "probe": (PLUGIN, r"(?s)def probe\(.*", marked("probe")),
    "older": (PLUGIN, "api=1", "api=0"),
    "newer": (PLUGIN, "api=1", "api=2"),
}


@pytest.mark.parametrize("mark", CHANGES)
def test_a_refusal_is_the_line_that_is_shown(desk: Desk, mark: str) -> None:
    desk.run("tfx plugins new acme")
    desk.change("pyproject.toml", "0.1.0", "2.1.0")
    desk.change(*CHANGES[mark])
    desk.install()
    said = desk.run("tfx run gpt2-tiny Hi --backend acme")
    assert_shows(said, [marked(f"message: {mark}")], mark)


def test_the_short_backend_passes() -> None:
    short = _defined("python: short")["ShortBackend"]
    result = run(Subject("short", short), [Level.CONTRACT, Level.VALUES])
    assert result.failures == []


def test_a_plugin_of_kernels_hands_over_what_is_shown() -> None:
    (spec,) = _defined("python: kernels")["tfx_kernels"]()
    assert isinstance(spec, KernelSpec)
    assert spec.name == "numpy:gelu"


def _defined(mark: str) -> dict[str, Any]:
    """What the code below a comment defines."""
    names: dict[str, Any] = {}
    exec(marked(mark), names)
    return names


# ---- the tables of the tutorial ------------------------------------------------------------------


def table(page: str, header: str) -> list[list[str]]:
    """The cells of the rows below a header."""
    rows = page.partition(f"{header}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_levels_mean_what_the_kit_says() -> None:
    said = table(TUTORIAL, "| level | a backend that passes it |")
    assert said == [[str(level), level.meaning] for level in Level]


def test_the_tolerances_are_those_of_the_kit() -> None:
    said = table(TUTORIAL, "| dtype | share | room for |")
    assert said == [[str(d), f"{x.bound:g}", x.reason] for d, x in TOLERANCES.items()]


# ---- what plugins may import ---------------------------------------------------------------------


PUBLIC = {
    module
    for _, listed in table(TUTORIAL, "| for | modules |")
    for module in re.findall(r"`([\w.]+)`", listed)
} | {"tfx"}

EXAMPLES = sorted((ROOT / "examples").glob("*/src/*/*.py"))


def imported_from_tfx(code: str) -> set[str]:
    """The modules of tfx that code imports, or imports names from."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            holds_modules = node.module in ("tfx", "tfx.core")
            found |= {m if holds_modules and find_spec(m) else node.module for m in inner}
    return {module for module in found if module.split(".")[0] == "tfx"}


def test_what_is_public_is_there() -> None:
    assert len(PUBLIC) > 20
    assert [module for module in PUBLIC if find_spec(module) is None] == []


def test_imports_are_found_in_whatever_way_they_are_written() -> None:
    code = (
        "import tfx.core.files as f, math\nif f:\n from tfx.core import nn\n from tfx import gelu"
    )
    assert imported_from_tfx(code) == {"tfx.core.files", "tfx.core.nn", "tfx"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_the_examples_import_what_is_public(path: Path) -> None:
    assert imported_from_tfx(path.read_text(encoding="utf-8")) - PUBLIC == set()


def test_the_tutorial_imports_what_is_public() -> None:
    code = [block.text for block in BLOCKS if block.language == "python"]
    modules = {
        m for text in code for m in re.findall(r"^ *(?:from|import) (tfx[.\w]*)", text, re.M)
    }
    assert len(modules) > 3
    assert {m for m in modules if not m.startswith("tfx_")} - PUBLIC == set()


# ---- what is generated ---------------------------------------------------------------------------


def test_the_contract_is_that_of_the_docstrings() -> None:
    script = runpy.run_path(str(DOCS / "make_contract.py"))
    written = (DOCS / "contract.md").read_text(encoding="utf-8")
    assert "\n".join(script["page"]()) == written, "python docs/make_contract.py > docs/contract.md"


COUNTS = {row[0].strip("`"): row for row in table(REPORT, "passes |")}
SKIPPED = {row[0].strip("`"): row for row in table(REPORT, "| skipped, by what it declares |")}
REGENERATE = "python docs/make_conformance.py NAME..."


def test_the_report_has_each_backend_in_both_tables() -> None:
    assert COUNTS.keys() == SKIPPED.keys() == {"numpy", "torch", "cupy", "strict", "jax", "loops"}


@pytest.mark.parametrize("name", COUNTS)
def test_a_row_of_the_report_accounts_for_every_check(name: str) -> None:
    """And so does one of a backend that is not here, of which nothing failed."""
    totals = Counter(check.level for check in checks())
    cells = COUNTS[name][2:-1]
    found = [sum(map(int, re.fullmatch(r"(\d+) \+ (\d+)", cell).groups())) for cell in cells]
    assert found == [totals[Level(i)] for i in range(len(cells))], REGENERATE
    assert COUNTS[name][-1] == "L0 to L5"
    skipped = sum(int(cell.split(" + ")[1]) for cell in cells)
    assert sum(map(int, re.findall(r": (\d+)", SKIPPED[name][1]))) == skipped, REGENERATE


QUICK = [Level.CONTRACT, Level.VALUES, Level.GRADIENTS, Level.BEHAVIOUR]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_the_report_is_what_the_kit_finds(name: str) -> None:
    probe = PluginHost().probe(name)
    if not probe.ready:
        pytest.skip(f"backend {name}: {probe.reason or 'not ready'}")
    result = run(Subject.open(name), QUICK)
    cell = runpy.run_path(str(DOCS / "make_conformance.py"))["cell"]
    found = [cell(result.counts(level)) for level in QUICK]
    assert [COUNTS[name][2 + level] for level in QUICK] == found, REGENERATE
