"""Which plugins and commands are installed: read from package metadata, importing none of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "tfx"
"""The entry-point group of plugins."""

COMMANDS = f"{GROUP}.commands"
"""The entry-point group of the commands that plugins add to `tfx`."""

OURS = "tfx-lm"
"""The distribution that tfx itself comes in."""

UNKNOWN = "unknown"
"""Stands for a name or version that damaged metadata does not tell."""


@dataclass(frozen=True)
class Installed:
    """A plugin, or a command of one, that a distribution declares.

    Attributes:
        name: of the entry point; of the distribution where its entry points cannot be read.
        distribution: what `pip uninstall` calls it.
        version: of the distribution.
        entry_point: None where the metadata is damaged.
        damage: one clause that says how, else empty.
        group: of the entry point, `GROUP` or `COMMANDS`.
    """

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint | None
    damage: str = ""
    group: str = GROUP

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"

    @property
    def title(self) -> str:
        """What a message calls it: `plugin 'acme'`."""
        return f"{'command' if self.group == COMMANDS else 'plugin'} {self.name!r}"

    @property
    def is_ours(self) -> bool:
        return canonical(self.distribution) == OURS

    @property
    def names(self) -> frozenset[str]:
        """What an environment variable may call it: the entry point or the distribution."""
        return frozenset({canonical(self.name), canonical(self.distribution)})

    @property
    def removal(self) -> str:
        """The cure for a plugin that does not work."""
        if self.distribution == UNKNOWN:
            return "Remove its .dist-info folder"
        if self.is_ours:
            return f"Reinstall it: pip install --force-reinstall {OURS}"
        return f"Upgrade it, or: pip uninstall {self.distribution}"

    def cure_for(self, error: BaseException, target: str) -> str:
        """The cure for a plugin that fails with `error` when `target` is imported or called.

        A package of somebody else's that is missing comes with an installation, but neither a
        module of the plugin's own nor one that an installed package does not have.
        """
        lacks = error.name if isinstance(error, ModuleNotFoundError) else None
        own = re.split(r"\W", target.strip())[0]
        if self.is_ours or not lacks or "." in lacks or lacks == own:
            return self.removal
        reinstall = f"pip install --force-reinstall {self.distribution}"
        return f"It needs {lacks!r}; reinstall it with what it needs: {reinstall}"

    @property
    def downgrade(self) -> str:
        """The cure for a plugin written for a newer tfx."""
        # The leading number that counts: 2 of 2.1.3, 0.4 of 0.4.2.
        series = re.match(r"(?:0\.)*[1-9]\d*", self.version)
        older = f"install '{self.distribution}<{series[0]}'" if series else None
        return f"Upgrade {OURS}, or: pip {older or f'uninstall {self.distribution}'}"


def canonical(name: str) -> str:
    """A distribution name as package indexes compare it: `Tfx_Acme` and `tfx-acme` are one.

    Source: https://packaging.python.org/en/latest/specifications/name-normalization/

    >>> canonical("Tfx_Acme")
    'tfx-acme'
    """
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def installed_plugins(distributions: Iterable[Distribution] | None = None) -> list[Installed]:
    """All plugins and commands of `distributions`: ours first, then by distribution and name.

    Without `distributions`, those on `sys.path`. A distribution found twice counts once, as
    the one that an import would reach. Damaged metadata never raises.
    """
    if distributions is None:
        from importlib.metadata import distributions as on_sys_path

        distributions = on_sys_path()
    found: dict[str, list[Installed]] = {}
    for distribution in distributions:
        if _declares_plugins(distribution) and (plugins := _plugins_of(distribution)):
            found.setdefault(canonical(plugins[0].distribution), plugins)
    everything = (plugin for plugins in found.values() for plugin in plugins)
    return sorted(everything, key=lambda p: (not p.is_ours, canonical(p.distribution), p.name))


def commands_may_be_declared() -> bool:
    """False where no distribution declares a command of ours; True where one does, or where that
    takes more than a look into folders.

    For those who would wait for nothing else: importing `importlib.metadata`, and parsing, takes
    longer than to show help.
    """
    if any(hasattr(f, "find_distributions") and f is not PathFinder for f in sys.meta_path):
        return True
    return any(map(_commands_may_be_in, sys.path))


def _commands_may_be_in(place: str) -> bool:
    try:
        names = os.listdir(place or ".")
    except NotADirectoryError:  # an archive
        return True
    except OSError:
        return False
    metadata = [name for name in names if name.lower().endswith((".dist-info", ".egg-info"))]
    return place.endswith(".egg") or any(
        _declares_commands(os.path.join(place, name, "entry_points.txt")) for name in metadata
    )


def _declares_commands(entry_points: str) -> bool:
    try:
        with open(entry_points, "rb") as file:
            return f"[{COMMANDS}]".encode() in file.read()
    except OSError:
        return False


def _declares_plugins(distribution: Distribution) -> bool:
    """Whether a group of ours stands in its entry points; cheaper than parsing every package's."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except Exception:  # unreadable, so nothing says that it is one of ours
        return False
    return any(line.strip() in (f"[{GROUP}]", f"[{COMMANDS}]") for line in text.splitlines())


def _plugins_of(distribution: Distribution) -> list[Installed]:
    """The plugins of one distribution; where its metadata is damaged, one that says so."""
    name, version = _header(distribution, "Name"), _header(distribution, "Version")
    if not (name and version):
        damage = f"a package in {distribution.locate_file('')} has lost its name or version"
        return [Installed(UNKNOWN, name or UNKNOWN, version or UNKNOWN, None, damage)]
    try:
        entry_points = [e for e in distribution.entry_points if e.group in (GROUP, COMMANDS)]
    except Exception as error:
        damage = f"its entry_points.txt cannot be read ({error})"
        return [Installed(name, name, version, None, damage)]
    return [Installed(e.name, name, version, e, group=e.group) for e in entry_points]


def _header(distribution: Distribution, field: str) -> str | None:
    """One field of the metadata, read without the email parser, which is slow to import."""
    try:
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    except Exception:
        return None
    found = re.search(rf"^{field}:[ \t]*(\S+)", text.partition("\n\n")[0], re.MULTILINE)
    return found and found[1]
