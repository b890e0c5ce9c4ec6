"""`tfx compare MODEL --backend A --backend B`."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfx.cli import options
from tfx.cli.options import at_least_0
from tfx.cli.output import emit, emit_table
from tfx.cli.plot import SUFFIXES, PlotCommand, check_drawable, keep, picture_name
from tfx.cli.report import TextReporter, reporter
from tfx.core.errors import UsageError

if TYPE_CHECKING:
    from tfx.core.backend import Backend
    from tfx.core.comparison import Comparison, Row
    from tfx.core.plugins import PluginHost
    from tfx.core.recipe import CompareSettings

PICTURE = "compare.png"
APART = 1
"""The exit code where two backends part, as that of `diff`."""


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=PlotCommand)
def compare(
    model: options.ModelName,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            "-b",
            metavar="NAME[:DEVICE]",
            help="Given twice: the reference, and the one to hold against it.",
            autocompletion=options.complete_backend,
        ),
    ] = None,
    weights: options.Weights = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="What to compute the loss of."),
    ] = None,
    dtype: options.ElementType = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="INT", min=0, max=2**63 - 1, help="Of a new model's parameters."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="FLOAT",
            parser=at_least_0,
            help="Share of a row's largest number; by default what the dtype rounds away.",
        ),
    ] = None,
    autograd: Annotated[
        options.Autograd,
        typer.Option(help="Where the parameters' gradients are from; the others are tfx's."),
    ] = options.Autograd.auto,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="[FILE]",
            help=f"Draw the differences: {' '.join(SUFFIXES)}; by default {PICTURE}.",
            parser=picture_name,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """The result of each layer, the gradient of the loss by it, and the gradient by each parameter,
    with the largest difference and where the two part first. Exit code 0: they agree; 1: they part.
    TFX_BACKEND and TFX_DEVICE are not asked."""
    names = _two(backend or [])
    if plot is not None:
        plot = plot or PICTURE
        check_drawable(plot, None)
    from tfx.core.recipe import CompareSettings

    settings = CompareSettings(weights=weights, prompt=prompt, dtype=dtype, seed=seed)
    with reporter(as_json) as report:
        found = _compared(model, names, settings, tolerance, autograd, report.note)
        if not as_json:
            _print(found)
        _finish(found, model, plot, report)
    if found.first_apart is not None:
        raise typer.Exit(APART)


def _two(names: list[str]) -> list[str]:
    if len(names) != 2:
        raise UsageError(f"compare takes two backends, as in -b numpy -b torch, not {len(names)}")
    return names


def _compared(
    model: str,
    names: list[str],
    settings: CompareSettings,
    tolerance: float | None,
    autograd: options.Autograd,
    note: Callable[[str], None],
) -> Comparison:
    from tfx.core.plugins import PluginHost
    from tfx.core.recipe import Comparable
    from tfx.core.resolve import open_model

    host = PluginHost()
    recipe = open_model(host, model)
    if not isinstance(recipe, Comparable):
        raise UsageError(f"{model} has no example to compare backends on")
    first, second = _opened(host, names, autograd, note)
    examples = recipe.example(settings, first, note), recipe.example(settings, second)
    from tfx.core import comparison

    found = comparison.compare(*examples, tolerance, autograd.value)
    for name, loss in zip(found.backends, found.losses, strict=True):
        if not isfinite(loss):
            note(f"the loss is not finite on {name}")
    return found


def _opened(
    host: PluginHost, names: list[str], autograd: options.Autograd, note: Callable[[str], None]
) -> list[Backend]:
    from tfx.core.recipe import check_autograd
    from tfx.core.resolve import open_backend

    backends = []
    for name in names:
        opened = open_backend(host, name)
        for line in opened.notes:
            note(line)
        check_autograd(autograd, opened.backend)
        backends.append(opened.backend)
    return backends


def _print(found: Comparison) -> None:
    emit_table(
        ("phase", "what", "shape", "largest", "difference", "relative", "apart"),
        (
            (
                row.phase,
                row.name,
                "x".join(map(str, row.shape)) or "0-d",
                f"{row.magnitude:.2e}",
                f"{row.difference:.1e}",
                f"{row.relative:.1e}",
                "yes" if row.apart else None,
            )
            for row in found.rows
        ),
    )
    emit(found.verdict)


def _finish(found: Comparison, model: str, picture: str | None, report: TextReporter) -> None:
    """Draw the picture, if one is asked for, and hand over the result."""
    result = {"model": model} | found.as_json()
    try:
        if picture is not None:
            draw(found, Path(picture), title=f"{model}: {' and '.join(found.backends)}")
            report.note(f"picture: {picture}")
            result["plot"] = picture
    finally:  # a picture that fails takes nothing with it
        report.finish(result)


# ---- the picture ---------------------------------------------------------------------------------

STYLES = {
    "forward": {"color": "tab:blue", "marker": "o", "label": "result"},
    "backward": {"color": "tab:orange", "marker": "D", "label": "gradient by the result"},
    "parameter": {"color": "tab:green", "marker": "s", "label": "gradient by the parameter"},
}
"""How the points of each phase look."""


def draw(found: Comparison, picture: Path, title: str) -> None:
    """Draw the relative difference of every row, in the order of the model: on the left results and
    the gradients by them, on the right the gradients by parameters. What is equal bit for bit
    stands at the left edge, what differs beyond all measure at the right one."""
    from matplotlib.figure import Figure

    results = [row for row in found.rows if row.phase != "parameter"]
    parameters = [row for row in reversed(found.rows) if row.phase == "parameter"]
    most = max(len({row.name for row in rows}) for rows in (results, parameters))
    lowest, highest = _span(found)
    figure = Figure(figsize=(13, 2 + 0.17 * most), layout="constrained")
    figure.suptitle(f"{title}, {found.dtype}", fontsize=11)
    points = []
    for axes, rows in zip(figure.subplots(1, 2), (results, parameters), strict=True):
        points += _draw_rows(axes, rows, lowest, highest)
        limit = axes.axvline(found.tolerance or lowest, color="tab:red", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(lowest / 2, highest * 2)
        axes.set_ylim(most - 0.4, -0.6)
        axes.set_xlabel("largest difference / largest number (left edge: 0; right: beyond measure)")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    limit.set_label("tolerance")
    figure.legend(handles=[*points, limit], loc="outside lower center", ncols=4, frameon=False)
    keep(figure, picture)


def _span(found: Comparison) -> tuple[float, float]:
    """A little less than the smallest difference that is not 0, and more than the largest."""
    shown = [row.relative for row in found.rows if 0 < row.relative < float("inf")]
    shown.append(found.tolerance or 1e-16)
    return min(shown) / 10, max(shown) * 10


def _draw_rows(axes: Any, rows: list[Row], lowest: float, highest: float) -> list[Any]:
    """Draw a point for each row, those of one name on one line; the points, by phase."""
    lines = {name: line for line, name in enumerate(dict.fromkeys(row.name for row in rows))}
    drawn = []
    for phase in dict.fromkeys(row.phase for row in rows):
        points = [
            (min(max(row.relative, lowest), highest), lines[row.name])
            for row in rows
            if row.phase == phase
        ]
        drawn += axes.plot(*zip(*points, strict=True), linestyle="", markersize=4, **STYLES[phase])
    axes.set_yticks(list(lines.values()), list(lines), fontsize=7)
    return drawn
