"""Kernels for the numpy backend by Numba, as a plugin offers them."""

from importlib.util import find_spec

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import KernelSpec

_KERNELS = {
    "linear": ("dense:LINEAR", "bias, activation and residual in one pass after the product"),
    "linear_q8": ("quantized:LINEAR_Q8", "reads weights of 8 bits as they are"),
    "linear_q4": ("quantized:LINEAR_Q4", "reads weights of 4 bits as they are"),
    "linear_half": ("halves:LINEAR_HALF", "reads weights of 16 bits as they are"),
    "gelu": ("dense:GELU", "both forms in one pass"),
    "rms_norm": ("norms:RMS_NORM", "one pass, and one for all gradients"),
    "layer_norm": ("norms:LAYER_NORM", "one pass, and one for all gradients"),
    "softmax": ("attention:SOFTMAX", "one pass"),
    "attention": ("attention:ATTENTION", "reads and computes what is visible alone"),
    "cross_entropy": ("tokens:CROSS_ENTROPY", "keeps no probabilities"),
    "embedding": ("tokens:EMBEDDING", "gathers rows, and adds up their gradients"),
    "dropout_factor": ("random:DROPOUT_FACTOR", "draws and compares in one pass"),
    "euclidean_norm": ("optimizer:EUCLIDEAN_NORM", "one pass"),
    "adamw_step": ("optimizer:ADAMW_STEP", "one pass over all of the optimizer's state"),
}


@hookimpl
def tfx_kernels() -> list[KernelSpec]:
    if find_spec("numba") is None:
        return []
    return [
        KernelSpec("numpy", op, f"tfx.backends.numba.{target}", f"by Numba: {summary}")
        for op, (target, summary) in _KERNELS.items()
    ]
