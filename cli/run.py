"""`tfx run MODEL [PROMPT]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfx.cli import options
from tfx.cli.environment import ModelCommand
from tfx.cli.options import above_0, at_least_0, exponent, share, share_or_0
from tfx.cli.prompts import json_lines, json_objects, only_one, text_of
from tfx.cli.report import reporter
from tfx.cli.start import computing, start
from tfx.cli.stats import stats_line
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError

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
    task: options.Task = None,
    context: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Where a question is answered from.")
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="One to choose from; repeatable.")
    ] = None,
    prompt: options.PromptText = None,
    file: options.PromptFile = None,
    prompt_ids: options.PromptIds = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="FILE",
            help='Prompts, one object a line: {"prompt": TEXT} or {"prompt_token_ids": [ID, ...]}; '
            "- is stdin. With --task, records. Prints an object for each, in order.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="Prompts of --jsonl at a time.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            "-n",
            metavar="INT",
            min=1,
            help="Tokens a sample; default: the model's own.",
        ),
    ] = None,
    min_new_tokens: Annotated[
        int | None,
        typer.Option(metavar="INT", min=0, help="Do not let a sample end before so many."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="FLOAT",
            parser=at_least_0,
            help="0 takes the likeliest token; default: the model's own.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            metavar="INT",
            min=0,
            help="Choose among the K likeliest; 0: among all; default: the model's own.",
        ),
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
    no_repeat_ngram_size: Annotated[
        int | None,
        typer.Option(metavar="INT", min=0, help="No sequence of so many tokens twice; 0: any."),
    ] = None,
    num_beams: Annotated[
        int | None,
        typer.Option(metavar="INT", min=1, help="Width of beam search, which draws nothing."),
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="FLOAT", parser=exponent, help="Above 0 favours long texts in beam search."
        ),
    ] = None,
    early_stopping: Annotated[
        options.EarlyStopping | None,
        typer.Option(help="Whether beam search ends with as many texts as it has beams."),
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="How many samples.")
    ] = None,
    seed: options.Seed = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End a sample here; repeatable.")
    ] = None,
    logprobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="In JSON, each token's log-probability, and the N likeliest in its place.",
        ),
    ] = None,
    window: Annotated[
        bool | None,
        typer.Option(
            "--window",
            help="Go on past the model's positions: when they are full, from their later half.",
        ),
    ] = None,
    quantize: options.Quantize = None,
    quantize_embeddings: options.QuantizeEmbeddings = None,
    group_size: options.GroupSize = None,
    kv_dtype: Annotated[
        DType | None,
        typer.Option(
            metavar="DTYPE",
            help="Of the keys and values that are kept: float16, bfloat16; default: as computed.",
            parser=options.element_type,
            autocompletion=options.complete_dtype,
        ),
    ] = None,
    theta: options.Theta = None,
    prompt_lookup: Annotated[
        bool | None,
        typer.Option(
            "--prompt-lookup",
            help="Guess tokens from where the text stood like this before, and verify several at "
            "once: the same text, sooner where it repeats itself.",
        ),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Guess tokens by a smaller model with the same tokens."),
    ] = None,
    num_draft_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="INT", min=1, help="Guess so many at a time; default: as many as pay here."
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print text as it comes, or at the end.")
    ] = True,
    stats: Annotated[
        bool, typer.Option("--stats", help="Tell times, speed, guesses and memory on stderr.")
    ] = False,
    no_jit: options.NoJit = False,
    as_json: options.AsJson = False,
) -> None:
    """Prints the prompt and what follows it; of several samples, each below a line with its number.
    A piped stdin is the prompt where no other is given. With --task, prints what a head says of
    the prompt."""
    only_one(
        {
            "PROMPT": words,
            "--prompt": prompt,
            "--file": file,
            "--prompt-ids": prompt_ids,
            "--jsonl": jsonl,
        }
    )
    if as_json and jsonl is not None:
        raise UsageError("--jsonl prints an object a line, --json one in all; leave one out")
    if batch_size is not None and jsonl is None:
        raise UsageError("--batch-size is for the prompts of --jsonl; leave it out")
    if logprobs is not None and not as_json and jsonl is None:
        raise UsageError("--logprobs is for JSON; add --json")
    if task is None and (context is not None or choice):
        raise UsageError("--context and --choice are for a task; add --task, or leave them out")
    text = words if prompt is None else prompt
    if text is None and prompt_ids is None and jsonl is None:
        text = text_of(file)
    from tfx.core.memory import peak_memory
    from tfx.core.recipe import RunSettings

    settings = RunSettings(
        task=task,
        context=context,
        choices=tuple(choice or ()),
        records=None if jsonl is None or task is None else json_objects(jsonl),
        weights=weights,
        dtype=dtype,
        prompt=text,
        prompt_ids=None if prompt_ids is None else options.token_ids(prompt_ids),
        prompts=None if jsonl is None or task is not None else json_lines(jsonl),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
        num_beams=num_beams,
        length_penalty=length_penalty,
        early_stopping=None if early_stopping is None else early_stopping.meaning,
        num_samples=num_samples,
        seed=seed,
        stop=tuple(stop or ()),
        logprobs=logprobs,
        window=window,
        quantize=quantize,
        quantize_embeddings=quantize_embeddings,
        group_size=group_size,
        kv_dtype=kv_dtype,
        theta=theta,
        prompt_lookup=prompt_lookup,
        draft=draft,
        num_draft_tokens=num_draft_tokens,
    )
    with reporter(as_json, live=stream) as report:
        recipe, library = start(model, backend, device, report)
        with computing(library, no_jit=no_jit):
            result = recipe.run(settings, library, report)
        result["memory"] = peak_memory(library)
        report.finish(result)
        if stats:
            report.note(stats_line(result.get("timing", {}), result["memory"]))
