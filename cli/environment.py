"""What is added to a refusal: the environment variable behind a setting, and what to lower where
memory ran out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand

from tfx.cli.lighter import lighter
from tfx.core.errors import OutOfMemory, TfxError


class ModelCommand(TyperCommand):
    """A command whose refusals name the variable behind a setting that nobody typed, and options
    that take less memory."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TfxError as error:
            for line in _variables_behind(str(error), ctx):
                error.add_note(line)
            if isinstance(error, OutOfMemory) and (advice := lighter(ctx)):
                error.add_note(advice)
            raise


def _variables_behind(message: str, ctx: Any) -> Iterator[str]:
    """`--dtype comes from TFX_DTYPE`, for each variable that `message` is about.

    It is about those whose flag or whose value it names, without naming the variable itself.
    """
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name)
        if source is None or source.name != "ENVIRONMENT":
            continue
        flag, value = option.opts[0], str(ctx.params[option.name])
        about = {flag, value, value.partition(":")[0]}
        words = {word.strip("'\",.:;()") for word in message.split()}
        if about & words and option.envvar not in words:
            yield f"{flag} comes from {option.envvar}"
