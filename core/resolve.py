"""From what the user typed to a backend or a model, or to a message that says what to do.

A backend asked for by name is opened or refused; nothing falls back to another in silence.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tfx.core.errors import BackendError, PluginError, TfxError, UsageError
from tfx.core.plugin_loader import CRASHES
from tfx.core.plugins import Offer, PluginHost, import_target, interface_fault, title
from tfx.core.specs import BackendSpec, KernelSpec, LoggerSpec, ModelSpec
from tfx.core.wording import did_you_mean, in_words, kind_of, one_line

if TYPE_CHECKING:
    from tfx.core.backend import Backend, Fused
    from tfx.core.recipe import Recipe

AnyOffer = Offer[BackendSpec] | Offer[ModelSpec] | Offer[KernelSpec] | Offer[LoggerSpec]

AUTO = "auto"

CPU = "cpu"
"""The device that is the processor of the host; every other name is an accelerator."""


@dataclass(frozen=True)
class Opened:
    """A backend, ready for work.

    Attributes:
        backend: what was opened.
        chosen_because: where `auto` chose, the line that says what and why; else None.
        warning: a line that says what is wrong with it here, although it runs; else None.
        left_out: a line for each kernel of a plugin that could not be put into the backend, whose
            own kernel or composed form runs in its place.
    """

    backend: Backend
    chosen_because: str | None
    left_out: tuple[str, ...]
    warning: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever asked should be told, line by line."""
        said = (self.chosen_because, self.warning)
        return (*(line for line in said if line is not None), *self.left_out)


def open_backend(
    host: PluginHost,
    name: str | None = None,
    device: str | None = None,
    *,
    incomplete: bool = False,
) -> Opened:
    """Open the backend the user asked for or, with None or "auto", the best that is ready.

    The name may carry the device: `"torch:cuda:0"` is `"torch"` with device `"cuda:0"`.
    Without a device a named backend takes its own default, and `auto` the best there is. One that
    is named may be `incomplete`: for a tool that says what is missing.

    Raises:
        UsageError: there is no such backend, or two devices are named.
        BackendError: it is not installed, cannot run here, has no such device or was
            written for a newer interface or for one that is no longer spoken; or `auto` finds
            none that is ready.
        PluginError: the plugin that should bring it is broken, fails to open it, or opens what
            is not a whole backend.
    """
    name, device = _split(AUTO if name is None else name, device)
    if name == AUTO:
        return _open_best(host, device)
    offer = host.backends().get(name)
    if offer is None:
        raise host.why_missing(name) or UsageError(
            f"no backend named {name!r}.{did_you_mean(name, host.backends())} {_ready(host)}"
        )
    _refuse_unready(host, offer)
    _refuse_device(offer, device, host.probe(name).choices)
    return _open(host, offer, device, incomplete=incomplete)


def backend(name: str = AUTO, device: str | None = None) -> Backend:
    """The backend called `name`, `"torch"` or `"torch:cuda:0"`; by default the best that is ready.

    Raises as `open_backend` does; warns of kernels that were left out.

    >>> backend("numpy")
    <tfx backend numpy>
    """
    opened = open_backend(PluginHost(), name, device)
    for line in (*filter(None, [opened.warning]), *opened.left_out):
        warnings.warn(line, stacklevel=2)
    return opened.backend


def open_model(host: PluginHost, name: str) -> Recipe:
    """The recipe of the model called `name`.

    Raises:
        UsageError: there is no such model.
        PluginError: the plugin that should bring it is broken, was written for a newer
            interface or for one that is no longer spoken, or fails to hand the recipe over.
    """
    offer = _offered(host, host.models(), "model", name)
    recipe: Recipe = _call_target(offer)
    lacking = [m for m in ("train", "run") if not callable(getattr(recipe, m, None))]
    if lacking:
        raise _gave(offer, f"{kind_of(recipe)} without {' and '.join(lacking)}")
    return recipe


