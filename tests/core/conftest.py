"""A shelf of made-up distributions for the tests of the plugin host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tfx.core.plugins import PluginHost

IMPORTS = """
from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec, ModelSpec, Probe
"""


class Shelf:
    """A folder on `sys.path` to which tests add distributions as an installer would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        distribution: str,
        code: str,
        *,
        version: str = "1.0",
        entry_points: dict[str, str] | None = None,
    ) -> None:
        """Install `distribution`, say `tfx-acme`, with a module `tfx_acme` that holds `code`.

        Without `entry_points` the module is the plugin `acme`.
        """
        module = distribution.replace("-", "_")
        declared = entry_points or {distribution.removeprefix("tfx-"): module}
        (self.folder / f"{module}.py").write_text(IMPORTS + code)
        info = self.info(distribution, version)
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n\nName: not this\n"
        )
        lines = [f"{name} = {value}\n" for name, value in declared.items()]
        text = "[console_scripts]\nx = y:z\n\n[tfx]\n" + "".join(lines)
        (info / "entry_points.txt").write_text(text)

    def offer(
        self, distribution: str, *specs: str, hook: str = "tfx_backends", version: str = "1.0"
    ) -> None:
        """Install a distribution whose only hook returns `specs`, given as code."""
        code = f"@hookimpl\ndef {hook}():\n    return [{', '.join(specs)}]\n"
        self.add(distribution, code, version=version)

    def info(self, distribution: str, version: str = "1.0") -> Path:
        """The metadata folder of a distribution."""
        return self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"

    def host(self, **environ: str) -> PluginHost:
        """A host that sees this shelf and nothing else."""
        return PluginHost(distributions(path=[str(self.folder)]), environ)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield Shelf(folder)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
