"""What the cupy backend says of a machine: on made-up ones, of which each lacks something."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tfx.backends.cupy import machine, plugin
from tfx.cli.backends import status, survey
from tfx.cli.doctor import examine
from tfx.core.errors import BackendError
from tfx.core.plugins import PluginHost
from tfx.core.resolve import open_backend


class FakeCudaError(RuntimeError):
    pass


class Machine:
    """A machine with a driver, a CuPy that imports, and two devices; tests break parts of it."""

    def __init__(self) -> None:
        self.driver: int | None = 13010
        self.packages = {"cupy-cuda13x": "14.2.0"}
        self.cuda = ModuleType("cupy.cuda")
        for name in ("cublas", "nvrtc", "runtime", "driver"):
            setattr(self.cuda, name, ModuleType(name))
        self.cuda.nvrtc.getVersion = lambda: (13, 0)
        self.cuda.runtime.getDeviceCount = lambda: 2
        self.cuda.driver.get_build_version = lambda: 13020
        self.pathfinder: Any = ModuleType("cuda.pathfinder")
        self.pathfinder.find_nvidia_header_directory = {"cudart": "/usr/include"}.get

    def load(self, _: str) -> Any:
        if self.driver is None:
            raise OSError("no such file")
        library = ModuleType("libcuda")
        library.cuDriverGetVersion = lambda number: setattr(number._obj, "value", self.driver)
        return library

    def version(self, name: str) -> str:
        if name not in self.packages:
            raise machine.metadata.PackageNotFoundError(name)
        return self.packages[name]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made_up = Machine()
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    monkeypatch.setitem(sys.modules, "cupy.cuda", made_up.cuda)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", made_up.pathfinder)
    monkeypatch.setattr(plugin, "find_spec", lambda _: object() if made_up.packages else None)
    monkeypatch.setattr(machine.ctypes, "CDLL", made_up.load)
    monkeypatch.setattr(machine.metadata, "version", made_up.version)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return made_up


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def test_devices_go_by_number(here: Machine) -> None:
    found = plugin.probe()
    assert (found.ready, found.devices, found.reason) == (True, ("0", "1"), None)
    assert (found.version, found.warning) == ("cupy-cuda13x 14.2.0", None)


@pytest.mark.parametrize(
    ("driver", "cure"),
    [
        (None, None),
        (12040, "pip install 'tfx-lm[cupy]'"),
        (13000, "pip install 'tfx-lm[cupy13]'"),
        (14000, "pip install 'tfx-lm[cupy13]'"),
        (11080, "pip install 'tfx-lm[cupy]'"),
    ],
)
def test_cupy_is_missing(here: Machine, driver: int | None, cure: str | None) -> None:
    here.packages, here.driver = {}, driver
    found = plugin.probe()
    assert (found.ready, found.installed, found.cure) == (False, False, cure)
    assert_told(f"is not installed. Ready here: numpy{'*'} To install it: {cure or 'pip install'}")


def test_no_driver_and_cupy_is_not_imported(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cupy", "cupy.cuda"):
        monkeypatch.setitem(sys.modules, name, None)
    for here.driver in (None, 0):  # a stub, as containers have without a GPU, knows no version
        found = plugin.probe()
        assert (found.ready, found.installed, found.devices) == (False, True, ())
        assert found.reason == "no CUDA driver found"
        assert_told(
            "is installed (cupy-cuda13x 14.2.0) but cannot run here: no CUDA driver found. "
            "Ready here: numpy* To mend it: install NVIDIA's driver, or start the container with "
            "its GPUs (--gpus all)."
        )


def test_the_driver_is_too_old(here: Machine) -> None:
    here.driver = 12040
    assert_told(
        "the driver is for CUDA 12, and this CuPy for CUDA 13. Ready here: numpy* To mend it: "
        "upgrade NVIDIA's driver to 580 or later, or: pip uninstall -y cupy-cuda13x, then "
        "pip install 'tfx-lm[cupy]'."
    )
    here.driver = 11080
    assert_told("To mend it: upgrade NVIDIA's driver to 580 or later.")


def test_a_driver_may_be_newer_than_cupy(here: Machine) -> None:
    here.driver = 14000
    assert plugin.probe().ready


def test_a_library_of_the_toolkit_is_missing(here: Machine) -> None:
    here.cuda.nvrtc.getVersion = failing(RuntimeError("Failure finding\n libnvrtc.so.13"))
    told = (
        "a library of the CUDA toolkit is missing (RuntimeError: Failure finding libnvrtc.so.13)"
        ". Ready here: numpy* To mend it: pip install 'cupy-cuda13x[ctk]'."
    )
    assert_told(told)
    here.cuda.nvrtc.getVersion = lambda: (13, 0)
    del here.cuda.cublas
    assert "cublas" in (plugin.probe().reason or "")
    here.packages = {"cupy": "14.2.0"}  # built here, so no wheel's extra helps
    assert plugin.probe().cure == "install the CUDA 13 toolkit, and set CUDA_PATH to its folder"


def test_the_headers_of_the_toolkit_are_missing(
    here: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.pathfinder.find_nvidia_header_directory = lambda _: None
    assert_told(
        "the headers of the CUDA toolkit are missing. Ready here: numpy* To mend it: "
        "pip install 'cupy-cuda13x[ctk]'."
    )
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)  # as with a CuPy that has its own
    assert plugin.probe().ready


def test_the_toolkit_is_of_another_cuda(here: Machine) -> None:
    here.cuda.nvrtc.getVersion = lambda: (12, 4)
    assert_told(
        "NVRTC here is of CUDA 12, and this CuPy for CUDA 13. Ready here: numpy* To mend it: "
        "pip install 'cupy-cuda13x[ctk]'."
    )


def test_cupy_is_damaged(here: Machine) -> None:
    here.cuda.driver.get_build_version = failing(ImportError("libcudart.so:\nundefined symbol"))
    assert_told(
        "CuPy cannot be imported (ImportError: libcudart.so: undefined symbol). Ready here: "
        "numpy* To mend it: pip install --force-reinstall cupy-cuda13x."
    )


def test_no_device(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    here.cuda.runtime.getDeviceCount = failing(FakeCudaError("cudaErrorNoDevice:\nnone"))
    reason = "the CUDA driver gives no device (FakeCudaError: cudaErrorNoDevice: none)"
    found = plugin.probe()
    assert (found.reason, found.cure) == (reason, "see what nvidia-smi lists")
    here.cuda.runtime.getDeviceCount = lambda: 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert_told(
        "the CUDA driver finds no device. Ready here: numpy* To mend it: "
        "CUDA_VISIBLE_DEVICES='7' hides those that are not in it; unset it."
    )


def test_several_packages_over_each_other(here: Machine) -> None:
    """They may run, so they do; but nobody is left in the dark."""
    here.packages = {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.2.0"}
    warning = (
        "2 CuPy packages lie over each other; pip uninstall -y cupy-cuda12x cupy-cuda13x, then "
        "pip install 'tfx-lm[cupy13]'"
    )
    found = plugin.probe()
    assert (found.ready, found.warning) == (True, warning)
    assert found.version == "cupy-cuda12x 14.2.0, cupy-cuda13x 14.2.0"
    assert listed() == f"ready, but {warning}"
    assert f"backend 'cupy': {warning}" in examine({})[1]
    here.cuda.driver.get_build_version = failing(ImportError("half of it is gone"))
    assert (plugin.probe().cure or "").startswith("pip uninstall -y cupy-cuda12x cupy-cuda13x, ")


def test_a_wrong_number(here: Machine) -> None:
    with pytest.raises(BackendError) as caught:
        open_backend(PluginHost(), "cupy:2")
    assert str(caught.value) == "backend 'cupy' has no device '2' here. It has: 0, 1."


def listed() -> str:
    """What `tfx backends` and `tfx doctor` say of it."""
    (cupy,) = (b for b in survey(PluginHost(environ={})) if b["name"] == "cupy")
    return status(cupy)


def assert_told(message: str) -> None:
    """`--backend cupy` ends with this, where * is what else is ready; the lists say the same."""
    with pytest.raises(BackendError) as caught:
        open_backend(PluginHost(environ={}), "cupy")
    told = str(caught.value)
    assert "\n" not in told
    for part in message.split("*"):
        assert part in told
    found = plugin.probe()
    for clause in (found.reason, found.cure):
        assert clause is None or (clause in listed() and clause in told)
