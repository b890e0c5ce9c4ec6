"""`tfx prune MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfx.cli import options
from tfx.cli.environment import ModelCommand
from tfx.cli.report import reporter
from tfx.cli.start import computing, start
from tfx.core.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=ModelCommand)
def prune(
    model: options.ModelName,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; new, or empty.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Text that says what matters, predicted before and after."
        ),
    ],
    keep: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the heads, how many stay.")
    ] = 0.75,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Checkpoint to read; by default the model's own."),
    ] = None,
    backend: options.BackendName = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    from tfx.core.recipe import Prunable, PruneSettings

    settings = PruneSettings(weights=weights, out=out, data=data, keep=keep)
    with reporter(as_json) as report:
        recipe, library = start(model, backend, device, report)
        if not isinstance(recipe, Prunable):
            raise UsageError(f"{model} has nothing to prune")
        with computing(library):
            report.finish(recipe.prune(settings, library, report))
