"""The example in docs/training.md runs as it is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from source_tree import ROOT

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_callback_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^<!-- python: callbacks -->\n```python\n(.*?)^```$", PAGE, re.S | re.M)
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("The quality of mercy is not strain'd.\n" * 40)
    exec(code, {"__name__": "page"})
    lines = Path("runs/enough/metrics.jsonl").read_text().splitlines()
    losses = [found["loss"] for found in map(json.loads, lines) if "loss" in found]
    assert capsys.readouterr().out.endswith("runs/enough\n")
    assert losses[0] > 2.5 > losses[-1] and len(losses) < 150
