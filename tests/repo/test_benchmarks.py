"""The benchmarks' table: targets name what there is, ratios are judged rightly, and the page shows
what was measured."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from source_tree import ROOT

BENCHMARKS = ROOT / "benchmarks"


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


with importable(BENCHMARKS):
    run_all = import_module("run_all")
    targets = import_module("targets")

with importable(ROOT / "docs"):
    make_performance = import_module("make_performance")


def found(**rates: list[float]) -> dict[str, Any]:
    peers = {name.replace("_", " "): {"rate": rate} for name, rate in rates.items()}
    return {"peers": peers, "skipped": {"absent": "no such library"}}


def judged(target: Any, **rates: list[float]) -> dict[str, Any]:
    described: dict[str, Any] = run_all.row(target, found(**rates))
    return described


def test_a_ratio_is_the_median_of_those_within_a_round() -> None:
    target = targets.Target("work", "contest", "a", "b", at_least=1.9)
    row = judged(target, a=[2.0, 3.0, 40.0], b=[1.0, 3.0, 20.0])
    assert (row["measured"], row["quartiles"]) == (2.0, [1.5, 2.0])
    assert (row["target"], row["verdict"]) == ("at least 1.9x", "met")
    assert judged(target, a=[1.8], b=[1.0])["verdict"] == "missed"


def test_a_ratio_of_times_turns_that_of_rates_around() -> None:
    target = targets.Target("work", "contest", "a", "b", at_most=2, measure="time")
    row = judged(target, a=[1.0, 1.0], b=[2.5, 2.5])
    assert (row["measured"], row["target"], row["verdict"]) == (2.5, "at most 2x", "missed")


def test_of_several_others_the_fastest_counts() -> None:
    target = targets.Target("work", "contest", "a", ("b", "c", "absent"))
    row = judged(target, a=[6.0], b=[1.0], c=[3.0])
    assert (row["theirs"], row["measured"], row["verdict"]) == ("c", 2.0, None)


def test_a_number_may_be_judged_by_itself() -> None:
    target = targets.Target("w", "c", "a", (), None, 5, "time", "ms", 1e3)
    row = judged(target, a=[250.0])
    assert (row["measured"], row["target"], row["verdict"]) == (4.0, "at most 5 ms", "met")
    assert "| at most 5 ms | 4 ms | 4-4 | met |" in run_all.table([row])


@pytest.mark.parametrize(("ours", "theirs"), [("absent", "a"), ("a", "absent")])
def test_what_is_not_here_is_said_to_be_so(ours: str, theirs: str) -> None:
    row = judged(targets.Target("work", "contest", ours, theirs, 2), a=[1.0])
    assert (row["measured"], row["verdict"]) == (None, "not available: no such library")
    assert run_all.table([row]).endswith("| - | - | not available: no such library |")


def test_a_contest_that_fails_is_not_met() -> None:
    failed = {"failed": "x.py ended with exit code 1"}
    row = run_all.row(targets.Target("work", "contest", "a", "b", 2), failed)
    assert row["verdict"] == "x.py ended with exit code 1"


def test_every_target_is_of_a_contest_whose_program_is_here() -> None:
    contests = {contest.name for contest in targets.CONTESTS}
    assert {target.contest for target in targets.TARGETS} == contests
    assert all((BENCHMARKS / contest.program).is_file() for contest in targets.CONTESTS)


def strings(program: str) -> set[str]:
    """Every string in a program, those that are put together at run time in parts."""
    tree = ast.parse((BENCHMARKS / program).read_text())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


PORTS = {"Rust port", "C port"}
"""Whoever has them gives their names."""


def test_every_peer_of_a_target_takes_part_in_its_contest() -> None:
    for target in targets.TARGETS:
        (program,) = (c.program for c in targets.CONTESTS if c.name == target.contest)
        known = strings(program) | {targets.KERNELS}
        for name in {target.ours, *run_all.names(target)} - PORTS:
            for part in name.removeprefix(targets.KERNELS).split(", "):
                rows = part.endswith((" row", " rows"))
                assert not part or rows or any(part.strip() in text for text in known), name


def test_the_page_shows_what_was_measured() -> None:
    text = make_performance.PAGE.read_text(encoding="utf-8")
    results = make_performance.RESULTS
    measured = json.loads(results.read_text()) if results.exists() else None
    assert make_performance.page(text, measured) == text


def test_the_page_takes_in_a_table() -> None:
    rows = [judged(targets.Target("work", "contest", "a", "b", 2), a=[4.0], b=[1.0])]
    machine = {"cpu": "Acme", "cores": 2, "load": "0.1"}
    peers = {"a": {"rate": [4.0], "about": {"numpy": "2.4", "threads": 2}}}
    contest = {"began": "2026-01-01", "machine": machine, "peers": peers}
    contests = {"contest": contest, "other": {"began": "2026-01-02", "failed": "so"}}
    everything = {"rows": rows, "contests": contests}
    page = make_performance.page("<!-- measured -->\nold\n<!-- end of measured -->\n", everything)
    assert "old" not in page
    assert "| work | a | b | at least 2x | 4x | 4-4 | met |" in page
    assert "Contests begun from 2026-01-01 to 2026-01-01; Acme, 2 cores, load 0.1 to 0.1" in page
    assert page.count("numpy 2.4.") == 1


def test_one_contest_again_leaves_the_others_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results.json"
    times = iter(["old", "old", "new"])
    monkeypatch.setattr(run_all, "run", lambda contest, args: {"failed": next(times)})
    for only in (["decode", "help"], ["help"]):
        command = ["run_all.py", "--only", *only, "--json", str(results)]
        monkeypatch.setattr(sys, "argv", command)
        run_all.main()
    contests = json.loads(results.read_text())["contests"]
    assert contests == {"decode": {"failed": "old"}, "help": {"failed": "new"}}
