"""`tfx explain MODEL PROMPT`: what a model makes of a text, place by place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfx.cli import options
from tfx.cli.destination import PAGE, check_destination
from tfx.cli.environment import ModelCommand
from tfx.cli.prompts import only_one, text_of
from tfx.cli.report import reporter
from tfx.cli.start import computing, start
from tfx.core.errors import DataError, UsageError
from tfx.core.files import reason, replace_file, shown

if TYPE_CHECKING:
    from tfx.core.explanation import Explanation

app = typer.Typer(add_completion=False, rich_markup_mode=None)

WEIGHTS_AT_ONCE = 2**22
"""So many weights of attention are written at most: as JSON, about 100 MB."""


@app.command(cls=ModelCommand)
def explain(
    model: options.ModelName,
    words: Annotated[str | None, typer.Argument(metavar="PROMPT", help="Text to explain.")] = None,
    backend: options.BackendName = None,
    device: options.Device = None,
    dtype: options.ElementType = None,
    weights: options.Weights = None,
    prompt: options.PromptText = None,
    file: options.PromptFile = None,
    prompt_ids: options.PromptIds = None,
    theta: options.Theta = None,
    top_k: Annotated[
        int | None,
        typer.Option(metavar="INT", min=0, help="Tell so many of the likeliest; default: 4."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Whose attention to show: '0 3'; default: all."),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Which of their heads; default: all."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="FILE",
            help="Write a page with pictures, which needs no network.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Shows, for every place of a text: what the model takes for likeliest there, how sure it is,
    and the loss of what does come; what it would say after each of its layers (the logit lens);
    what its heads attend to; how large activations grow; and what each part of the model weighs
    and costs. A piped stdin is the prompt where no other is given."""
    only_one({"PROMPT": words, "--prompt": prompt, "--file": file, "--prompt-ids": prompt_ids})
    if html is not None:
        check_destination("--html", html, PAGE)
    text = words if prompt is None else prompt
    if text is None and prompt_ids is None:
        text = text_of(file)
    from tfx.core.recipe import Explainable, ExplainSettings

    settings = ExplainSettings(
        weights=weights,
        dtype=dtype,
        prompt=text,
        prompt_ids=None if prompt_ids is None else options.token_ids(prompt_ids),
        theta=theta,
        top_k=top_k,
        layers=None if layers is None else options.numbers("--layers", layers),
        heads=None if heads is None else options.numbers("--heads", heads),
    )
    with reporter(as_json) as report:
        recipe, library = start(model, backend, device, report)
        if not isinstance(recipe, Explainable):
            raise UsageError(f"{model} cannot be explained")
        with computing(library):
            found = recipe.explain(settings, library, report)
        if html is not None or as_json:
            _check_size(found)
        about = {
            "model": model,
            "weights": None if weights is None else str(weights),
            "backend": library.name,
            "device": library.device,
            "theta": theta,
        }
        if html is not None:
            _write_page(html, found, about)
            report.note(f"the page is in {shown(html)}")
        from tfx.cli.explanation_text import lines_of

        for line in lines_of(found):
            report.result(line)
        report.finish(about | found.described() if as_json else {})


def _check_size(found: Explanation) -> None:
    """Refuse what would be too much to write."""
    count = sum(one.weights.size for one in found.attentions)
    if count > WEIGHTS_AT_ONCE:
        raise UsageError(
            f"{len(found.attentions)} heads over {len(found.token_ids)} tokens have {count:,} "
            f"weights, and at most {WEIGHTS_AT_ONCE:,} are written; choose some with --layers and "
            "--heads, or shorten the prompt"
        )


def _write_page(file: Path, found: Explanation, about: dict[str, Any]) -> None:
    from tfx.cli.explanation_page import page_of

    try:
        replace_file(file, [page_of(found, about).encode()])
    except OSError as error:
        raise DataError(f"--html: cannot write {shown(file)}: {reason(error)}") from None
