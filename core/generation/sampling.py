"""The choice of the next tokens as one operation, which a backend may do where their logits lie."""

from __future__ import annotations

import numpy as np

from tfx.core.creation import tensor
from tfx.core.dtypes import HALVES, DType
from tfx.core.errors import DTypeError, OptionError, ShapeError
from tfx.core.fused import fused
from tfx.core.generation.logits import Row, choose
from tfx.core.generation.options import GenerationOptions
from tfx.core.tensor import Tensor


@fused
def sample_token(
    logits: Tensor,
    uniforms: Tensor | None = None,
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:
    """The next token of each row of logits (rows, vocabulary): ids (rows,) of the index dtype.

    This form copies the logits to the host, and the ids back. A kernel gives the same ids without;
    only where two tokens part may its exp, good to the last place, put 2**-40 on the other side.

    Args:
        logits: of any float dtype.
        uniforms: floats (rows,) in [0, 1), by which tokens are drawn, best of float64; None at
            temperature 0, where the likeliest are taken, the first of equals.
        temperature, top_k, top_p, min_p: as in `GenerationOptions`.

    Returns:
        -1 for a row of which nothing can be chosen: logits that are not finite, or are not when
        divided by the temperature.

    Raises:
        ShapeError, DTypeError: arguments that do not go together.
        OptionError: an option is out of range.
    """
    options = GenerationOptions(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    _check(logits, uniforms, options)
    if logits.dtype in HALVES:
        logits = logits.cast(DType.float32)
    rows = logits.numpy()
    numbers = np.zeros(len(rows)) if uniforms is None else uniforms.numpy()
    ids = [_chosen(row, options, float(x)) for row, x in zip(rows, numbers, strict=True)]
    return tensor(np.array(ids, np.int64), logits.backend, logits.backend.index_dtype)


def _chosen(row: Row, options: GenerationOptions, uniform: float) -> int:
    if not np.isfinite(row.max()):
        return -1
    try:
        return choose(row, options, uniform)
    except OptionError:
        return -1


def _check(logits: Tensor, uniforms: Tensor | None, options: GenerationOptions) -> None:
    if logits.ndim != 2 or not logits.shape[1]:
        raise ShapeError(f"logits {logits.shape}: expected (rows, vocabulary)")
    if not logits.dtype.is_float:
        raise DTypeError(f"logits of {logits.dtype}: expected floats")
    if uniforms is None:
        if options.temperature:
            raise OptionError(
                "{temperature} {given} draws tokens: expected a uniform number for each row",
                given=options.temperature,
            )
    elif uniforms.shape != logits.shape[:1] or not uniforms.dtype.is_float:
        raise ShapeError(
            f"uniforms {uniforms.dtype} {uniforms.shape} for logits {logits.shape}: expected "
            "floats, one for each row"
        )
