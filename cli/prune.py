"""`tfx prune MODEL`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from tfx.cli import options
from tfx.cli.environment import ModelCommand
from tfx.cli.report import reporter
from tfx.cli.start import computing, start
from tfx.core.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None)

KEEP = 0.75


@app.command(cls=ModelCommand)
def prune(
    model: options.ModelName,
    out: Annotated[
        Path,
        typer.Option(parser=options.path, metavar="DIR", help="Folder to write; new, or empty."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="FILE",
            help="Text that says what matters, predicted before and after; of a task, labelled "
            "records.",
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=options.share_but_1,
            help="Of the heads, how many stay; default: 0.75.",
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER:HEADS;...",
            help="The heads to go, in place of those that matter least: '0:1,3;2:0'.",
        ),
    ] = None,
    task: options.Task = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="PATH",
            help="Checkpoint to read; by default the model's own.",
        ),
    ] = None,
    backend: options.BackendName = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    if heads is not None and keep is not None:
        raise UsageError("--heads says which heads go, --keep how many stay; leave one out")
    if heads is None and data is None:
        raise UsageError("nothing says which heads matter; give --data FILE, or name some: --heads")
    chosen = None if heads is None else heads_by_layer(heads)
    from tfx.core.recipe import Prunable, PruneSettings

    settings = PruneSettings(
        weights=weights,
        out=out,
        data=data,
        keep=KEEP if keep is None and heads is None else keep,
        heads=chosen,
        task=task,
    )
    with reporter(as_json) as report:
        recipe, library = start(model, backend, device, report)
        if not isinstance(recipe, Prunable):
            raise UsageError(f"{model} has nothing to prune")
        with computing(library):
            report.finish(recipe.prune(settings, library, report))


def heads_by_layer(text: str) -> dict[int, tuple[int, ...]]:
    """`--heads "0:1,3;2:0"`.

    >>> heads_by_layer("0:1,3; 2:0")
    {0: (1, 3), 2: (0,)}
    """
    found: dict[int, tuple[int, ...]] = {}
    for part in text.split(";"):
        match = re.fullmatch(r"\s*(\d{1,9})\s*:\s*(\d{1,9}(?:\s*,\s*\d{1,9})*)\s*", part, re.ASCII)
        if match is None or int(match[1]) in found:
            raise UsageError(
                "--heads expects each layer once, with the heads it loses, as in '0:1,3;2:0', got "
                f"{text!r:.60}"
            )
        found[int(match[1])] = tuple(map(int, match[2].split(",")))
    return found
