"""The kernels of the cupy backend, each in place of a composed operation: see `tfx.core.fused`."""

from tfx.backends.cupy.kernels import (
    activations,
    attention,
    linear,
    norms,
    optimizer,
    quantized,
    sampling,
    softmax,
    tokens,
)
from tfx.core.backend import Fused

KERNELS: tuple[Fused, ...] = (
    *activations.KERNELS,
    *norms.KERNELS,
    attention.ATTENTION,
    linear.LINEAR,
    *softmax.KERNELS,
    *tokens.KERNELS,
    *optimizer.KERNELS,
    *quantized.KERNELS,
    sampling.SAMPLE_TOKEN,
)
