"""The plugin host: finds every installed plugin, loads each by itself, keeps what they offer.

A broken plugin never disturbs the rest: its fault is kept beside its distribution and the
cure, for `tfx plugins` to show, and comes up elsewhere only when the plugin owns what was
asked for. Our own backends and models come in through the same door as everybody's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tfx.core.errors import TfxError
from tfx.core.installed import COMMANDS, GROUP, Installed, canonical, installed_plugins
from tfx.core.plugin_loader import (
    CRASHES,
    NAMES,
    Plugin,
    Spec,
    Status,
    is_name,
    load,
    load_command,
)
from tfx.core.specs import API, OLDEST, BackendSpec, KernelSpec, LoggerSpec, ModelSpec, Probe
from tfx.core.wording import in_words, kind_of, one_line

if TYPE_CHECKING:
    from importlib.metadata import Distribution

SpecT = TypeVar("SpecT", bound=Spec)

_NOUNS: dict[type[Spec], str] = {
    BackendSpec: "backend",
    ModelSpec: "model",
    KernelSpec: "kernel",
    LoggerSpec: "logger",
}


@dataclass(frozen=True)
class Offer(Generic[SpecT]):
    """A backend, a model, a kernel or a logger, and the plugin that brings it."""

    spec: SpecT
    source: Installed

    @property
    def distribution(self) -> str:
        return self.source.distribution

    @property
    def version(self) -> str:
        return self.source.version


@dataclass(frozen=True)
class PluginInfo:
    """One entry point and what became of it.

    Attributes:
        name: of the entry point.
        distribution: where it comes from.
        version: of the distribution.
        status: "ok", "broken", "disabled" (by TFX_DISABLE_PLUGINS) or "not loaded" (left out
            of TFX_LOAD_PLUGINS). A broken plugin may still offer something.
        offers: names of the backends, models, kernels and loggers it brings; `tfx NAME` for a
            command.
        fault: one line that says why it is not in order, or None.
        cure: one line that says what to do, or None.
    """

    name: str
    distribution: str
    version: str
    status: Status
    offers: tuple[str, ...]
    fault: str | None
    cure: str | None


class PluginHost:
    """The plugins of one run. Loads them when first asked; make another to load anew.

    Args:
        distributions: where to look for entry points; what is on `sys.path` by default.
        environ: where to look for the variables below; `os.environ` by default.
        own_commands: names of commands that no plugin may take.

    `TFX_LOAD_PLUGINS` names the only plugins of other distributions to load (empty: none).
    `TFX_DISABLE_PLUGINS` names plugins not to load, ours included, and wins. Both take names
    of entry points and of distributions, separated by commas. With `TFX_STRICT_PLUGINS=1`
    a broken plugin raises `PluginError` from every method.

    >>> host = PluginHost(distributions=[])
    >>> host.plugins(), dict(host.backends())
    ([], {})
    """

    def __init__(
        self,
        distributions: Iterable[Distribution] | None = None,
        environ: Mapping[str, str] | None = None,
        own_commands: Collection[str] = (),
    ) -> None:
        self._distributions = None if distributions is None else list(distributions)
        self._environ = os.environ if environ is None else environ
        self._own_commands = own_commands
        self._probes: dict[str, Probe] = {}

    def backends(self) -> Mapping[str, Offer[BackendSpec]]:
        """The backends on offer, by name in alphabetical order; `probe` says which can run."""
        return self._offers(BackendSpec)

    def models(self) -> Mapping[str, Offer[ModelSpec]]:
        """The models on offer, by name in alphabetical order."""
        return self._offers(ModelSpec)

    def kernels(self) -> Mapping[str, Offer[KernelSpec]]:
        """The kernels on offer, by `backend:op` in alphabetical order."""
        return self._offers(KernelSpec)

    def loggers(self) -> Mapping[str, Offer[LoggerSpec]]:
        """The loggers on offer, by name in alphabetical order."""
        return self._offers(LoggerSpec)

    def plugins(self) -> list[PluginInfo]:
        """Every entry point there is: ours first, then by distribution and name; then commands."""
        return [_info(plugin) for plugin in (*self._plugins, *self._commands)]

    def commands(self) -> Mapping[str, PluginInfo]:
        """What each command of a plugin is, by name in alphabetical order. Imports none of them."""
        return {name: _info(command) for name, command in sorted(self._commands_by_name.items())}

    def command(self, name: str) -> Callable[..., object]:
        """The function behind the command `name`, imported now; `KeyError` where there is none.

        Raises:
            PluginError: it cannot be imported, is no function, or several plugins have the name.
            UsageError: the user keeps it out.
        """
        return load_command(self._commands_by_name[name])

    @property
    def strict(self) -> bool:
        """Whether a plugin that does not work is an error for those who did not ask for it, too."""
        return self._environ.get("TFX_STRICT_PLUGINS", "") not in ("", "0")

    def why_missing(self, name: str) -> TfxError | None:
        """The error to raise for `name`, not on offer, where a plugin of that name is at fault.

        It is one whose entry point or distribution (with or without `tfx-`) is called so:
        `PluginError` where it is broken, `UsageError` where the user keeps it out.
        """
        asked = canonical(name)
        for plugin in self._plugins:
            if plugin.faults and {asked, f"tfx-{asked}"} & plugin.source.names:
                return plugin.error()
        return None

    def probe(self, name: str) -> Probe:
        """Whether the backend `name` can run here; `KeyError` where none is on offer.

        Each backend is probed once. One whose probe fails is not ready.
        """
        if name not in self._probes:
            self._probes[name] = _probe(self.backends()[name])
        return self._probes[name]

    def _offers(self, kind: type[SpecT]) -> dict[str, Offer[SpecT]]:
        offers: dict[str, Offer[SpecT]] = {}
        for plugin in self._plugins:
            for spec in plugin.specs:
                if isinstance(spec, kind):
                    offers[spec.name] = Offer(spec, plugin.source)
        return dict(sorted(offers.items()))

    @cached_property
    def _plugins(self) -> list[Plugin]:
        plugins = self._admitted(GROUP)
        for plugin in plugins:
            if plugin.status == "ok":
                load(plugin)
        _settle_names(plugins)
        self._refuse_broken(plugins)
        return plugins

    @cached_property
    def _commands(self) -> list[Plugin]:
        commands = self._admitted(COMMANDS)
        _settle_commands(commands, self._own_commands)
        self._refuse_broken(commands)
        return commands

    @property
    def _commands_by_name(self) -> dict[str, Plugin]:
        """Of several with one name, the first that the environment lets in."""
        last_first = reversed(self._commands)
        ranked = sorted(last_first, key=lambda command: command.status in ("ok", "broken"))
        return {command.source.name: command for command in ranked}

    @cached_property
    def _installed(self) -> list[Installed]:
        return installed_plugins(self._distributions)

    def _admitted(self, group: str) -> list[Plugin]:
        """What is installed of a group, marked where the environment keeps it out."""
        disabled = _names(self._environ.get("TFX_DISABLE_PLUGINS", ""))
        allowed = self._environ.get("TFX_LOAD_PLUGINS")
        plugins = [Plugin(source) for source in self._installed if source.group == group]
        for plugin in plugins:
            source = plugin.source
            if source.names & disabled:
                plugin.stays_out("disabled", "TFX_DISABLE_PLUGINS names it", "Take it out of there")
            elif not (source.is_ours or allowed is None or source.names & _names(allowed)):
                plugin.stays_out("not loaded", "TFX_LOAD_PLUGINS leaves it out", "Add it there")
        return plugins

    def _refuse_broken(self, plugins: list[Plugin]) -> None:
        for plugin in plugins:
            if self.strict and plugin.status == "broken":
                raise plugin.error()


def _names(listed: str) -> set[str]:
    """The names in a comma-separated variable."""
    return {canonical(name) for name in listed.split(",") if name.strip()}


def _info(plugin: Plugin) -> PluginInfo:
    return PluginInfo(
        name=plugin.source.name,
        distribution=plugin.source.distribution,
        version=plugin.source.version,
        status=plugin.status,
        offers=plugin.offers,
        fault=plugin.fault or None,
        cure=plugin.faults[0].cure if plugin.faults else None,
    )


def _settle_names(plugins: list[Plugin]) -> None:
    """Leave each name to the first plugin that claims it, one we can speak with before others."""
    claims = [(spec, plugin) for plugin in plugins for spec in plugin.specs]
    owners: dict[tuple[type[Spec], str], Plugin] = {}
    for spec, plugin in sorted(claims, key=lambda claim: not OLDEST <= claim[0].api <= API):
        key = type(spec), spec.name
        if key in owners:
            plugin.specs.remove(spec)
            plugin.breaks(f"{title(spec)} already comes from {owners[key].source}")
            continue
        owners[key] = plugin
        if fault := interface_fault(title(spec), spec.api, plugin.source):
            plugin.breaks(fault[0], cure=fault[1])


def _settle_commands(commands: list[Plugin], own: Collection[str]) -> None:
    """Leave each name to the only plugin that claims it; where several do, none has it."""
    claims = [command for command in commands if command.status == "ok"]
    for command in claims:
        name = command.source.name
        rivals = [c for c in claims if c.source.name == name and c is not command]
        if not is_name(name):
            command.breaks(f"nobody can type it; {NAMES}")
        elif name in own:
            command.breaks("tfx has a command of its own by that name")
        elif rivals:
            others = in_words(str(rival.source) for rival in rivals)
            which = f"the name is also claimed by {others}, and none of them runs"
            command.breaks(which, cure="Uninstall one, or name one in TFX_DISABLE_PLUGINS")


def _probe(offer: Offer[BackendSpec]) -> Probe:
    """What the backend's probe finds; its own failure is a reason not to be ready."""
    spec = offer.spec
    if fault := interface_fault("it", spec.api, offer.source):
        return Probe(ready=False, reason=fault[0])
    if spec.probe is None:
        return Probe(ready=True)
    try:
        probe = import_target(spec.probe)()
    except CRASHES as error:
        return Probe(ready=False, reason=f"the probe of {offer.source} failed ({one_line(error)})")
    if not (isinstance(probe, Probe) and isinstance(probe.devices, tuple)):
        returned = f"{kind_of(probe)}, not a Probe with a tuple of devices"
        return Probe(ready=False, reason=f"the probe of {offer.source} returned {returned}")
    return probe


def title(spec: Spec) -> str:
    """`backend 'acme'`."""
    return f"{_NOUNS[type(spec)]} {spec.name!r}"


def interface_fault(subject: str, api: int, source: Installed) -> tuple[str, str] | None:
    """What to say, and the cure, where an interface is not spoken yet, or not any more."""
    if api > API:
        return f"{subject} speaks interface {api}; this tfx speaks {API}", source.downgrade
    if api < OLDEST:
        oldest = f"the oldest that this tfx speaks is {OLDEST}"
        cure = f"Upgrade it: pip install -U {source.distribution}"
        return f"{subject} speaks interface {api}; {oldest}", cure
    return None


def import_target(target: str) -> Any:
    """What an import string `"package.module:attribute"` points to."""
    module, _, attribute = target.partition(":")
    return attrgetter(attribute)(import_module(module))
