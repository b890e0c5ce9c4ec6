"""Made-up distributions, as an installer would leave them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

IMPORTS = """
from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec, KernelSpec, ModelSpec, Probe
"""


def install(
    folder: Path,
    distribution: str,
    code: str = "",
    *,
    version: str = "1.0",
    plugins: Mapping[str, str] | None = None,
    commands: Mapping[str, str] | None = None,
) -> None:
    """Put into `folder` a distribution, say `tfx-acme`, with a module `tfx_acme` that holds `code`.

    `plugins` and `commands` are its entry points; with neither, the module is the plugin `acme`.
    """
    module = distribution.replace("-", "_")
    if plugins is None and commands is None:
        plugins = {distribution.removeprefix("tfx-"): module}
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(IMPORTS + code)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    )
    groups = {"tfx": plugins, "tfx.commands": commands}
    (info / "entry_points.txt").write_text(
        "".join(
            "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""])
            for group, points in groups.items()
            if points
        )
    )


def forget(folder: Path) -> None:
    """Drop the modules in `folder` that have been imported, as a new process would."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
