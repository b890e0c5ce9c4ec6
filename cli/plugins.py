"""`tfx plugins` and `tfx plugins new`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfx.cli import options
from tfx.cli.output import emit, emit_json, emit_table
from tfx.core.errors import UsageError
from tfx.core.files import shown

if TYPE_CHECKING:
    from tfx.core.plugins import PluginHost, PluginInfo

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@app.callback()
def plugins(context: typer.Context, as_json: options.AsJson = False) -> None:
    if context.invoked_subcommand is not None:
        if as_json:
            raise UsageError("--json is for the list of plugins; leave it out")
        return
    found = _host().plugins()
    if as_json:
        emit_json({"plugins": [asdict(plugin) for plugin in found]})
        return
    rows = [(p.name, _source(p), p.status, ", ".join(p.offers)) for p in found]
    emit_table(("PLUGIN", "FROM", "STATUS", "OFFERS"), rows)
    for plugin in found:
        if plugin.fault:
            emit(f"\n{plugin.name} ({_source(plugin)}): {plugin.fault}\n  {plugin.cure}")


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What will be typed after --backend.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="DIR",
            help="Folder to write; new, or empty. By default tfx-NAME.",
        ),
    ] = None,
) -> None:
    """Begin a backend of your own: a package that installs, with a stub for each primitive."""
    from tfx.cli.scaffold import distribution_of, project, write_project

    folder = out or Path(distribution_of(name))
    _refuse_taken(name, distribution_of(name))
    files = project(name)
    write_project(files, folder)
    emit(f"{shown(folder)}: {len(files)} files, among them a backend to fill in. Next:")
    emit(f"  pip install -e {shlex.quote(f'{folder}[test]')}")
    emit(f"  tfx backends                # lists {name}")
    emit(f"  tfx conformance {name:<11} # says what is missing, and what is wrong")


def _refuse_taken(name: str, distribution: str) -> None:
    for plugin in _host().plugins():
        if name in (plugin.name, *plugin.offers) or distribution == plugin.distribution:
            raise UsageError(
                f"the name {name!r} is taken: {_source(plugin)} has it; choose another"
            )


def _host() -> PluginHost:
    from tfx.cli.main import COMMANDS
    from tfx.core.plugins import PluginHost

    return PluginHost(own_commands=COMMANDS)


def _source(plugin: PluginInfo) -> str:
    return f"{plugin.distribution} {plugin.version}"
