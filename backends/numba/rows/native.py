"""Machine code of LLVM text, kept on disk beside that of Numba's kernels."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from tfx.backends.numba.compiling import code_folder
from tfx.core.files import make_folder, replace_file

KEPT = 512
"""So many functions stay on disk: those written last."""

_DIGEST = hashlib.sha256().digest_size


@lru_cache(maxsize=KEPT)
def compiled(text: str, name: str) -> Callable[[ctypes.c_void_p], None]:
    """The function of that name in a module of LLVM text, which takes a pointer and may be called
    by several threads at once: Python's lock is not held meanwhile."""
    machine, known_as = _machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    path = code_folder() / f"{hashlib.sha256((known_as + text).encode()).hexdigest()}.row"
    code = _read(path)
    if code is None:
        code = machine.emit_object(llvm.parse_assembly(text))
        _write(path, code)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    function: Any = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address(name))
    function.engine = engine  # whose machine code it is: it lives as long
    made: Callable[[ctypes.c_void_p], None] = function
    return made


def _machine() -> tuple[Any, str]:
    """What compiles for this processor, and how it is told from others. One for each engine, which
    takes it over."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    processor = llvm.get_host_cpu_name()
    features = llvm.get_host_cpu_features().flatten()
    # Loops and registers are in the text; LLVM is not asked for more, since what takes time are the
    # kernels, which are compiled already.
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=processor, features=features, opt=1, jit=True
    )
    return machine, f"{llvm.llvm_version_info} {machine.triple} {processor} {features}\n"


def _read(path: Path) -> bytes | None:
    """What an earlier process left; None where that is nothing, or not whole."""
    with suppress(OSError):
        found = path.read_bytes()
        if hashlib.sha256(found[_DIGEST:]).digest() == found[:_DIGEST]:
            return found[_DIGEST:]
    return None


def _write(path: Path, code: bytes) -> None:
    """Keep code; where that cannot be, the next process compiles again."""
    with suppress(OSError):
        make_folder(path.parent)
        replace_file(path, [hashlib.sha256(code).digest(), code])
        kept = sorted(path.parent.glob("*.row"), key=lambda x: x.stat().st_mtime_ns)
        for old in kept[:-KEPT]:
            old.unlink()
