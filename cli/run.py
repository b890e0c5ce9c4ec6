"""`tfx run MODEL [PROMPT]`."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from tfx.cli import options
from tfx.cli.environment import ModelCommand
from tfx.cli.options import above_0, at_least_0, share, share_or_0
from tfx.cli.report import reporter
from tfx.cli.start import start
from tfx.core.errors import DataError, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=ModelCommand)
def run(
    model: options.ModelName,
    words: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="Text to go on from.")
    ] = None,
    backend: options.BackendName = None,
    device: options.Device = None,
    dtype: options.ElementType = None,
    weights: options.Weights = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="As PROMPT.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Take the prompt from a file; - is stdin."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", "-n", metavar="INT", min=1, help="Tokens a sample."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="FLOAT", parser=at_least_0, help="0 takes the likeliest token."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(metavar="INT", min=0, help="Choose among the K likeliest; 0: among all."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(metavar="FLOAT", parser=share, help="Choose among the top P of probability."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            metavar="FLOAT", parser=share_or_0, help="Leave out what is below P of the likeliest."
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(metavar="FLOAT", parser=above_0, help="Above 1 discourages repetition."),
    ] = None,
    num_beams: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="Width of beam search.")
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="How many samples.")
    ] = None,
    seed: options.Seed = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End a sample here; repeatable.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """A piped stdin is the prompt where no other is given."""
    from tfx.core.recipe import RunSettings

    settings = RunSettings(
        weights=weights,
        dtype=dtype,
        prompt=find_prompt(words, prompt, file),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        num_beams=num_beams,
        num_samples=num_samples,
        seed=seed,
        stop=tuple(stop or ()),
    )
    with reporter(as_json) as report:
        recipe, library = start(model, backend, device, report)
        report.finish(recipe.run(settings, library, report))


def find_prompt(words: str | None, prompt: str | None, file: Path | None) -> str | None:
    """The prompt from the one place that has it, or None.

    The line feed that ends a file or the output of another program is not part of it.
    """
    given = {"PROMPT": words, "--prompt": prompt, "--file": file}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} each give a prompt; keep one of them")
    if words is not None or prompt is not None:
        return words if prompt is None else prompt
    if file is not None and str(file) != "-":
        return _decoded(_bytes_of(file), str(file))
    if file is not None or _is_piped():
        piped = _decoded(sys.stdin.buffer.read(), "stdin")
        return piped if piped or file is not None else None
    return None


def _is_piped() -> bool:
    """Whether somebody sends text on stdin; not so for a terminal, /dev/null or none at all."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the prompt from {file}: {error.strerror}") from None


def _decoded(raw: bytes, origin: str) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the prompt from {origin} is not UTF-8 text: "
            f"byte 0x{raw[error.start]:02x} at offset {error.start}"
        ) from None
    return text.removesuffix("\n").removesuffix("\r")
