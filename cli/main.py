"""The command `tfx`: the list of its commands, and how one is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tfx.cli.errors import CommandLineError, guarded
from tfx.core.errors import TfxError

if TYPE_CHECKING:
    from tfx.core.plugins import PluginHost, PluginInfo

PROGRAM = "tfx"

COMMANDS = {
    "train": "Train a model and print samples of what it learned.",
    "run": "Sample from a trained model.",
    "eval": "Measure the loss of a trained model on data.",
    "tokenizer": "Train a tokenizer, or turn text to token ids and back.",
    "convert": "Write a checkpoint as other programs read it.",
    "quantize": "Write the weights of a model in fewer bits.",
    "prune": "Write a model without the attention heads that matter least.",
    "resonate": "Judge a text token by token, and steer attention by that.",
    "explain": "Show what a model makes of a text, place by place.",
    "conformance": "Say what is right about a backend, and what is not.",
    "bench": "Time a model's work on several backends, side by side.",
    "compare": "Hold two backends against each other, layer by layer.",
    "backends": "List the backends, and say which can run here.",
    "models": "List the models.",
    "plugins": "List the plugins, and say what ails a broken one.",
    "doctor": "Describe this installation and what is broken in it.",
}
"""Each command and what it is for. It is the `app` of the module of its name."""


class Commands(TyperGroup):
    """Typer's group, but a command ends as `tfx.cli.errors` says, and plugins may add to it."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:  # a shell asks what it could offer
            with suppress(TfxError):  # no offer, rather than a complaint amid somebody's typing
                return super().main(args=args, prog_name=PROGRAM)
            sys.exit()
        arguments = list(sys.argv[1:] if args is None else args)
        sys.exit(guarded(lambda: self._dispatch(arguments)))

    def _dispatch(self, arguments: list[str]) -> None:
        with self.make_context(PROGRAM, arguments) as context:
            self.invoke(context)

    def get_command(self, context: Any, name: str) -> Any:
        return self.commands.get(name) or self._with_plugins().get(name)

    def list_commands(self, context: Any) -> list[str]:
        return list(self._with_plugins())

    def _with_plugins(self) -> Any:
        """All commands, for which package metadata is read: when help or an unknown one asks."""
        from tfx.core.installed import commands_may_be_declared

        if not commands_may_be_declared():
            return self.commands
        from tfx.core.plugins import PluginHost

        host = PluginHost(own_commands=COMMANDS)
        for name, plugin in host.commands().items():
            self.commands.setdefault(name, OfPlugin(host, plugin))
        return self.commands


class Lazy(TyperCommand):
    """Stands for a command whose module is imported when it is called.

    So help and a typo are answered before anything heavy could be imported.
    """

    def make_context(self, *args: Any, **extra: Any) -> Any:
        command = typer.main.get_command(import_module(f"tfx.cli.{self.name}").app)
        command.help = "\n\n".join(text for text in (self.help, command.help) if text)
        try:
            return command.make_context(*args, **extra)
        except CommandLineError as error:
            parent: Any = extra.get("parent")
            if parent is not None and error.ctx is None:  # the parser does not say whose option
                error.ctx = type(parent)(command, parent=parent, info_name=self.name)
            raise


class OfPlugin(TyperCommand):
    """Stands for a command that a plugin brings: a function, imported when it is called."""

    def __init__(self, host: PluginHost, plugin: PluginInfo) -> None:
        source = f"from {plugin.distribution} {plugin.version}"
        at_fault = plugin.status != "ok"  # whoever calls it hears why
        super().__init__(plugin.name, short_help=source, hidden=at_fault)
        self._host = host

    def make_context(self, *args: Any, **extra: Any) -> Any:
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command()(self._host.command(str(self.name)))
        return typer.main.get_command(alone).make_context(*args, **extra)


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
for name, purpose in COMMANDS.items():
    app.command(name, help=purpose, cls=Lazy)(lambda: None)


def show_version(asked: bool) -> None:
    if asked:
        import tfx

        typer.echo(f"{PROGRAM} {tfx.__version__}")
        raise typer.Exit


@app.callback()
def without_command(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True),
    ] = False,
) -> None:
    """Language models that run and train unchanged on any array library."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def main() -> None:
    """What `tfx.__main__` runs, once this module is there."""
    if isinstance(sys.stdout, TextIOWrapper):  # a letter it has no code for is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    typer.main.get_command(app).main()
