"""From what the user typed to a backend or a model, or to a message that says what to do.

A backend asked for by name is opened or refused; nothing falls back to another in silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfx.core.errors import BackendError, PluginError, TfxError, UsageError
from tfx.core.plugin_loader import CRASHES
from tfx.core.plugins import Offer, PluginHost, import_target, newer_interface, title
from tfx.core.specs import API, BackendSpec, ModelSpec
from tfx.core.wording import did_you_mean, kind_of, one_line

if TYPE_CHECKING:
    from tfx.core.backend import Backend
    from tfx.core.recipe import Recipe

AUTO = "auto"


@dataclass(frozen=True)
class Opened:
    """A backend, ready for work.

    Attributes:
        backend: what was opened.
        chosen_because: where `auto` chose, the line that says what and why; else None.
    """

    backend: Backend
    chosen_because: str | None


def open_backend(host: PluginHost, name: str | None = None, device: str | None = None) -> Opened:
    """Open the backend the user asked for or, with None or "auto", the best that is ready.

    The name may carry the device: `"torch:cuda:0"` is `"torch"` with device `"cuda:0"`.
    Without a device a named backend takes its own default, and `auto` the best there is.

    Raises:
        UsageError: there is no such backend, or two devices are named.
        BackendError: it is not installed, cannot run here, has no such device or was
            written for a newer interface; or `auto` finds none that is ready.
        PluginError: the plugin that should bring it is broken, or fails to open it.
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
    _refuse_device(offer, device, host.probe(name).devices)
    return Opened(_open(offer, device), chosen_because=None)


def backend(name: str = AUTO, device: str | None = None) -> Backend:
    """The backend called `name`, `"torch"` or `"torch:cuda:0"`; by default the best that is ready.

    Raises as `open_backend` does.

    >>> backend("numpy")
    <tfx backend numpy>
    """
    return open_backend(PluginHost(), name, device).backend


def open_model(host: PluginHost, name: str) -> Recipe:
    """The recipe of the model called `name`.

    Raises:
        UsageError: there is no such model.
        PluginError: the plugin that should bring it is broken, was written for a newer
            interface, or fails to hand the recipe over.
    """
    known = host.models()
    if name not in known:
        raise host.why_missing(name) or UsageError(
            f"no model named {name!r}.{did_you_mean(name, known)} Models here: {_listed(known)}."
        )
    offer = known[name]
    if offer.spec.api > API:
        raise PluginError(_too_new(offer, offer.spec.api))
    recipe: Recipe = _call_target(offer)
    lacking = [m for m in ("train", "run", "evaluate") if not callable(getattr(recipe, m, None))]
    if lacking:
        raise _gave(offer, f"{kind_of(recipe)} without {' and '.join(lacking)}")
    return recipe


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
    able = [name for name in ready if device is None or device in ready[name].devices]
    if not able:
        raise BackendError(_none_able(host, device if ready else None))
    name = max(able, key=lambda name: offers[name].spec.priority)  # the first of equals
    if device is None and ready[name].devices:
        device = ready[name].devices[0]
    why = "the only one ready here" if len(able) == 1 else "the fastest ready here"
    because = f"backend: {_spelling(name, device)} ({why}; --backend chooses)"
    return Opened(_open(offers[name], device), because)


def _none_able(host: PluginHost, device: str | None) -> str:
    if device is not None:
        return f"no backend here has a device {device!r}. {_ready(host)}"
    reasons = [f"{name} ({host.probe(name).reason or 'not ready'})" for name in host.backends()]
    if not reasons:
        return "no backend is on offer; `tfx plugins` says why"
    return f"no backend can run here: {', '.join(reasons)}"


def _refuse_unready(host: PluginHost, offer: Offer[BackendSpec]) -> None:
    spec = offer.spec
    if spec.api > API:
        raise BackendError(_too_new(offer, spec.api))
    probe = host.probe(spec.name)
    if probe.ready:
        return
    reason = f": {probe.reason.rstrip('.')}" if probe.reason else ""
    if probe.installed:
        version = f" ({probe.version})" if probe.version else ""
        state = f"is installed{version} but cannot run here{reason}. {_ready(host)}"
    else:
        hint = f" To install it: {spec.install_hint}" if spec.install_hint else ""
        state = f"is not installed{reason}. {_ready(host)}{hint}"
    raise BackendError(f"{title(spec)} {state}")


def _refuse_device(offer: Offer[BackendSpec], device: str | None, devices: tuple[str, ...]) -> None:
    if device is None or device in devices:
        return
    if not devices:
        raise BackendError(
            f"{title(offer.spec)} has one device, which needs no name; leave out {device!r}"
        )
    raise BackendError(
        f"{title(offer.spec)} has no device {device!r} here.{did_you_mean(device, devices)}"
        f" It has: {', '.join(devices)}."
    )


def _open(offer: Offer[BackendSpec], device: str | None) -> Backend:
    from tfx.core.backend import Backend

    backend = _call_target(offer, device)
    if not isinstance(backend, Backend):
        raise _gave(offer, f"{kind_of(backend)}, not a tfx.core.backend.Backend")
    if backend.api > API:
        raise BackendError(_too_new(offer, backend.api))
    return backend


def _call_target(offer: Offer[BackendSpec] | Offer[ModelSpec], *arguments: object) -> Any:
    """What the import string of an offer gives when called; its errors of ours pass."""
    try:
        return import_target(offer.spec.target)(*arguments)
    except TfxError:
        raise
    except CRASHES as error:
        message = f"{title(offer.spec)} of {offer.source} cannot be opened ({one_line(error)})"
        raise PluginError(f"{message}. {offer.source.removal}") from error


def _gave(offer: Offer[BackendSpec] | Offer[ModelSpec], what: str) -> PluginError:
    message = f"{title(offer.spec)} of {offer.source}: {offer.spec.target} gave {what}"
    return PluginError(f"{message}. {offer.source.removal}")


def _too_new(offer: Offer[BackendSpec] | Offer[ModelSpec], api: int) -> str:
    return f"{newer_interface(title(offer.spec), api)}. {offer.source.downgrade}"


def _ready(host: PluginHost) -> str:
    return f"Ready here: {_listed(ready_here(host))}."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _spelling(name: str, device: str | None) -> str:
    return name if device is None else f"{name}:{device}"