def open_logger(host: PluginHost, name: str) -> object:
    """The logger called `name`, new: a callback that keeps the numbers of a training run.

    Raises:
        UsageError: there is no such logger.
        PluginError: the plugin that should bring it is broken, was written for a newer interface
            or for one that is no longer spoken, or fails to make it.
    """
    offer = _offered(host, host.loggers(), "logger", name)
    logger: object = _call_target(offer)
    if not callable(getattr(logger, "on_log", None)):
        raise _gave(offer, f"{kind_of(logger)} without on_log")
    return logger


S = TypeVar("S", ModelSpec, LoggerSpec)


def _offered(host: PluginHost, known: Mapping[str, Offer[S]], noun: str, name: str) -> Offer[S]:
    """The offer of that name, which speaks our interface."""
    if name not in known:
        raise host.why_missing(name) or UsageError(
            f"no {noun} named {name!r}.{did_you_mean(name, known)} "
            f"{noun.capitalize()}s here: {_listed(known)}."
        )
    offer = known[name]
    _refuse_interface(PluginError, offer, offer.spec.api)
    return offer


def ready_here(host: PluginHost) -> list[str]:
    """What may follow `--backend` on this machine: `["numpy", "torch:cuda:0", "torch:cpu"]`."""
    ready = [name for name in host.backends() if host.probe(name).ready]
    return [
        _spelling(name, device) for name in ready for device in host.probe(name).devices or [None]
    ]


def _split(name: str, device: str | None) -> tuple[str, str | None]:
    """The name and the device of `name` or `name:device`."""
    backend, colon, inner = name.partition(":")
    if not colon:
        return name, device
    if not inner:
        raise UsageError(f"backend {name!r} has no device after its colon; write {backend!r}")
    if device not in (None, inner):
        raise UsageError(f"backend {name!r} and device {device!r} name two devices; leave one out")
    return backend, inner


def _open_best(host: PluginHost, device: str | None) -> Opened:
    """Open the ready backend of highest priority, one that has `device` where it is given."""
    offers = host.backends()
    ready = {name: probe for name in offers if (probe := host.probe(name)).ready}
    able = {
        name: device or probe.choices[0]
        for name, probe in ready.items()
        if device is None or device in probe.choices
    }
    if not able:
        raise BackendError(_none_able(host, device if ready else None))
    accelerators = [name for name in able if able[name] != CPU]
    rivals = accelerators or list(able)
    name = max(rivals, key=lambda name: offers[name].spec.priority)  # the first of equals
    which = "accelerator" if 0 < len(accelerators) < len(able) else "one"
    why = f"the only {which}" if len(rivals) == 1 else f"the {which} of highest priority"
    condition = f" that has {device}" if device else ""
    spelling = _spelling(name, able[name] if ready[name].devices else None)
    because = f"backend: {spelling} ({why} ready here{condition}; --backend chooses)"
    return _open(host, offers[name], able[name], because)


def _none_able(host: PluginHost, device: str | None) -> str:
    if device is not None:
        return f"no backend here has a device {device!r}. {_ready(host)}"
    reasons = [f"{name} ({host.probe(name).reason or 'not ready'})" for name in host.backends()]
    if not reasons:
        return "no backend is on offer; `tfx plugins` says why"
    return f"no backend can run here: {', '.join(reasons)}"


def _refuse_unready(host: PluginHost, offer: Offer[BackendSpec]) -> None:
    spec = offer.spec
    _refuse_interface(BackendError, offer, spec.api)
    probe = host.probe(spec.name)
    if probe.ready:
        return
    reason = f": {probe.reason.rstrip('.')}" if probe.reason else ""
    if probe.installed:
        version = f" ({probe.version})" if probe.version else ""
        cure = f" To mend it: {probe.cure}." if probe.cure else ""
        state = f"is installed{version} but cannot run here{reason}. {_ready(host)}{cure}"
    else:
        how = probe.cure or spec.install_hint
        hint = f" To install it: {how}" if how else ""
        state = f"is not installed{reason}. {_ready(host)}{hint}"
    raise BackendError(f"{title(spec)} {state}")


def _refuse_device(offer: Offer[BackendSpec], device: str | None, devices: tuple[str, ...]) -> None:
    if device is None or device in devices:
        return
    raise BackendError(
        f"{title(offer.spec)} has no device {device!r} here.{did_you_mean(device, devices)}"
        f" It has: {', '.join(devices)}."
    )


