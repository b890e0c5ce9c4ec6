"""Loads one plugin or command: imports it, and turns whatever goes wrong into faults."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from tfx.core.errors import PluginError, TfxError, UsageError
from tfx.core.installed import COMMANDS, GROUP, Installed
from tfx.core.specs import BackendSpec, KernelSpec, LoggerSpec, ModelSpec
from tfx.core.wording import in_words, kind_of, one_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pluggy import PluginManager

Spec = BackendSpec | ModelSpec | KernelSpec | LoggerSpec
Status = Literal["ok", "broken", "disabled", "not loaded"]

HOOKS: dict[str, type[Spec]] = {
    "tfx_backends": BackendSpec,
    "tfx_models": ModelSpec,
    "tfx_kernels": KernelSpec,
    "tfx_loggers": LoggerSpec,
}
"""What each hook of `tfx.core.hookspecs` returns a list of. A new hook is one more line."""

NAMES = "names are lower case letters, digits, '-', '_' and '.'"
"""What may be typed after `tfx`, `tfx run` or `--backend`, as a message says it."""

DEFERRED: dict[str, Callable[[Any], bool]] = {
    "a coroutine function": inspect.iscoroutinefunction,
    "a generator function": inspect.isgeneratorfunction,
    "an asynchronous generator function": inspect.isasyncgenfunction,
}
"""Functions of which a call runs nothing: it makes an object that nobody would ask."""

CRASHES = (Exception, SystemExit)
"""What other people's code may do to us. Ctrl-C is the user's, and passes."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a plugin, what to do, and the exception behind it."""

    text: str
    cure: str
    error: BaseException | None = None


@dataclass
class Plugin:
    """An installed plugin or command, and what became of it. A broken one may offer something."""

    source: Installed
    status: Status = "ok"
    specs: list[Spec] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def breaks(self, text: str, error: BaseException | None = None, cure: str = "") -> None:
        """Note a fault; what the plugin offers apart from that stands."""
        self.status = "broken"
        self.faults.append(Fault(text, cure or self.source.removal, error))

    def stays_out(self, status: Status, text: str, cure: str) -> None:
        """Note that the user's environment keeps the plugin from being loaded."""
        self.status = status
        self.faults.append(Fault(text, cure))

    @property
    def offers(self) -> tuple[str, ...]:
        """The names of what it brings; a command as it is typed."""
        if self.source.group == COMMANDS:
            return (f"tfx {self.source.name}",) if self.status == "ok" else ()
        return tuple(spec.name for spec in self.specs)

    @property
    def fault(self) -> str:
        """All faults in one line."""
        return "; ".join(fault.text for fault in self.faults)

    def error(self) -> TfxError:
        """The error to raise for a plugin with a fault, chained from the exception behind it."""
        kind = PluginError if self.status == "broken" else UsageError
        fault = f"{self.source.title} of {self.source} is {self.status}: {self.fault}"
        error = kind(f"{fault}. {self.faults[0].cure}")
        error.__cause__ = self.faults[0].error
        return error


def load(plugin: Plugin) -> None:
    """Import `plugin`, keep the descriptors its hooks return, and note every fault.

    Each plugin has a pluggy manager of its own: with one for all, a call stops at the first
    hook that raises, and the rest are never asked.
    """
    from pluggy import PluginManager

    from tfx.core import hookspecs

    if plugin.source.entry_point is None:
        plugin.breaks(plugin.source.damage)
        return
    manager = PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    module = _import(plugin, plugin.source.entry_point)
    if plugin.faults:
        return
    try:
        manager.register(module)
    except CRASHES as error:
        plugin.breaks(f"a hook does not fit ({one_line(error)})", error)
        return
    for fault in _unheard(manager, module):
        plugin.breaks(fault)
    for hook, kind in HOOKS.items():
        _ask(plugin, manager, hook, kind)


def load_command(command: Plugin) -> Callable[..., object]:
    """The function behind a command, imported now; `TfxError` where it is or turns out at fault."""
    entry_point = command.source.entry_point
    if entry_point is None or command.faults:
        raise command.error()
    function: Callable[..., object] = _import(command, entry_point)
    if not command.faults:
        kinds = (kind for kind, holds in DEFERRED.items() if holds(function))
        kind = next(kinds, None if inspect.isfunction(function) else kind_of(function))
        if kind:
            command.breaks(f"{entry_point.value} is {kind}, not a function")
    if command.faults:
        raise command.error()
    return function


def _import(plugin: Plugin, entry_point: EntryPoint) -> Any:
    """What an entry point names; where that fails, a fault is noted."""
    try:
        return entry_point.load()
    except CRASHES as error:
        cure = plugin.source.cure_for(error, entry_point.value)
        plugin.breaks(f"it cannot be imported ({one_line(error)})", error, cure)


def _ask(plugin: Plugin, manager: PluginManager, hook: str, kind: type[Spec]) -> None:
    """Call one hook and keep the well-formed descriptors."""
    caller = getattr(manager.hook, hook)
    try:
        answers = caller()
    except CRASHES as error:
        plugin.breaks(f"{hook} failed ({one_line(error)})", error)
        return
    if len(answers) < len(caller.get_hookimpls()):  # pluggy drops a None
        answers.append(None)
    for answer in answers:
        if not isinstance(answer, list | tuple):
            plugin.breaks(f"{hook} returned {kind_of(answer)}, not a list of {kind.__name__}")
            continue
        for spec in answer:
            if fault := _malformed(spec, kind):
                plugin.breaks(f"{hook} returned {fault}")
            else:
                plugin.specs.append(spec)


def _unheard(manager: PluginManager, module: Any) -> Iterator[str]:
    """Faults that pluggy takes without a word: hooks of `module` that nobody would call."""
    silent = True
    for name in dir(module):
        mark = manager.parse_hookimpl_opts(module, name)
        if mark is not None:
            silent = False
            hook = mark.get("specname") or name
            if hook not in HOOKS and not mark.get("optionalhook"):
                yield f"no hook is called {hook}; there are {in_words(HOOKS)}"
        elif name.startswith("tfx_") and callable(getattr(module, name)):
            silent = False
            yield f"{name} is not marked with @hookimpl"
    if silent:
        yield f"it has no hook; there are {in_words(HOOKS)}"


def is_name(name: str) -> bool:
    """Whether `name` is as `NAMES` has it; the first is a letter or a digit."""
    return re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) is not None


def _malformed(spec: Any, kind: type[Spec]) -> str | None:
    """Why `spec` cannot be used, put as what the hook returned."""
    if type(spec) is not kind:
        return f"{kind_of(spec)} in its list, where {kind.__name__} belongs"
    for name, expected in get_type_hints(kind).items():
        if not isinstance(value := getattr(spec, name), expected):
            return f"a {kind.__name__} whose {name} is {kind_of(value)}"
    for name in (spec.backend, spec.op) if isinstance(spec, KernelSpec) else (spec.name,):
        if not is_name(name) or name == "auto":
            return f"the name {name!r}; {NAMES}"
    if not re.fullmatch(r"[\w.]+:[\w.]+", spec.target):
        return f"the target {spec.target!r}; write 'package.module:attribute'"
    return None
