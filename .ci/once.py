"""A pytest plugin for `.ci/run`: a test that has passed there is not run a second time.

The tests run without torch first and then with it. What the first run skipped or left out is what
the second is for, and with it the tests marked `installed`: that nothing imports torch says little
where there is none.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PASSED = Path(os.environ["TESTS_THAT_PASSED"])

_seen: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    done = set(PASSED.read_text(encoding="utf-8").splitlines()) if PASSED.exists() else set()
    kept: list[pytest.Item] = []
    again: list[pytest.Item] = []
    for item in items:
        drop = item.nodeid in done and not item.get_closest_marker("installed")
        (again if drop else kept).append(item)
    config.hook.pytest_deselected(items=again)
    items[:] = kept


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _seen.append(report.nodeid)


def pytest_sessionfinish() -> None:
    with PASSED.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in _seen)
