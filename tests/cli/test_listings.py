"""`tfx backends`, `tfx models`, `tfx plugins`: what is installed, in text and in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BROKEN = {
    "METADATA": "Metadata-Version: 2.1\nName: tfx-broken\nVersion: 0.3\n",
    "entry_points.txt": "[tfx]\nbroken = tfx_broken_module_that_is_not_there\n",
}


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
        "devices": ["0", "1"],
        "library": "chipware 7",
        "distribution": "tfx-fake",
        "version": "1.0",
        "summary": "two chips that compute nothing",
        "install_hint": None,
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


@pytest.mark.parametrize("command", ["backends", "models", "doctor"])
def test_a_broken_plugin_disturbs_no_other_command(invoke: Any, broken: None, command: str) -> None:
    assert "Traceback" not in invoke(command).stderr
    assert "tfx-fake" in invoke(command).stdout
    assert invoke("train", "echo").exit_code == 0
