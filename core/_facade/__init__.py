"""tfx: language models that run and train unchanged on any array library.

`import tfx` imports nothing else: a name is looked up when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # HOMES once more, for type checkers and editors; a test compares the two
    from tfx.core.autograd import value_and_grad as value_and_grad
    from tfx.core.dtypes import DType as DType
    from tfx.core.errors import TfxError as TfxError
    from tfx.core.tensor import Tensor as Tensor
    from tfx.core.tensor import tensor as tensor

    __version__: str
    bool = DType.bool
    uint8 = DType.uint8
    int8 = DType.int8
    int32 = DType.int32
    int64 = DType.int64
    float16 = DType.float16
    bfloat16 = DType.bfloat16
    float32 = DType.float32
    float64 = DType.float64

HOMES = {
    "DType": "tfx.core.dtypes",
    "Tensor": "tfx.core.tensor",
    "TfxError": "tfx.core.errors",
    "tensor": "tfx.core.tensor",
    "value_and_grad": "tfx.core.autograd",
    "bool": "tfx.core.dtypes:DType",
    "uint8": "tfx.core.dtypes:DType",
    "int8": "tfx.core.dtypes:DType",
    "int32": "tfx.core.dtypes:DType",
    "int64": "tfx.core.dtypes:DType",
    "float16": "tfx.core.dtypes:DType",
    "bfloat16": "tfx.core.dtypes:DType",
    "float32": "tfx.core.dtypes:DType",
    "float64": "tfx.core.dtypes:DType",
}
"""Each public name, and the module (or the class in it) that holds it."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("tfx-lm")
    elif name in HOMES:
        from importlib import import_module
        from operator import attrgetter

        module, _, owner = HOMES[name].partition(":")
        value = attrgetter(f"{owner}.{name}" if owner else name)(import_module(module))
    else:
        raise AttributeError(f"module 'tfx' has no attribute {name!r}")
    globals()[name] = value  # next time Python finds it without asking here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES, "__version__"})
