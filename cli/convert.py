"""`tfx convert MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfx.cli import options
from tfx.cli.report import reporter
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def convert(
    model: options.ModelName,
    out: Annotated[
        Path,
        typer.Option(parser=options.path, metavar="DIR", help="Folder to write; new, or empty."),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="PATH",
            help="Checkpoint to read; by default the model's own.",
        ),
    ] = None,
    dtype: Annotated[
        DType | None,
        typer.Option(
            metavar="DTYPE",
            help="Of the numbers written; by default as they are.",
            parser=options.element_type,
            autocompletion=options.complete_dtype,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    from tfx.core.plugins import PluginHost
    from tfx.core.recipe import Convertible, ConvertSettings
    from tfx.core.resolve import open_model

    recipe = open_model(PluginHost(), model)
    if not isinstance(recipe, Convertible):
        raise UsageError(f"{model} has no form that other programs read; its checkpoints stay ours")
    with reporter(as_json) as report:
        settings = ConvertSettings(weights=weights, out=out, dtype=dtype)
        report.finish(recipe.convert(settings, report))
