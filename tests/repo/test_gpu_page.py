"""docs/gpu.md: its tables are what the program gives, and the benchmark and the report it names
run to their ends."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from source_tree import ROOT

from tfx.models.gpt2.model import Config

sys.path.insert(0, str(ROOT / "docs"))
make_gpu = import_module("make_gpu")
sys.path.remove(str(ROOT / "docs"))

PAGE = (ROOT / "docs" / "gpu.md").read_text()


def test_the_bytes_are_those_of_the_program() -> None:
    assert make_gpu.between(PAGE, "bytes", make_gpu.rooflines) == PAGE, "python docs/make_gpu.py"


def test_the_bytes_of_a_token_by_hand() -> None:
    config = Config(n_layer=1, n_embd=8, n_head=2, vocab_size=10, n_positions=1024)
    matrices = 10 * 8 + 8 * 24 + 8 * 8 + 8 * 32 + 32 * 8
    vectors = 24 + 8 + 32 + 8 + 3 * 16 + 8  # biases, norms, and a position
    cache = 2 * 512 * 8
    assert make_gpu.bytes_per_token(config, "float32") == 4 * (matrices + vectors + cache)
    assert make_gpu.bytes_per_token(config, "float16") == 2 * matrices + 4 * (vectors + cache)
    int8 = matrices * 66 / 64
    assert make_gpu.bytes_per_token(config, "int8") == round(int8 + 4 * (vectors + cache))


def test_the_launches_are_those_of_a_simulated_device_cupy() -> None:
    pytest.importorskip("cudasim", reason="only a simulated device counts")
    anew = make_gpu.between(PAGE, "launches", make_gpu.counted)
    assert anew == PAGE, "python -m cudasim docs/make_gpu.py"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    return import_module("gpu_report")


def test_the_report_names_what_failed(report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever came to what end."""
    level = {"passed": 3, "failed": 0, "missing": 0, "skipped": 1, "whole": True}
    found: dict[str, Any] = {
        "installation": {"tfx": {"version": "1"}, "python": {"version": "3", "platform": "x"},
                         "numpy": {"version": "2"}},
        "device": {"name": "A100", "simulated": False},
        "tests": {"passed": 5, "failures": 0, "errors": 0, "skipped": 2, "seconds": 9.0,
                  "faults": {}, "skips": {"no torch": 2}},
        "conformance": {"levels": {"L0": level}},
        "timings": {},
        "peers": {"torch": None},
    }  # fmt: skip
    text = "\n".join(report.in_words(found))
    assert "5 passed, 0 failed, 0 broke off, 2 skipped in 9 s." in text
    assert "- L0: 3 passed, 0 failed, 1 skipped" in text and text.endswith("Nothing.")
    assert "| torch | not installed |" in text and "simulated device" not in text
    found["tests"]["faults"] = {"a::b": "wrong"}
    found["conformance"]["levels"]["L1"] = level | {"failed": 2}
    found["device"] = {"error": "no CUDA driver found"}
    assert report.failed(found) == [
        "device: no CUDA driver found",
        "a::b",
        "conformance L1: 2 failed",
    ]


def test_the_report_counts_tests(
    report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which run on the device that is asked for: of those that may be seen, the second here."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    (tmp_path / "test_three.py").write_text(
        "import os, pytest\n"
        "def test_cupy_good(): assert os.environ['CUDA_VISIBLE_DEVICES'] == '5'\n"
        "def test_cupy_bad(): assert False, 'so it is'\n"
        "def test_cupy_not_here(): pytest.skip('no device')\n"
        "def test_of_something_else(): assert False\n"
    )
    ran = report.tests([str(tmp_path), "-p", "no:cacheprovider"], "cupy:1")
    counts = {name: ran[name] for name in ("passed", "failures", "errors", "skipped")}
    assert counts == {"passed": 1, "failures": 1, "errors": 0, "skipped": 1}
    ((name, message),) = ran["faults"].items()
    assert name.endswith("::test_cupy_bad") and "so it is" in message
    assert ran["skips"] == {"no device": 1}
    assert json.dumps(ran)
