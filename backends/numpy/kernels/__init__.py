"""Fused ops in plain NumPy: fewer calls than the composed forms, and derivatives by hand.

Each handles float32 and float64; everything else goes to the composed form.
"""

from tfx.backends.numpy.kernels.attention import ATTENTION
from tfx.backends.numpy.kernels.dense import GELU, LINEAR
from tfx.backends.numpy.kernels.norms import LAYER_NORM, RMS_NORM
from tfx.backends.numpy.kernels.optimizer import ADAMW_STEP, EUCLIDEAN_NORM
from tfx.backends.numpy.kernels.softmax import SOFTMAX
from tfx.backends.numpy.kernels.tokens import CROSS_ENTROPY, EMBEDDING

KERNELS = (
    LINEAR,
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
