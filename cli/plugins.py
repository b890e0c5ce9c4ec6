"""`tfx plugins`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from tfx.cli import options
from tfx.cli.output import emit, emit_json, emit_table

if TYPE_CHECKING:
    from tfx.core.plugins import PluginInfo

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def plugins(as_json: options.AsJson = False) -> None:
    from tfx.core.plugins import PluginHost

    found = PluginHost().plugins()
    if as_json:
        emit_json({"plugins": [asdict(plugin) for plugin in found]})
        return
    rows = [(p.name, _source(p), p.status, ", ".join(p.offers)) for p in found]
    emit_table(("PLUGIN", "FROM", "STATUS", "OFFERS"), rows)
    for plugin in found:
        if plugin.fault:
            emit(f"\n{plugin.name} ({_source(plugin)}): {plugin.fault}\n  {plugin.cure}")


def _source(plugin: PluginInfo) -> str:
    return f"{plugin.distribution} {plugin.version}"
