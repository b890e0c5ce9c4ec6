"""tfx: language models that run and train unchanged on any array library.

`import tfx` imports nothing else: a name is looked up when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # HOMES once more, for type checkers and editors; a test compares the two
    from tfx.core.autograd import grad as grad
    from tfx.core.autograd import value_and_grad as value_and_grad
    from tfx.core.backend import Backend as Backend
    from tfx.core.capture import eager as eager
    from tfx.core.capture import jit as jit
    from tfx.core.checkpointing import checkpointed as checkpointed
    from tfx.core.creation import arange as arange
    from tfx.core.creation import full as full
    from tfx.core.creation import tensor as tensor
    from tfx.core.dlpack import from_dlpack as from_dlpack
    from tfx.core.dtypes import DType as DType
    from tfx.core.errors import TfxError as TfxError
    from tfx.core.fused import composed as composed
    from tfx.core.nn import adamw_step as adamw_step
    from tfx.core.nn import attention as attention
    from tfx.core.nn import cross_entropy as cross_entropy
    from tfx.core.nn import embedding as embedding
    from tfx.core.nn import gelu as gelu
    from tfx.core.nn import layer_norm as layer_norm
    from tfx.core.nn import linear as linear
    from tfx.core.nn import rms_norm as rms_norm
    from tfx.core.nn import softmax as softmax
    from tfx.core.ops import absolute as absolute
    from tfx.core.ops import clip as clip
    from tfx.core.ops import concat as concat
    from tfx.core.ops import erf as erf
    from tfx.core.ops import exp as exp
    from tfx.core.ops import isfinite as isfinite
    from tfx.core.ops import log as log
    from tfx.core.ops import log_softmax as log_softmax
    from tfx.core.ops import logsumexp as logsumexp
    from tfx.core.ops import maximum as maximum
    from tfx.core.ops import minimum as minimum
    from tfx.core.ops import relu as relu
    from tfx.core.ops import rsqrt as rsqrt
    from tfx.core.ops import sigmoid as sigmoid
    from tfx.core.ops import silu as silu
    from tfx.core.ops import split as split
    from tfx.core.ops import sqrt as sqrt
    from tfx.core.ops import stack as stack
    from tfx.core.ops import tanh as tanh
    from tfx.core.ops import var as var
    from tfx.core.ops import where as where
    from tfx.core.pipelines.loading import load as load
    from tfx.core.pipelines.pipeline import pipeline as pipeline
    from tfx.core.resolve import backend as backend
    from tfx.core.tape import no_grad as no_grad
    from tfx.core.tensor import Tensor as Tensor
    from tfx.core.tokenizer.bpe import ByteLevelBPE as ByteLevelBPE
    from tfx.core.tokenizer.files import load_tokenizer as load_tokenizer

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
    "grad": "tfx.core.autograd",
    "value_and_grad": "tfx.core.autograd",
    "Backend": "tfx.core.backend",
    "eager": "tfx.core.capture",
    "jit": "tfx.core.capture",
    "checkpointed": "tfx.core.checkpointing",
    "from_dlpack": "tfx.core.dlpack",
    "DType": "tfx.core.dtypes",
    "TfxError": "tfx.core.errors",
    "composed": "tfx.core.fused",
    "adamw_step": "tfx.core.nn",
    "attention": "tfx.core.nn",
    "cross_entropy": "tfx.core.nn",
    "embedding": "tfx.core.nn",
    "gelu": "tfx.core.nn",
    "layer_norm": "tfx.core.nn",
    "linear": "tfx.core.nn",
    "rms_norm": "tfx.core.nn",
    "softmax": "tfx.core.nn",
    "absolute": "tfx.core.ops",
    "clip": "tfx.core.ops",
    "concat": "tfx.core.ops",
    "erf": "tfx.core.ops",
    "exp": "tfx.core.ops",
    "isfinite": "tfx.core.ops",
    "log": "tfx.core.ops",
    "log_softmax": "tfx.core.ops",
    "logsumexp": "tfx.core.ops",
    "maximum": "tfx.core.ops",
    "minimum": "tfx.core.ops",
    "relu": "tfx.core.ops",
    "rsqrt": "tfx.core.ops",
    "sigmoid": "tfx.core.ops",
    "silu": "tfx.core.ops",
    "split": "tfx.core.ops",
    "sqrt": "tfx.core.ops",
    "stack": "tfx.core.ops",
    "tanh": "tfx.core.ops",
    "var": "tfx.core.ops",
    "where": "tfx.core.ops",
    "load": "tfx.core.pipelines.loading",
    "pipeline": "tfx.core.pipelines.pipeline",
    "backend": "tfx.core.resolve",
    "no_grad": "tfx.core.tape",
    "Tensor": "tfx.core.tensor",
    "ByteLevelBPE": "tfx.core.tokenizer.bpe",
    "load_tokenizer": "tfx.core.tokenizer.files",
    "arange": "tfx.core.creation",
    "full": "tfx.core.creation",
    "tensor": "tfx.core.creation",
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
