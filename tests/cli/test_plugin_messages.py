"""What the plugin host has to say, word for word, as somebody at the command line reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from installing import install

BACKEND = """
import numpy
from tfx.core.array_backend import ArrayBackend

class Opens(ArrayBackend):
    name = {name!r}
    def __init__(self, device):
        super().__init__(numpy)
        self.device = device or "cpu"
    def to_numpy(self, x): return numpy.array(x)
    def scatter_add(self, x, indices, updates, *, axis): raise NotImplementedError

def probe():
    return Probe({probe})

@hookimpl
def tfx_backends():
    return [BackendSpec({name!r}, "tfx_{name}:Opens", "", "tfx_{name}:probe", {fields})]
"""

MODEL = """
@hookimpl
def tfx_models():
    return [ModelSpec({name!r}, "tfx_fake:Echo", "says what it was given", {fields})]
"""


def backend(name: str, probe: str = "True", fields: str = "") -> str:
    """The code of a plugin with one backend."""
    return BACKEND.format(name=name, probe=probe, fields=fields)


def model(name: str, fields: str = "") -> str:
    """The code of a plugin with one model."""
    return MODEL.format(name=name, fields=fields)


WORLD = {
    "tfx-echo": model("echo"),
    "tfx-numpy": backend("numpy", fields="priority=10"),
    "tfx-torch": backend("torch", "True, ('cpu',)", "priority=5"),
    "tfx-cupy": backend(
        "cupy", "False, version='cupy-cuda12x 14.2.0', reason='no CUDA driver found'"
    ),
}
"""A machine without a graphics card: these distributions stand in for those of tfx itself."""


class Message(NamedTuple):
    """What follows `tfx run`, and all that it says on stderr.

    `more` are distributions beside those of WORLD, all of version 2.1.
    """

    args: str
    said: str
    code: int = 1
    more: Mapping[str, str] = {}
    environ: Mapping[str, str] = {}


SICK = {"tfx-acme": "import acme_arrays"}
LATE = {"tfx-zebra": backend("numpy") + model("stripes")}
KERNEL = """
@hookimpl
def tfx_kernels():
    return [KernelSpec("numpy", "softmax", "tfx_fast:SOFTMAX", "in one pass")]
