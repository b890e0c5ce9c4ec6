"""`tfx models`."""

from __future__ import annotations

import typer

from tfx.cli import options
from tfx.cli.output import emit_json, emit_table

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def models(as_json: options.AsJson = False) -> None:
    from tfx.core.plugins import PluginHost

    found = [
        {
            "name": name,
            "summary": offer.spec.summary,
            "distribution": offer.distribution,
            "version": offer.version,
        }
        for name, offer in PluginHost().models().items()
    ]
    if as_json:
        emit_json({"models": found})
        return
    rows = [(m["name"], f"{m['distribution']} {m['version']}", m["summary"]) for m in found]
    emit_table(("MODEL", "FROM", "SUMMARY"), rows)
