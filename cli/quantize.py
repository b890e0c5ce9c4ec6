"""`tfx quantize MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfx.cli import options
from tfx.cli.environment import ModelCommand
from tfx.cli.report import reporter
from tfx.cli.start import computing, start
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=ModelCommand)
def quantize(
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
    quantize: Annotated[
        str, typer.Option("--quantize", "-q", metavar="SCHEME", help="int8 or int4.")
    ] = "int8",
    quantize_embeddings: options.QuantizeEmbeddings = None,
    group_size: options.GroupSize = None,
    scale_dtype: Annotated[
        DType | None,
        typer.Option(
            metavar="DTYPE",
            help="Of the scales: float16, the default, or float32.",
            parser=options.element_type,
            autocompletion=options.complete_dtype,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="FILE",
            help="Text to predict before and after, to compare.",
        ),
    ] = None,
    backend: options.BackendName = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    from tfx.core.recipe import Quantizable, QuantizeSettings

    settings = QuantizeSettings(
        weights=weights,
        out=out,
        quantize=quantize,
        quantize_embeddings=quantize_embeddings,
        group_size=group_size,
        scale_dtype=scale_dtype,
        data=data,
    )
    with reporter(as_json) as report:
        recipe, library = start(model, backend, device, report)
        if not isinstance(recipe, Quantizable):
            raise UsageError(f"{model} has no quantized form; its weights stay floats")
        with computing(library):
            report.finish(recipe.quantize(settings, library, report))
