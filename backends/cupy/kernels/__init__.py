"""The kernels of the cupy backend, each in place of a composed operation: see `tfx.core.fused`."""

from tfx.backends.cupy.kernels import attention, quantized
from tfx.core.backend import Fused

KERNELS: tuple[Fused, ...] = (attention.ATTENTION, *quantized.KERNELS)
