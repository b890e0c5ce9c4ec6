"""`tfx backends`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from tfx.cli import options
from tfx.cli.output import emit, emit_json, emit_table

if TYPE_CHECKING:
    from tfx.core.plugins import PluginHost


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def backends(as_json: options.AsJson = False) -> None:
    from tfx.core.plugins import PluginHost

    host = PluginHost()
    found = survey(host)
    if as_json:
        emit_json({"backends": found})
        return
    rows = [
        (
            b["name"],
            ", ".join(b["devices"]),
            b["library"],
            f"{b['distribution']} {b['version']}",
            status(b),
        )
        for b in found
    ]
    emit_table(("BACKEND", "DEVICES", "LIBRARY", "FROM", "STATUS"), rows)
    if kernels := host.kernels():
        emit("")
        emit_table(
            ("KERNEL", "FROM", "SUMMARY"),
            [(name, str(offer.source), offer.spec.summary) for name, offer in kernels.items()],
        )


def survey(host: PluginHost) -> list[dict[str, Any]]:
    """What is to be known of each backend on this machine; probes them all."""
    found = []
    for name, offer in host.backends().items():
        probe = host.probe(name)
        found.append(
            {
                "name": name,
                "ready": probe.ready,
                "installed": probe.installed,
                "reason": probe.reason,
                "cure": probe.cure,
                "warning": probe.warning,
                "devices": list(probe.choices),
                "library": probe.version,
                "distribution": offer.distribution,
                "version": offer.version,
                "summary": offer.spec.summary,
                "install_hint": offer.spec.install_hint,
                "kernels": [
                    {"op": kernel.spec.op, "distribution": kernel.distribution}
                    for kernel in host.kernels().values()
                    if kernel.spec.backend == name
                ],
            }
        )
    return found


def status(backend: dict[str, Any]) -> str:
    """Ready, or why not and what to do."""
    if backend["ready"]:
        return f"ready, but {backend['warning']}" if backend["warning"] else "ready"
    if backend["installed"]:
        cure = f"; {backend['cure']}" if backend["cure"] else ""
        return f"not ready: {backend['reason'] or 'no reason given'}{cure}"
    hint = backend["cure"] or backend["install_hint"]
    return f"not installed: {hint}" if hint else "not installed"