def _open(
    host: PluginHost,
    offer: Offer[BackendSpec],
    device: str | None,
    because: str | None = None,
    incomplete: bool = False,
) -> Opened:
    from tfx.core.backend import Backend

    # A backend that has but the processor is not asked for a device.
    backend = _call_target(offer, device if host.probe(offer.spec.name).devices else None)
    if not isinstance(backend, Backend):
        raise _gave(offer, f"{kind_of(backend)}, not a tfx.core.backend.Backend")
    _refuse_interface(BackendError, offer, backend.api)
    lacks = "; ".join(_lacks(backend, offer.spec.name))
    if lacks and not incomplete:
        raise _gave(offer, f"{kind_of(backend)} that is not a whole backend: {lacks}")
    left_out = tuple(str(error) for error in _add_kernels(host, backend, offer.spec.name))
    warning = host.probe(offer.spec.name).warning
    return Opened(backend, because, left_out, warning and f"{title(offer.spec)}: {warning}")


def _lacks(opened: Backend, name: str) -> Iterator[str]:
    """What a backend does not have of all that the rest of tfx takes for granted."""
    from tfx.core.backend import REQUIRED, Backend

    missing = [method for method in REQUIRED if _is_inherited(opened, method, Backend)]
    if missing:
        yield f"it does not implement {in_words(missing)}"
    if not opened.dtypes:
        yield "its dtypes are empty"
    if not hasattr(opened, "fused"):
        yield "its __init__ does not call that of its base class"
    own_name = getattr(opened, "name", None)
    if own_name != name:
        yield f"its name is {own_name!r}, not {name!r}"


def _is_inherited(opened: Backend, method: str, base: type[Backend]) -> bool:
    return getattr(getattr(opened, method), "__func__", None) is getattr(base, method)


def _add_kernels(host: PluginHost, opened: Backend, name: str) -> Iterator[TfxError]:
    """Put the kernels that plugins offer to the backend `name` into it; errors for the others."""
    for offer in host.kernels().values():
        if offer.spec.backend == name:
            try:
                opened.fused[offer.spec.op] = _kernel(offer)
            except TfxError as error:
                if host.strict:
                    raise
                yield error


def _kernel(offer: Offer[KernelSpec]) -> Fused:
    import tfx.core.fused_ops  # noqa: F401 (defines them)
    from tfx.core.backend import Fused
    from tfx.core.fused import FUSED

    spec = offer.spec
    _refuse_interface(PluginError, offer, spec.api)
    kernel = _attempt(offer, "loaded", lambda: import_target(spec.target))
    if not isinstance(kernel, Fused):
        raise _gave(offer, f"{kind_of(kernel)}, not a tfx.core.backend.Fused")
    if kernel.name != spec.op:
        raise _gave(offer, f"a kernel for {kernel.name!r}")
    if spec.op not in FUSED:
        raise _gave(offer, f"a kernel for {spec.op!r}, which is no fused op")
    return kernel


def _call_target(offer: AnyOffer, *arguments: object) -> Any:
    """What the import string of an offer gives when called; its errors of ours pass."""
    return _attempt(offer, "opened", lambda: import_target(offer.spec.target)(*arguments))


def _attempt(offer: AnyOffer, done: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except TfxError:
        raise
    except CRASHES as error:
        message = f"{title(offer.spec)} of {offer.source} cannot be {done} ({one_line(error)})"
        cure = offer.source.cure_for(error, offer.spec.target)
        raise PluginError(f"{message}. {cure}") from error


def _gave(offer: AnyOffer, what: str) -> PluginError:
    message = f"{title(offer.spec)} of {offer.source}: {offer.spec.target} gave {what}"
    return PluginError(f"{message}. {offer.source.removal}")


def _refuse_interface(kind: type[TfxError], offer: AnyOffer, api: int) -> None:
    """Refuse what was written for an interface that this tfx does not speak yet, or any more."""
    if fault := interface_fault(title(offer.spec), api, offer.source):
        raise kind(". ".join(fault))


def _ready(host: PluginHost) -> str:
    return f"Ready here: {_listed(ready_here(host))}."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _spelling(name: str, device: str | None) -> str:
    return name if device is None else f"{name}:{device}"