"""

MESSAGES = {
    "unknown": Message(
        "echo -b cuppy",
        "no backend named 'cuppy'. Did you mean 'cupy'? Ready here: numpy, torch:cpu.",
        code=2,
    ),
    "unknown, and like nothing": Message(
        "echo -b tpu", "no backend named 'tpu'. Ready here: numpy, torch:cpu.", code=2
    ),
    "cannot run here": Message(
        "echo -b cupy",
        "backend 'cupy' is installed (cupy-cuda12x 14.2.0) but cannot run here: no CUDA driver "
        "found. Ready here: numpy, torch:cpu.",
    ),
    "its probe fails": Message(
        "echo -b acme",
        "backend 'acme' is installed but cannot run here: the probe of tfx-acme 2.1 failed "
        "(ZeroDivisionError: division by zero). Ready here: numpy, torch:cpu.",
        more={"tfx-acme": backend("acme", "1 / 0")},
    ),
    "not installed": Message(
        "echo -b acme",
        "backend 'acme' is not installed. Ready here: numpy, torch:cpu. "
        "To install it: pip install acme",
        more={
            "tfx-acme": backend("acme", "False, installed=False", "install_hint='pip install acme'")
        },
    ),
    "speaks a newer interface": Message(
        "echo -b acme",
        "backend 'acme' speaks interface 2; this tfx speaks 1. "
        "Upgrade tfx-lm, or: pip install 'tfx-acme<2'",
        more={"tfx-acme": backend("acme", fields="api=2")},
    ),
    "a model speaks a newer interface": Message(
        "new",
        "model 'new' speaks interface 2; this tfx speaks 1. "
        "Upgrade tfx-lm, or: pip install 'tfx-acme<2'",
        more={"tfx-acme": model("new", "api=2")},
    ),
    "no such device": Message(
        "echo -b torch:cuda:0", "backend 'torch' has no device 'cuda:0' here. It has: cpu."
    ),
    "a device almost so called": Message(
        "echo -b acme:cuda:1",
        "backend 'acme' has no device 'cuda:1' here. Did you mean 'cuda:0'? It has: cuda:0, cpu.",
        more={"tfx-acme": backend("acme", "True, ('cuda:0', 'cpu')")},
    ),
    "no device after the colon": Message(
        "echo -b torch:", "backend 'torch:' has no device after its colon; write 'torch'", code=2
    ),
    "two devices": Message(
        "echo -b torch:cpu --device cuda:0",
        "backend 'torch:cpu' and device 'cuda:0' name two devices; leave one out",
        code=2,
    ),
    "a broken plugin owns it": Message(
        "echo -b acme",
        "plugin 'acme' of tfx-acme 2.1 is broken: it cannot be imported (ModuleNotFoundError: No "
        "module named 'acme_arrays'). It needs 'acme_arrays'; reinstall it with what it needs: "
        "pip install --force-reinstall tfx-acme",
        more=SICK,
    ),
    "a broken plugin owns something else": Message(
        "echo -b other",
        "no backend named 'other'. Ready here: numpy, torch:cpu.",
        code=2,
        more=SICK,
    ),
    "a plugin whose names are taken owns it": Message(
        "echo -b zebra",
        "plugin 'zebra' of tfx-zebra 2.1 is broken: backend 'numpy' already comes from "
        "tfx-numpy 2.1. Upgrade it, or: pip uninstall tfx-zebra",
        more=LATE,
    ),
    "it cannot be opened": Message(
        "echo -b acme",
        "backend 'acme' of tfx-acme 2.1 cannot be opened (OSError: no libacme.so). "
        "Upgrade it, or: pip uninstall tfx-acme",
        more={"tfx-acme": backend("acme") + "def Opens(device): raise OSError('no libacme.so')"},
    ),
    "it is no backend": Message(
        "echo -b acme",
        "backend 'acme' of tfx-acme 2.1: tfx_acme:Opens gave a dict, not a "
        "tfx.core.backend.Backend. Upgrade it, or: pip uninstall tfx-acme",
        more={"tfx-acme": backend("acme") + "def Opens(device): return {}"},
    ),
    "it is not a whole backend": Message(
        "echo -b acme",
        "backend 'acme' of tfx-acme 2.1: tfx_acme:Opens gave an Opens that is not a whole "
        "backend: it does not implement to_numpy and scatter_add. "
        "Upgrade it, or: pip uninstall tfx-acme",
        more={
            "tfx-acme": backend("acme")
            + "from tfx.core.backend import Backend\n"
            + "for m in ('to_numpy', 'scatter_add'): setattr(Opens, m, getattr(Backend, m))"
        },
    ),
    "disabled": Message(
        "echo -b acme",
        "plugin 'acme' of tfx-acme 2.1 is disabled: TFX_DISABLE_PLUGINS names it. "
        "Take it out of there",
        code=2,
        more={"tfx-acme": backend("acme")},
        environ={"TFX_DISABLE_PLUGINS": "acme"},
    ),
    "not loaded": Message(
        "echo -b acme",
        "plugin 'acme' of tfx-acme 2.1 is not loaded: TFX_LOAD_PLUGINS leaves it out. Add it there",
        code=2,
        more={"tfx-acme": backend("acme")},
        environ={"TFX_LOAD_PLUGINS": "echo,numpy"},
    ),
    "strict": Message(
        "echo -b numpy",
        "plugin 'acme' of tfx-acme 2.1 is broken: it cannot be imported (ModuleNotFoundError: No "
        "module named 'acme_arrays'). It needs 'acme_arrays'; reinstall it with what it needs: "
        "pip install --force-reinstall tfx-acme",
        more=SICK,
        environ={"TFX_STRICT_PLUGINS": "1"},
    ),
    "strict about kernels": Message(
        "echo -b numpy",
        "kernel 'numpy:softmax' of tfx-fast 2.1 cannot be loaded (AttributeError: module "
        "'tfx_fast' has no attribute 'SOFTMAX'). Upgrade it, or: pip uninstall tfx-fast",
        more={"tfx-fast": KERNEL},
        environ={"TFX_STRICT_PLUGINS": "1"},
    ),
    "none can run": Message(
        "echo",
        "no backend can run here: cupy (no CUDA driver found)",
        environ={"TFX_LOAD_PLUGINS": "echo,cupy"},
    ),
    "none is on offer": Message(
        "echo",
        "no backend is on offer; `tfx plugins` says why",
        environ={"TFX_LOAD_PLUGINS": "echo"},
    ),
    "none has the device": Message(
        "echo --device cuda:0",
        "no backend here has a device 'cuda:0'. Ready here: numpy, torch:cpu.",
    ),
}

NOTES = {
    "the choice": Message(
        "echo", "backend: numpy (the one of highest priority ready here; --backend chooses)"
    ),
    "the choice of an accelerator": Message(
        "echo",
        "backend: acme:npu:0 (the only accelerator ready here; --backend chooses)",
        more={"tfx-acme": backend("acme", "True, ('npu:0', 'cpu')")},
    ),
    "the choice by device": Message(
        "echo --device cpu",
        "backend: numpy (the one of highest priority ready here that has cpu; --backend chooses)",
    ),
    "the only one": Message(
        "echo",
        "backend: torch:cpu (the only one ready here; --backend chooses)",
        environ={"TFX_DISABLE_PLUGINS": "numpy"},
    ),
    "a kernel left out": Message(
        "echo -b numpy",
        "kernel 'numpy:softmax' of tfx-fast 2.1 cannot be loaded (AttributeError: module "
        "'tfx_fast' has no attribute 'SOFTMAX'). Upgrade it, or: pip uninstall tfx-fast",
        more={"tfx-fast": KERNEL},
    ),
    "a broken plugin that nobody asked for": Message("echo -b numpy", "", more=SICK),
}

FAULTS = {
    "acme (tfx-acme 2.1): it cannot be imported (OSError: no libacme.so)\n"
    "  Upgrade it, or: pip uninstall tfx-acme": {"tfx-acme": "raise OSError('no libacme.so')"},
    "zebra (tfx-zebra 2.1): backend 'numpy' already comes from tfx-numpy 2.1\n"
    "  Upgrade it, or: pip uninstall tfx-zebra": LATE,
    "acme (tfx-acme 2.1): backend 'acme' speaks interface 2; this tfx speaks 1\n"
    "  Upgrade tfx-lm, or: pip install 'tfx-acme<2'": {"tfx-acme": backend("acme", fields="api=2")},
    "acme (tfx-acme 2.1): no hook is called tfx_backend; there are tfx_backends, tfx_models, "
    "tfx_kernels and tfx_loggers\n"
    "  Upgrade it, or: pip uninstall tfx-acme": {
        "tfx-acme": "@hookimpl\ndef tfx_backend(): return []"
    },
}
"""What `tfx plugins` says of plugins at fault."""


def build(
    shelf: Path, more: Mapping[str, str], environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Install WORLD and more; the environment to call tfx in."""
    for distribution, code in {**WORLD, **more}.items():
        install(shelf, distribution, code, version="2.1")
    environ = environ or {}
    disabled = environ.get("TFX_DISABLE_PLUGINS", "")
    return {**environ, "TFX_DISABLE_PLUGINS": f"tfx-lm,tfx-fake,{disabled}"}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
