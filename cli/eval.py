"""`tfx eval MODEL`."""

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
def evaluate(
    model: options.ModelName,
    backend: options.BackendName = None,
    data: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="FILE",
            help="Text to predict; the model reads it whole, or a document a line. With --task, "
            "labelled records: .jsonl or .csv.",
        ),
    ] = None,
    task: options.Task = None,
    device: options.Device = None,
    dtype: options.ElementType = None,
    weights: options.Weights = None,
    docs: Annotated[
        options.Span | None,
        typer.Option(
            metavar="START:STOP", help="These documents only, half open.", parser=options.span
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            metavar="INT",
            min=1,
            help="Tokens from a sliding window to the next; default: as many as one holds.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="Documents or windows at a time.")
    ] = None,
    quantize: options.Quantize = None,
    quantize_embeddings: options.QuantizeEmbeddings = None,
    group_size: options.GroupSize = None,
    theta: options.Theta = None,
    no_jit: options.NoJit = False,
    as_json: options.AsJson = False,
) -> None:
    if docs is not None and stride is not None:
        raise UsageError("--docs takes documents one by one, --stride runs over all; keep one")
    from tfx.core.recipe import EvalSettings, Evaluable

    settings = EvalSettings(
        weights=weights,
        data=data,
        task=task,
        dtype=dtype,
        docs=docs,
        stride=stride,
        batch_size=batch_size,
        quantize=quantize,
        quantize_embeddings=quantize_embeddings,
        group_size=group_size,
        theta=theta,
    )
    with reporter(as_json) as report:
        recipe, library = start(model, backend, device, report)
        if not isinstance(recipe, Evaluable):
            raise UsageError(
                f"{model} offers no evaluation; it has `tfx train {model}` and `tfx run {model}`"
            )
        with computing(library, no_jit=no_jit):
            report.finish(recipe.evaluate(settings, library, report))
