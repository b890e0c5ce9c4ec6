"""`tfx doctor`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from tfx.cli import options
from tfx.cli.backends import status, survey
from tfx.cli.output import emit, emit_json
from tfx.core.errors import TfxError

GOOGLES = "tfx"
"""The distribution on PyPI that has our import name: TensorFlow Extended."""

TELLING_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONPATH",
)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def doctor(as_json: options.AsJson = False) -> None:
    """The exit code is 1 if something is broken."""
    found, problems = examine(os.environ)
    if as_json:
        emit_json(found | {"problems": problems})
    else:
        _show(found, problems)
    if problems:
        raise typer.Exit(TfxError.exit_code)


def examine(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """What there is, by topic, and a line for each thing that is broken."""
    from dataclasses import asdict

    from tfx.cli.main import COMMANDS
    from tfx.core.plugins import PluginHost

    seeing_all = {**environ, "TFX_STRICT_PLUGINS": ""}
    host = PluginHost(environ=seeing_all, own_commands=COMMANDS)
    found = {
        "tfx": _installation(),
        "python": _python(),
        "numpy": _numpy(),
        "backends": survey(host),
        "plugins": [asdict(plugin) for plugin in host.plugins()],
        "environment": {
            name: value
            for name, value in sorted(environ.items())
            if name.startswith("TFX_") or name in TELLING_VARIABLES
        },
    }
    return found, list(_problems(found, environ.get("TFX_BACKEND") or "auto"))


def _installation() -> dict[str, Any]:
    from importlib import metadata

    import tfx

    versions: dict[str, str | None] = {}
    for distribution in ("tfx-lm", GOOGLES):
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            versions[distribution] = None
    return {
        "version": versions["tfx-lm"],
        "location": str(Path(tfx.__file__).parent),
        "version_of_googles_tfx": versions[GOOGLES],
    }


def _python() -> dict[str, Any]:
    import platform

    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }


def _numpy() -> dict[str, Any]:
    try:
        import numpy as np
    except ImportError as error:
        return {"version": None, "blas": None, "fault": " ".join(str(error).split())}
    built_with: Any = np.show_config(mode="dicts")
    blas = built_with.get("Build Dependencies", {}).get("blas", {})
    named = " ".join(str(blas[key]) for key in ("name", "version") if key in blas)
    return {"version": np.__version__, "blas": named or None, "fault": None}


def _problems(found: Mapping[str, Any], asked: str) -> Iterator[str]:
    """What is broken, from what was found; `asked` is the backend the environment asks for."""
    tfx, numpy = found["tfx"], found["numpy"]
    if tfx["version"] is None:
        yield "tfx-lm is not installed, only its files are here: pip install tfx-lm"
    if tfx["version_of_googles_tfx"] is not None:
        yield (
            f"Google's tfx {tfx['version_of_googles_tfx']} (TensorFlow Extended) is installed too, "
            "and the two share one folder: pip uninstall tfx, "
            "then pip install --force-reinstall --no-deps tfx-lm"
        )
    if numpy["fault"]:
        yield f"NumPy cannot be imported: {numpy['fault']}"
    for plugin in found["plugins"]:
        if plugin["status"] == "broken":
            whose = f"plugin {plugin['name']!r} of {plugin['distribution']} {plugin['version']}"
            yield f"{whose}: {plugin['fault']}. {plugin['cure']}"
    for backend in found["backends"]:
        if backend["warning"]:
            yield f"backend {backend['name']!r}: {backend['warning']}"
    ready = [backend["name"] for backend in found["backends"] if backend["ready"]]
    name = asked.partition(":")[0]
    if not ready:
        yield "no backend can run here"
    elif name not in ("auto", *ready):
        yield f"TFX_BACKEND asks for {name!r}; ready here: {', '.join(ready)}"


def _show(found: Mapping[str, Any], problems: list[str]) -> None:
    tfx, python, numpy = found["tfx"], found["python"], found["numpy"]
    interpreter = f"{python['version']} ({python['implementation']}), {python['executable']}"
    paragraphs = {
        "tfx": [f"{tfx['version'] or 'not installed'} in {tfx['location']}"],
        "python": [interpreter],
        "machine": [f"{python['platform']}, {python['cores']} cores"],
        "numpy": [f"{numpy['version'] or 'missing'}, BLAS: {numpy['blas'] or 'unknown'}"],
        "backends": [_line_of_backend(backend) for backend in found["backends"]],
        "plugins": [
            f"{plugin['name']} of {plugin['distribution']} {plugin['version']}: {plugin['status']}"
            for plugin in found["plugins"]
        ],
        "environment": [f"{name}={value}" for name, value in found["environment"].items()],
        "problems": problems or ["none found"],
    }
    for topic, lines in paragraphs.items():
        for number, line in enumerate(lines or ["-"]):
            emit(f"{topic if number == 0 else '':<13}{line}")


def _line_of_backend(backend: dict[str, Any]) -> str:
    details = [backend["library"], *backend["devices"]]
    shown = ", ".join(detail for detail in details if detail)
    return f"{backend['name']}: {status(backend)}" + (f" ({shown})" if shown else "")
