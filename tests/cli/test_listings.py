"""`tfx backends`, `tfx models`, `tfx plugins`: what is installed, in text and in JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROKEN = {
    "METADATA": "Metadata-Version: 2.1\nName: tfx-broken\nVersion: 0.3\n",
    "entry_points.txt": "[tfx]\nbroken = tfx_broken_module_that_is_not_there\n",
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Install the distribution tfx-sick with a plugin of this code."""
    folder = tmp_path / "more"
    imports = "from tfx.core.hookspecs import hookimpl\nfrom tfx.core.specs import *\n"

    def add(code: str) -> None:
        info = folder / "tfx_sick-0.3.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tfx-sick\nVersion: 0.3\n")
        (info / "entry_points.txt").write_text("[tfx]\nsick = tfx_sick\n")
        (folder / "tfx_sick.py").write_text(imports + code)
        monkeypatch.syspath_prepend(str(folder))

    yield add
    sys.modules.pop("tfx_sick", None)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more distribution, whose plugin cannot be imported."""
    info = tmp_path / "more" / "tfx_broken-0.3.dist-info"
    info.mkdir(parents=True)
    for name, content in BROKEN.items():
        (info / name).write_text(content)
    monkeypatch.syspath_prepend(str(info.parent))


def test_backends_in_text(invoke: Any) -> None:
    done = invoke("backends")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "BACKEND  DEVICES  LIBRARY     FROM          STATUS",
        "absent   -        -           tfx-fake 1.0  not installed: pip install absent",
        "chip     0, 1     chipware 7  tfx-fake 1.0  ready",
        "dead     -        deadware 1  tfx-fake 1.0  not ready: no device found",
    ]


def test_backends_in_json(invoke: Any) -> None:
    listed = {b["name"]: b for b in json.loads(invoke("backends", "--json").stdout)["backends"]}
    assert listed["chip"] == {
        "name": "chip",
        "ready": True,
        "installed": True,
        "reason": None,
        "cure": None,
        "warning": None,
        "devices": ["0", "1"],
        "library": "chipware 7",
        "distribution": "tfx-fake",
        "version": "1.0",
        "summary": "two chips that compute nothing",
        "install_hint": None,
        "kernels": [],
    }
    assert [(b["ready"], b["installed"]) for b in listed.values()] == [
        (False, False),
        (True, True),
        (False, True),
    ]


def test_models(invoke: Any) -> None:
    assert invoke("models").stdout.splitlines() == [
        "MODEL  FROM          SUMMARY",
        "echo   tfx-fake 1.0  says what it was given",
    ]
    assert json.loads(invoke("models", "--json").stdout) == {
        "models": [
            {
                "name": "echo",
                "summary": "says what it was given",
                "distribution": "tfx-fake",
                "version": "1.0",
            }
        ]
    }


def test_plugins_name_the_fault_and_the_cure(invoke: Any, broken: None) -> None:
    done = invoke("plugins")
    assert done.exit_code == 0
    table, *faults = done.stdout.split("\n\n")
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert rows["fake"].split(maxsplit=4) == [
        "fake",
        "tfx-fake",
        "1.0",
        "ok",
        "chip, absent, dead, echo",
    ]
    assert "broken" in rows["broken"]
    (fault,) = [fault for fault in faults if fault.startswith("broken (tfx-broken 0.3): ")]
    assert "tfx_broken_module_that_is_not_there" in fault
    assert "pip uninstall tfx-broken" in fault


def test_plugins_in_json(invoke: Any, broken: None) -> None:
    listed = {p["name"]: p for p in json.loads(invoke("plugins", "--json").stdout)["plugins"]}
    assert listed["fake"]["offers"] == ["chip", "absent", "dead", "echo"]
    assert listed["fake"]["fault"] is None
    assert listed["broken"]["status"] == "broken"
    assert "pip uninstall tfx-broken" in listed["broken"]["cure"]
    assert listed["numpy"]["status"] == "disabled"


def test_kernels_are_listed_with_where_they_come_from(
    invoke: Any, install: Callable[[str], None]
) -> None:
    kernel = "KernelSpec('chip', 'softmax', 'a:b', 'in one pass')"
    install(f"@hookimpl\ndef tfx_kernels(): return [{kernel}]")
    said = invoke("backends").stdout
    assert said.split("\n\n")[1].splitlines() == [
        "KERNEL        FROM          SUMMARY",
        "chip:softmax  tfx-sick 0.3  in one pass",
    ]
    listed = {b["name"]: b for b in json.loads(invoke("backends", "--json").stdout)["backends"]}
    assert listed["chip"]["kernels"] == [{"op": "softmax", "distribution": "tfx-sick"}]
    assert listed["dead"]["kernels"] == []
    assert "chip:softmax" in invoke("plugins").stdout


SICK = {
    "missing dependency": "import acme_arrays",
    "raising hook": "@hookimpl\ndef tfx_backends(): raise RuntimeError('boom')",
    "misspelled hook": "@hookimpl\ndef tfx_backend(): return []",
    "duplicate backend": "@hookimpl\ndef tfx_backends(): return [BackendSpec('chip', 'a:b', '')]",
    "duplicate model": "@hookimpl\ndef tfx_models(): return [ModelSpec('echo', 'a:b', '')]",
    "too new": "@hookimpl\ndef tfx_backends(): return [BackendSpec('new', 'a:b', '', api=2)]",
}
"""Plugins at fault, each in its own way."""

TASKS = ["train", "run", "eval"]
COMMANDS = ["--version", "--help", "backends", "models", "plugins", "doctor"]


@pytest.mark.parametrize("code", SICK.values(), ids=SICK.keys())
def test_a_plugin_at_fault_leaves_every_command_working(
    invoke: Any, install: Callable[[str], None], code: str
) -> None:
    install(code)
    for args in [*([command] for command in COMMANDS), *([task, "echo"] for task in TASKS)]:
        sys.modules.pop("tfx_sick", None)  # each command stands for a process
        done = invoke(*args)
        assert "Traceback" not in done.output
        if args == ["doctor"]:
            assert "problems     plugin 'sick' of tfx-sick 0.3: " in done.stdout
            assert done.exit_code == 1
        else:
            assert done.exit_code == 0, (args, done.output)
        if args == ["plugins"]:
            fault = done.stdout.split("\n\n")[-1]
            assert fault.startswith("sick (tfx-sick 0.3): ")
            assert "pip " in fault


def test_a_kernel_at_fault_leaves_its_backend_working(
    invoke: Any, install: Callable[[str], None]
) -> None:
    kernel = "KernelSpec('chip', 'softmax', 'tfx_sick:SOFTMAX', '')"
    install(f"@hookimpl\ndef tfx_kernels(): return [{kernel}]")
    for task in TASKS:
        done = invoke(task, "echo")
        assert done.exit_code == 0
        (said,) = [line for line in done.stderr.splitlines() if line.startswith("kernel ")]
        assert said.startswith("kernel 'chip:softmax' of tfx-sick 0.3 cannot be loaded (Attrib")
