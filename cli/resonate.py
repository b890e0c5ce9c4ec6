"""`tfx resonate MODEL PROMPT`: judge a text token by token, and steer its attention by that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfx.cli import options
from tfx.cli.environment import ModelCommand
from tfx.cli.judging import KEYS, Judging
from tfx.cli.keys import typed, written
from tfx.cli.options import at_least_0, share_or_0
from tfx.cli.plot import check_drawable
from tfx.cli.prompts import only_one, text_of
from tfx.cli.report import TextReporter, reporter
from tfx.cli.start import computing, start
from tfx.core.errors import UsageError
from tfx.core.files import shown

if TYPE_CHECKING:
    from tfx.core.backend import Backend
    from tfx.core.experiences import ExperienceStore
    from tfx.core.recipe import Resonant
    from tfx.core.resonance import Bounds

app = typer.Typer(add_completion=False, rich_markup_mode=None)

STORE = Path("runs/experiences.jsonl")


@app.command(cls=ModelCommand)
def resonate(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="'tfx models' lists them.")
    ] = None,
    words: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="Text to go on from.")
    ] = None,
    backend: options.BackendName = None,
    device: options.Device = None,
    dtype: options.ElementType = None,
    weights: options.Weights = None,
    prompt: options.PromptText = None,
    file: options.PromptFile = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", "-n", metavar="INT", min=1, help="End after so many."),
    ] = None,
    theta: Annotated[
        float | None,
        typer.Option(
            metavar="FLOAT",
            parser=at_least_0,
            help="To begin with; default: the mean of accepted experiences whose prompt this one "
            "begins with, else 0.75.",
        ),
    ] = None,
    theta_min: Annotated[
        float, typer.Option(metavar="FLOAT", parser=at_least_0, help="Theta does not fall below.")
    ] = 0.0,
    theta_max: Annotated[
        float, typer.Option(metavar="FLOAT", parser=at_least_0, help="Theta does not rise above.")
    ] = 1.0,
    theta_step: Annotated[
        float,
        typer.Option(metavar="FLOAT", parser=at_least_0, help="What a judgement moves theta by."),
    ] = 0.05,
    alternatives: Annotated[
        int, typer.Option(metavar="INT", min=0, max=20, help="How many to show beside a token.")
    ] = 4,
    feedback_file: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="FILE",
            help="Take the keys from a file in place of the terminal.",
        ),
    ] = None,
    store: Annotated[
        Path,
        typer.Option(
            parser=options.path, metavar="FILE", help="Where experiences are kept, as JSON lines."
        ),
    ] = STORE,
    accept: Annotated[bool, typer.Option("--accept", help="What came of it is good.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="What came of it is bad.")] = False,
    score: Annotated[
        float | None,
        typer.Option(
            metavar="FLOAT",
            parser=share_or_0,
            help="How good, from 0 to 1; default: the share of satisfied decisions.",
        ),
    ] = None,
    notes: Annotated[str | None, typer.Option(metavar="TEXT", help="To keep with it.")] = None,
    id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Apply --accept, --reject, --score and --notes to this; its beginning will do.",
        ),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Sum up the experiences.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            parser=options.path, metavar="FILE", help="With --report, draw theta over tokens."
        ),
    ] = None,
    no_jit: options.NoJit = False,
    as_json: options.AsJson = False,
) -> None:
    """Shows one token after the other, each with its probability and its best alternatives, and
    takes a key for it: s, satisfied: the token stands and theta rises; n, not satisfied: the next
    alternative comes and theta falls; u: undo; q: quit. Theta multiplies the scores of attention.

    All that happens is kept at once in the store of experiences, which --report sums up.
    """
    from tfx.core.experiences import ExperienceStore

    verdict = _verdict(accept, reject, score, notes)
    experiences = ExperienceStore(store)
    if plot is not None and not report:
        raise UsageError("--plot draws what --report sums up; add --report")
    if report and (verdict or id is not None or words is not None):
        raise UsageError(
            "--report sums up what is there; leave out the PROMPT, --id and judgements"
        )
    if id is not None and (model is not None or not verdict):
        raise UsageError(
            "--id judges what is there: without MODEL, by --accept, --reject, --score or --notes"
        )
    with reporter(as_json) as out:
        if report:
            out.finish(_sum_up(experiences, model, plot, out))
            return
        if id is not None:
            found = experiences.validate(id, **verdict)
            out.result(f"{found.id}: {found.status}")
            out.finish(found.described())
            return
        if model is None:
            raise UsageError("say which MODEL, and the PROMPT; or --report, or --id")
        only_one({"PROMPT": words, "--prompt": prompt, "--file": file})
        text = _prompt(words if prompt is None else prompt, file, feedback_file)
        by_file = feedback_file is not None
        keys = written(feedback_file, "".join(KEYS)) if feedback_file is not None else typed()
        origin = model if weights is None else _origin(weights)
        from tfx.core.recipe import ResonateSettings
        from tfx.core.resonance import Bounds

        bounds = Bounds(theta_min, theta_max, theta_step)
        settings = ResonateSettings(
            prompt=text,
            theta=_beginning(theta, bounds, experiences, text, origin, out),
            bounds=bounds,
            weights=weights,
            dtype=dtype,
            max_new_tokens=max_new_tokens,
        )
        recipe, library = _opened(model, backend, device, out)
        with computing(library, no_jit=no_jit):
            session = recipe.resonance(settings, library, out)
            judging = Judging.begin(session, experiences, text, origin, alternatives, by_file)
            try:
                judging.run(keys, out)
            finally:
                out.note(f"kept as {judging.name} in {shown(store)}")
        if verdict:
            experiences.validate(judging.name, **verdict)
        out.result(text + session.response)
        made = {
            "store": str(store),
            "token_ids": session.token_ids,
            "finish_reason": session.finish_reason,
        }
        out.finish(experiences.experience(judging.name).described() | made)


def _verdict(accept: bool, reject: bool, score: float | None, notes: str | None) -> dict[str, Any]:
    """What was said of the outcome."""
    if accept and reject:
        raise UsageError("--accept and --reject: it is one or the other")
    status = "accepted" if accept else "rejected" if reject else None
    values = {"status": status, "score": score, "notes": notes}
    return {name: value for name, value in values.items() if value is not None}


def _origin(weights: Path) -> str:
    """What the store calls them: the same however a path to them is spelled."""
    return str(weights.resolve() if weights.exists() else weights)


def _sum_up(
    store: ExperienceStore, model: str | None, picture: Path | None, out: TextReporter
) -> dict[str, Any]:
    from tfx.cli.resonance_report import report_on

    if picture is not None:
        check_drawable(str(picture), None)
    names = None if model is None else {model, _origin(Path(model))}
    return {"model": model} | report_on(store, names, picture, out)


def _prompt(text: str | None, file: Path | None, feedback: Path | None) -> str:
    if text is None and str(feedback) != "-":  # stdin has the keys
        text = text_of(file)
    if not text:
        raise UsageError("there is nothing to go on from; give a PROMPT")
    return text


def _beginning(
    asked: float | None,
    bounds: Bounds,
    store: ExperienceStore,
    prompt: str,
    model: str,
    out: TextReporter,
) -> float:
    """The theta to begin with, within the bounds."""
    from tfx.core.resonance import START

    if asked is not None:
        if bounds.clamped(asked) != round(asked, 9):
            raise UsageError(
                f"--theta {asked:g}: expected a number from {bounds.low:g} to {bounds.high:g}, "
                "between which theta keeps; --theta-min and --theta-max change that"
            )
        return asked
    found = store.theta_for(prompt, model)
    why = "" if found is None else "the mean of accepted experiences that begin like this"
    theta = START if found is None else found
    within = bounds.clamped(theta)
    if within != round(theta, 9):
        words = f"{theta:.4g} ({why})" if why else f"{theta:.4g}"
        why = f"{words} is not from {bounds.low:g} to {bounds.high:g}"
    if why:
        out.note(f"theta begins at {within:.4g}: {why}")
    return within


def _opened(
    model: str, backend: str | None, device: str | None, out: TextReporter
) -> tuple[Resonant, Backend]:
    from tfx.core.recipe import Resonant

    recipe, library = start(model, backend, device, out)
    if not isinstance(recipe, Resonant):
        raise UsageError(f"{model} does not heed theta")
    return recipe, library