def test_a_refusal(invoke: Any, shelf: Path, message: Message) -> None:
    done = invoke("run", *message.args.split(), env=build(shelf, message.more, message.environ))
    assert (done.stdout, done.stderr) == ("", f"tfx: {message.said}\n")
    assert done.exit_code == message.code


@pytest.mark.parametrize("message", NOTES.values(), ids=NOTES.keys())
def test_a_note(invoke: Any, shelf: Path, message: Message) -> None:
    done = invoke("run", *message.args.split(), env=build(shelf, message.more, message.environ))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("prompt: ")
    assert done.stderr.strip() == message.said


@pytest.mark.parametrize(("fault", "more"), FAULTS.items())
def test_plugins_names_the_distribution_and_what_removes_it(
    invoke: Any, shelf: Path, fault: str, more: Mapping[str, str]
) -> None:
    done = invoke("plugins", env=build(shelf, more))
    assert done.exit_code == 0
    assert fault in done.stdout.rstrip("\n").split("\n\n")


@pytest.mark.parametrize("name", ["cannot run here", "a broken plugin owns it"])
def test_in_a_process_of_its_own(tfx: Any, shelf: Path, name: str) -> None:
    message = MESSAGES[name]
    env = build(shelf, message.more, message.environ)
    path = f"{shelf}:{Path(__file__).parent / 'site'}"
    done = tfx("run", *message.args.split(), env=env | {"PYTHONPATH": path})
    assert (done.returncode, done.stdout) == (message.code, "")
    assert done.stderr == f"tfx: {message.said}\n"
