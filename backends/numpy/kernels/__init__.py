"""Fused ops in plain NumPy: fewer calls than the composed forms, and derivatives by hand; products
with weights in fewer bits leave those to the composed form.

Each handles float32 and float64; everything else goes to the composed form.
"""

from tfx.backends.numpy.kernels.attention import ATTENTION
from tfx.backends.numpy.kernels.dense import GELU, LINEAR
from tfx.backends.numpy.kernels.norms import LAYER_NORM, RMS_NORM
from tfx.backends.numpy.kernels.optimizer import ADAMW_STEP, EUCLIDEAN_NORM
from tfx.backends.numpy.kernels.softmax import SOFTMAX
from tfx.backends.numpy.kernels.stored import LINEAR_HALF, LINEAR_Q4, LINEAR_Q8
from tfx.backends.numpy.kernels.tokens import CROSS_ENTROPY, EMBEDDING

KERNELS = (
    LINEAR,
    LINEAR_Q8,
    LINEAR_Q4,
    LINEAR_HALF,
    GELU,
    RMS_NORM,
    LAYER_NORM,
    SOFTMAX,
    ATTENTION,
    CROSS_ENTROPY,
    EMBEDDING,
    EUCLIDEAN_NORM,
    ADAMW_STEP,
)
