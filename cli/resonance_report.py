"""`tfx resonate --report`: what a store of experiences comes to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfx.cli.plot import draw_thetas
from tfx.cli.report import TextReporter
from tfx.cli.sparkline import sparkline
from tfx.core.errors import DataError
from tfx.core.experiences import Experience, ExperienceStore, summary
from tfx.core.files import shown
from tfx.core.wording import quoted

WIDEST = 40  # bars in a line


def report_on(
    store: ExperienceStore, models: set[str] | None, picture: Path | None, report: TextReporter
) -> dict[str, Any]:
    """Show the experiences of a model, by its names, or of all, and draw thetas into `picture`.

    Raises:
        TfxError: the store or the picture will not do.
    """
    found = _of_models(store, models)
    total = summary(found)
    for x in found:
        score = "" if x.score is None else f"  score {x.score:.2f}"
        report.result(f"{x.id}  {x.time}  {x.model}  {x.status}{score}")
        report.result(f"  {quoted(x.prompt)} -> {quoted(x.response)}")
        report.result(f"  theta {x.theta_start:.4g} -> {x.theta:.4g}  {_course(x.thetas)}")
        if x.notes:
            report.result(f"  {x.notes}")
    counts = ", ".join(f"{total[key]} {key}" for key in ("accepted", "rejected", "unvalidated"))
    report.result(f"{shown(store.path)}: {_number(total['experiences'], 'experience')}: {counts}")
    if total["decisions"]:
        share = total["satisfied"] / total["decisions"]
        report.result(f"{_number(total['decisions'], 'decision')}, {share:.0%} satisfied")
    if total["mean_theta_accepted"] is not None:
        report.result(f"theta ended at {total['mean_theta_accepted']:.4g} where it was accepted")
    if picture is not None:
        draw_thetas([(x.prompt, x.status, x.thetas) for x in found], picture)
        report.result(f"drawn into {shown(picture)}")
    listed = [_described(x) for x in found]
    return {"store": str(store.path), **total, "list": listed}


def _of_models(store: ExperienceStore, models: set[str] | None) -> list[Experience]:
    """The experiences of a model, by its names, or of all.

    Raises:
        DataError: there are none.
    """
    every = store.experiences()
    if not every:
        raise DataError(
            f"{shown(store.path)} holds no experiences yet; `tfx resonate MODEL PROMPT` makes "
            "some, and --store names another file"
        )
    found = [x for x in every if models is None or x.model in models]
    if not found:
        known = ", ".join(map(quoted, dict.fromkeys(x.model for x in every)))
        asked = quoted(min(models or (), key=len))
        raise DataError(
            f"{shown(store.path)} holds no experience of {asked}; it has some of {known}"
        )
    return found


def _described(x: Experience) -> dict[str, Any]:
    return x.described() | {"thetas": x.thetas}


def _number(count: int, of: str) -> str:
    return f"{count} {of}" if count == 1 else f"{count} {of}s"


def _course(thetas: Sequence[float]) -> str:
    """A line of bars over 0 to 1, or to the highest; of many thetas, evenly spread ones."""
    step = max(1.0, (len(thetas) - 1) / (WIDEST - 1))
    some = [thetas[round(i * step)] for i in range(min(len(thetas), WIDEST))]
    return sparkline(some, 0.0, max(1.0, *thetas))
