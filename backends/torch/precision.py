"""Products as exact as tfx promises, whatever torch's process-wide switches allow.

torch may be told, by a call or an environment variable, to round the operands of float32 products
to TF32 or bfloat16; and on CUDA it adds up parts of a half product in half unless told not to. The
switches belong to the user's own torch code: they are set while a call lasts, then put back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

Switch = tuple[Callable[[], Any], Callable[[Any], None], Any]
"""How to read a switch, how to set it, and what it must say."""


class Exactly(AbstractContextManager[None]):
    """Holds switches at what they must say. Calls on several threads may overlap."""

    def __init__(self, *switches: Switch) -> None:
        self._switches = switches
        self._lock = threading.Lock()
        self._inside = 0
        self._undo: list[tuple[Callable[[Any], None], Any]] = []

    def held(self) -> AbstractContextManager[None]:
        """A context in which every switch is as it must be; next to nothing where all are."""
        if self._inside:
            return self
        for read, _, wanted in self._switches:
            if read() != wanted:
                return self
        return _NOTHING

    def __enter__(self) -> None:
        with self._lock:
            for read, write, wanted in self._switches:
                if (said := read()) != wanted:
                    self._undo.append((write, said))
                    write(wanted)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            while self._inside == 0 and self._undo:
                write, said = self._undo.pop()
                write(said)


_NOTHING = nullcontext()


def _float32_precision() -> str | tuple[str, ...]:
    try:
        return str(torch.get_float32_matmul_precision())
    except RuntimeError:  # set library by library, through `torch.backends.*.fp32_precision`
        general = torch.backends.fp32_precision
        each = (products.fp32_precision for products in _libraries())
        return tuple("none" if said == general else said for said in each)  # "none" inherits


def _set_float32_precision(precision: str | tuple[str, ...]) -> None:
    if isinstance(precision, str):
        torch.set_float32_matmul_precision(precision)
    else:
        for products, said in zip(_libraries(), precision, strict=True):
            products.fp32_precision = said


def _libraries() -> tuple[Any, Any]:
    return torch.backends.cuda.matmul, torch.backends.mkldnn.matmul


def _forbidden(name: str) -> Switch:
    cublas = torch.backends.cuda.matmul
    return lambda: getattr(cublas, name), lambda said: setattr(cublas, name, said), False


float32_products = Exactly((_float32_precision, _set_float32_precision, "highest"))
half_products = Exactly(
    _forbidden("allow_fp16_reduced_precision_reduction"),
    _forbidden("allow_bf16_reduced_precision_reduction"),
)
