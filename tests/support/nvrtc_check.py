"""A plugin of pytest: NVIDIA's own compiler is asked about every kernel of the cupy backend.

    PYTHONPATH=tests/support pytest -p nvrtc_check tests/backends/cupy_kernels ...

notes what CuPy compiles while a module of `tfx.backends.cupy.kernels` calls it, and every kernel
that the backend's source names, as CuPy would hand it to NVRTC; at the end NVRTC compiles it for
the architectures of `--nvrtc`. It needs the package nvidia-cuda-nvrtc, the headers of
nvidia-cuda-runtime, and no GPU. The session fails where a source is refused, or where a kernel that
the backend's source names was compiled by no test.
"""

from __future__ import annotations

import ctypes
import glob
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

FOLDER = Path(__file__).parents[2] / "backends" / "cupy"
ARCHITECTURES = "sm_80,sm_90"
QUICK = "--Ofast-compile=max"  # what it takes is the same, and how fast that would run is not asked
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")
QUOTED = re.compile(r"""["'](tfx_\w+)["']""")


class Source(NamedTuple):
    """What NVRTC gets of a kernel, but for the architecture."""

    text: str
    options: tuple[str, ...]
    expressions: tuple[str, ...]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nvrtc", default=ARCHITECTURES, metavar="ARCH,...", help="of which GPUs")


def pytest_configure(config: pytest.Config) -> None:
    if find_spec("cupy") is None:
        raise pytest.UsageError("nvrtc_check: there is no CuPy that could compile anything")
    config.pluginmanager.register(NvrtcCheck(config.getoption("--nvrtc").split(",")), "nvrtc")


class NvrtcCheck:
    """Collects sources, and asks about them in the end."""

    def __init__(self, architectures: list[str]) -> None:
        self._architectures = architectures
        self._found: dict[Source, None] = {}
        self._declared = declared()
        self._complaints: list[str] = []
        from cupy.cuda import compiler

        inner = compiler._compile_with_cache_cuda

        def listening(source: str, options: Any, arch: Any, *rest: Any, **more: Any) -> Any:
            if from_kernels(sys._getframe()) or self._named_in([source]):
                given = inspect.signature(inner).bind(source, options, arch, *rest, **more)
                names = given.arguments.get("name_expressions") or ()
                self._found[Source(source, tuple(options), tuple(names))] = None
            return inner(source, options, arch, *rest, **more)

        compiler._compile_with_cache_cuda = listening

    def _named_in(self, texts: Iterable[str]) -> set[str]:
        return {name for text in texts for name in self._declared if name in text}

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus not in (0, pytest.ExitCode.TESTS_FAILED):
            return
        missed = sorted(self._declared - self._named_in(source.text for source in self._found))
        self._complaints = [f"{name} was compiled by no test" for name in missed]
        self._complaints += refused(list(self._found), self._architectures)
        if self._complaints and exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("NVRTC")
        for line in self._complaints:
            terminalreporter.write_line(line)
        terminalreporter.write_line(
            f"{len(self._found)} sources of the cupy backend compiled for "
            f"{' and '.join(self._architectures)}, {len(self._complaints)} complaints"
        )


def from_kernels(frame: Any) -> bool:
    """Whether a module of kernels is among the callers."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("tfx.backends.cupy.kernels"):
            return True
        frame = frame.f_back
    return False


def declared() -> set[str]:
    """The kernels whose names stand in the backend's source."""
    texts = [path.read_text() for path in FOLDER.rglob("*.py")]
    return {n for text in texts for found in (KERNEL, QUOTED) for n in found.findall(text)}


# ---- NVRTC, in a process of its own: in ours its names would meet those of a simulated one -------


def refused(sources: list[Source], architectures: list[str]) -> Iterator[str]:
    """NVRTC's complaints, one for each source and architecture it refuses."""
    library = next(installed("lib/libnvrtc.so.*[0-9]"), None)
    halves = next(installed("include/cuda_fp16.h"), None)
    if library is None or halves is None:
        yield "NVRTC is not here: pip install nvidia-cuda-nvrtc nvidia-cuda-runtime"
        return
    headers = f"-I{os.path.dirname(halves)}"
    command = [sys.executable, "-I", __file__, library]
    pipe = subprocess.PIPE
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=kept) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        for source in sources:
            for architecture in architectures:
                asked = [source.text, [*options(source), headers, f"-arch={architecture}"]]
                print(json.dumps([*asked, source.expressions]), file=worker.stdin, flush=True)
                log = json.loads(worker.stdout.readline())
                if log:
                    names = ", ".join(KERNEL.findall(source.text)) or "a kernel"
                    yield f"{names} for {architecture}: {log}"
        worker.stdin.close()


def installed(pattern: str) -> Iterator[str]:
    """Files of NVIDIA's packages."""
    for folder in sys.path:
        yield from sorted(glob.glob(os.path.join(folder, "nvidia", "*", pattern)))


def options(source: Source) -> list[str]:
    """As CuPy completes them, but to be quick; the headers of a simulated device are no good to
    NVRTC."""
    simulated = [o for o in source.options if o.startswith("-I") and "cudasim" in o]
    kept = [option for option in source.options if option not in simulated]
    return [*kept, "-ftz=true", "--device-as-default-execution-space", QUICK]


def serve(path: str) -> None:
    library = ctypes.CDLL(path)
    for line in sys.stdin:
        print(json.dumps(compiled(library, *json.loads(line))), flush=True)


def compiled(library: Any, text: str, options: list[str], expressions: list[str]) -> str:
    """What NVRTC says of a source; nothing if it takes it."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    for expression in expressions:
        library.nvrtcAddNameExpression(program, expression.encode())
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), given)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode() or f"error {failed}" if failed else ""


if __name__ == "__main__":
    serve(sys.argv[1])
