"""What a plugin hands over: frozen descriptors with import strings, so that listing
plugins imports no array library and no model."""

from __future__ import annotations

from dataclasses import dataclass

API = 1
"""The interface number this tfx speaks; a descriptor that names a higher one is refused."""

OLDEST = 1
"""The oldest interface number this tfx speaks; a descriptor that names a lower one is refused."""


@dataclass(frozen=True)
class BackendSpec:
    """One backend a plugin offers.

    Attributes:
        name: what the user types after `--backend`; lower case, no colon.
        target: `"package.module:attribute"`, called as `attribute(device)`, returning a `Backend`.
            `device` is one of the probe's `devices`, or None where the user names none and
            the backend chooses; always None where the probe names no devices.
        summary: one line for `tfx backends`.
        probe: `"package.module:function"` called without arguments, which must not
            import the array library unless it has to: returns a `Probe`. None: always ready.
        install_hint: the command that installs what is missing, `pip install tfx-lm[torch]`.
        api: the interface number the plugin was written for; unless it says so, the first.
        priority: among backends with an accelerator, and among those without, `auto` picks the
            ready one with the highest; ties go to the name first in the alphabet.
    """

    name: str
    target: str
    summary: str
    probe: str | None = None
    install_hint: str | None = None
    api: int = 1
    priority: int = 0


@dataclass(frozen=True)
class Probe:
    """Whether a backend can run on this machine.

    Attributes:
        ready: False when the backend is not installed or finds no device.
        devices: what may follow the colon, best first: `("cuda:0", "cpu")`. `cpu` is the
            processor of the host, any other name an accelerator, which `auto` prefers. Empty
            for a backend that knows the processor alone, and need not name it.
        version: of the array library with its distribution, `"cupy-cuda12x 14.2.0"`.
        reason: one clause that says why it is not ready, `"no CUDA driver found"`.
        installed: False when the array library itself is missing.
        cure: what to do about `reason`, or how to install it on this machine, where that is known
            better than the spec's `install_hint`: `"pip install tfx-lm[cupy13]"`.
        warning: one clause that says what is wrong although it can run, and what to do.
    """

    ready: bool
    devices: tuple[str, ...] = ()
    version: str | None = None
    reason: str | None = None
    installed: bool = True
    cure: str | None = None
    warning: str | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The devices that `--device` may name here; `cpu` may be named where it need not be."""
        return self.devices or (("cpu",) if self.ready else ())


@dataclass(frozen=True)
class KernelSpec:
    """One kernel a plugin offers to a backend, its own or somebody else's.

    Attributes:
        backend: the name of the backend whose arrays it takes.
        op: the fused op it overrides, `"rms_norm"`.
        target: `"package.module:attribute"`, a `tfx.core.backend.Fused`, imported when the
            backend is opened.
        summary: one line for `tfx backends`.
        api: the interface number the plugin was written for; unless it says so, the first.
    """

    backend: str
    op: str
    target: str
    summary: str
    api: int = 1

    @property
    def name(self) -> str:
        """What listings and messages call it: `"numpy:rms_norm"`."""
        return f"{self.backend}:{self.op}"


@dataclass(frozen=True)
class LoggerSpec:
    """One way to keep the metrics of a training run that a plugin offers.

    Attributes:
        name: what the user types after `tfx train --log`.
        target: `"package.module:attribute"`, called without arguments before a run begins,
            returning a `tfx.core.callbacks.Callback` with `on_log`. A `TfxError` that it raises,
            say where a library is missing, keeps the run from beginning.
        summary: one line that says what it writes, and where.
        api: the interface number the plugin was written for; unless it says so, the first.
    """

    name: str
    target: str
    summary: str
    api: int = 1


@dataclass(frozen=True)
class ModelSpec:
    """One model a plugin offers.

    Attributes:
        name: what the user types after `tfx train` and `tfx run`.
        target: `"package.module:attribute"`, a `tfx.core.recipe.Recipe` (class or instance
            factory, called without arguments).
        summary: one line for `tfx models`.
        api: the interface number the plugin was written for; unless it says so, the first.
    """

    name: str
    target: str
    summary: str
    api: int = 1
