"""All fused ops there are: importing this defines them, wherever they stand."""

from tfx.core import dropout, nn, quantized
from tfx.core.generation import sampling

MODULES = (nn, quantized, dropout, sampling)
"""Where they stand."""
