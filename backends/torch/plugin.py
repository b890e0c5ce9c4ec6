"""The torch backend, as a plugin offers it: what can be said without importing torch."""

from __future__ import annotations

import ctypes
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec, Probe


@hookimpl
def tfx_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="torch",
            target="tfx.backends.torch.backend:TorchBackend",
            summary="PyTorch on the CPU or a CUDA device, with its own autograd",
            probe="tfx.backends.torch.plugin:probe",
            install_hint="pip install 'tfx-lm[torch]'",
            priority=5,  # below numpy: without a GPU, numpy starts sooner and has less overhead
        )
    ]


def probe() -> Probe:
    """torch runs wherever it is installed; it is imported only where it could find a GPU."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return Probe(ready=False, installed=False)
    build = runpy.run_path(str(Path(found.origin).with_name("version.py")))
    may_have_gpu = build.get("hip") or (build["cuda"] and _has_cuda_driver())
    return Probe(
        ready=True,
        devices=(*(cuda_devices() if may_have_gpu else ()), "cpu"),
        version=f"torch {build['__version__']}",
    )


def cuda_devices() -> tuple[str, ...]:
    """The CUDA (or ROCm) devices torch can compute on: `("cuda:0", "cuda:1")`."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(f"cuda:{i}" for i in range(count))


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
