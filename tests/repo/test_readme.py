"""What the documents say is so: commands run, examples give what they say, names and links lead
somewhere."""

from __future__ import annotations

import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from source_tree import ROOT, members_of

from tfx.cli.main import COMMANDS
from tfx.core.installed import COMMANDS as ENTRY_POINTS
from tfx.core.plugins import PluginHost

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def block(mark: str) -> str:
    """What stands in README.md in the fence right below the comment `<!-- mark -->`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(found)


TRAIN = block("command: train").rpartition("&& ")[2].strip()
TOUR = [TRAIN, *block("commands: tour").splitlines()]
GPT2 = block("commands: gpt2").splitlines()
BACKEND = [line for line in block("commands: backend").splitlines() if line.startswith("tfx ")]
WITHOUT_NETWORK = [line for line in GPT2 if line.split()[2] == "gpt2-tiny"]


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TFX_")}
    return subprocess.run(
        command,
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def backend_of(words: list[str]) -> str | None:
    return words[words.index("--backend") + 1] if "--backend" in words else None


@pytest.mark.parametrize("line", TOUR + GPT2 + BACKEND)
def test_every_command_is_one_that_tfx_takes(line: str) -> None:
    program, name, *arguments = shlex.split(line.partition(" < ")[0], comments=True)
    assert program == "tfx"
    assert name in COMMANDS
    command = typer.main.get_command(import_module(f"tfx.cli.{name}").app)
    with command.make_context(name, arguments):
        pass  # an unknown option or a bad value has raised


@pytest.mark.parametrize("line", [block("command: train"), block("command: test")])
def test_each_set_up_is_one_line(line: str) -> None:
    assert line.count("\n") == 1
    assert line.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install -e ")


@pytest.mark.slow
def test_the_tour_can_be_taken(tmp_path: Path) -> None:
    host = PluginHost()
    shutil.copy(ROOT / "README.md", tmp_path)
    for line in TOUR + WITHOUT_NETWORK:
        words = shlex.split(line, comments=True)
        wanted = backend_of(words)
        if wanted and not host.probe(wanted).ready:
            words[words.index("--backend") + 1] = "numpy"
        done = run([sys.executable, "-m", *words], tmp_path, TFX_OFFLINE="1", TFX_DATA_DIR="none")
        assert done.returncode == 0, (line, done.stderr)


@pytest.mark.slow
def test_training_prints_what_is_shown(tmp_path: Path, shared_data: Path) -> None:
    command = [sys.executable, "-m", *shlex.split(TRAIN)]
    done = run(command, tmp_path, TFX_OFFLINE="1", TFX_DATA_DIR=str(shared_data))
    assert (done.stdout, done.returncode) == (block("output: train"), 0), done.stderr


def test_the_small_gpt2_writes_what_is_shown(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", *shlex.split(GPT2[0], comments=True)], tmp_path)
    assert (done.stdout, done.returncode) == (block("output: gpt2"), 0), done.stderr


def test_the_example_prints_what_its_comments_say(tmp_path: Path) -> None:
    code = block("python")
    said = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    done = run([sys.executable, "-c", code], tmp_path)
    assert done.stdout.splitlines() == said, done.stderr
    assert said


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    local = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


def spans(document: Path) -> list[str]:
    """What stands in backquotes, outside of fences."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(document: Path) -> None:
    tops = {path.name for path in ROOT.iterdir()} - {"runs"}  # where commands leave theirs
    named = [s for s in spans(document) if "/" in s and re.fullmatch(r"[\w./-]+", s)]
    missing = [s for s in named if s.split("/")[0] in tops and not (ROOT / s).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_that_are_named_exist(document: Path) -> None:
    named = [s for s in spans(document) if re.fullmatch(r"tfx(\.\w+)+", s)]
    assert [name for name in named if not leads_somewhere(name)] == []


def leads_somewhere(name: str) -> bool:
    """Whether `tfx.core.tensor.Tensor` is there, or only out of reach without its array library."""
    if name == ENTRY_POINTS:
        return True
    try:
        pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        return error.name in members_of("tfx.backends")
    except AttributeError:
        return False
    return True
