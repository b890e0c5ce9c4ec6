"""One training step of a GPT-2, whatever it learns: batches, gradient, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.capture import jit
from tfx.core.creation import full, tensor
from tfx.core.dropout import Dropout
from tfx.core.dtypes import DType
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.schedules import Table
from tfx.core.tensor import Tensor
from tfx.core.threefry import key_from_seed
from tfx.models.gpt2.options import Options
from tfx.models.gpt2.passing import Pass

Loss = Callable[..., Tensor]
"""From parameters, a `Pass` and the tensors of a batch to the mean loss, 0-d."""

Advance = Callable[[TrainState, int], tuple[TrainState, Tensor, Tensor]]
"""As `Loop.advance`."""


def stepping(
    state: TrainState,
    options: Options,
    schedule: Table,
    batch_of: Callable[[int], Sequence[HostArray]],
    loss: Loss,
) -> Advance:
    """One training step, as `Loop.advance` wants it.

    Args:
        state: one like those that it will be called with.
        batch_of: the arrays of each batch, by its number.
        loss: of a batch.
    """
    optimizer = optimizer_for(options, state.params, schedule)
    key = key_from_seed(options.seed)
    flat = state.params.flat
    shape, dtype, backend = flat.shape, flat.dtype, flat.backend
    turns = [tensor(turn, backend, backend.index_dtype) for turn in range(options.grad_accum)]

    def mean_loss(p: Parameters, draw: Tensor, *batch: Tensor) -> Tensor:
        through = Pass(dropout=Dropout(key, draw), checkpoint=options.checkpoint_activations)
        return loss(p, through, *batch)

    differentiate = value_and_grad(mean_loss, autograd=options.autograd)

    def differentiated(state: TrainState, turn: Tensor, *batch: Tensor) -> tuple[Tensor, Tensor]:
        draw = state.step * options.grad_accum + turn  # of dropout: on the device, as the step is
        value, grads = differentiate(state.params, draw, *batch)
        return value, state.params.flatten(grads)

    @partial(jit, donate_argnums=(0,))
    def learn(state: TrainState, *batch: Tensor) -> tuple[TrainState, Tensor, Tensor]:
        value, g = differentiated(state, *batch)
        state, norm = optimizer.update(state, value, g)
        return state, value, norm

    @partial(jit, donate_argnums=(0,))
    def add(sums: tuple[Tensor, Tensor], state: TrainState, *batch: Tensor) -> Any:
        value, g = differentiated(state, *batch)
        return sums[0] + value, sums[1] + g

    @partial(jit, donate_argnums=(0,))
    def apply(state: TrainState, sums: tuple[Tensor, Tensor]) -> tuple[TrainState, Tensor, Tensor]:
        value, g = (x * (1 / options.grad_accum) for x in sums)
        state, norm = optimizer.update(state, value, g)
        return state, value, norm

    def advance(state: TrainState, step: int) -> tuple[TrainState, Tensor, Tensor]:
        first = step * options.grad_accum
        parts = (
            (turn, *placed(batch_of(first + i), backend, dtype)) for i, turn in enumerate(turns)
        )
        if options.grad_accum == 1:
            return learn(state, *next(parts))
        sums = full((), 0.0, backend, dtype), full(shape, 0.0, backend, dtype)
        for part in parts:
            sums = add(sums, state, *part)
        return apply(state, sums)

    return advance


def placed(batch: Sequence[HostArray], backend: Backend, dtype: DType) -> list[Tensor]:
    """The arrays of a batch on a backend: whole numbers as indices, floats as `dtype`."""
    kinds = {"i": backend.index_dtype, "f": dtype, "b": DType.bool}
    return [tensor(array, backend, kinds[array.dtype.kind]) for array in batch]


def optimizer_for(options: Options, params: Parameters, schedule: Table) -> AdamW:
    """AdamW as the options have it; what is no matrix does not decay."""
    matrices = {name for name, shape in params.shapes.items() if len(shape) == 2}
    return AdamW(
        schedule,
        params,
        beta1=options.beta1,
        beta2=options.beta2,
        eps=options.eps,
        decay={name: options.weight_decay * (name in matrices) for name in params},
        grad_clip=options.grad_clip or None,
    )
