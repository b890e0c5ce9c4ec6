"""What one training step of a microGPT does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tfx.core.autograd import value_and_grad
from tfx.core.capture import jit
from tfx.core.optim import AdamW, TrainState
from tfx.core.schedules import Table
from tfx.core.tensor import Tensor
from tfx.models.microgpt.model import Params, loss
from tfx.models.microgpt.run import Run

Window = tuple[Tensor, Tensor, Tensor]


def step_of(
    run: Run, schedule: Table
) -> Callable[[TrainState, int], tuple[TrainState, Tensor, Tensor]]:
    """One training step, as `Loop.advance` wants it."""
    options = run.options
    optimizer = AdamW(
        schedule,
        run.model.params,
        beta1=options.beta1,
        beta2=options.beta2,
        eps=options.eps,
        decay=options.weight_decay,
        grad_clip=options.grad_clip,
    )
    at_once = options.batch_size * options.grad_accum

    def mean_loss(p: Params, documents: Sequence[Window]) -> Tensor:
        losses = [loss(p, run.model.config, *window) for window in documents]
        return losses[0] if at_once == 1 else sum(losses[1:], losses[0]) * (1 / at_once)

    differentiate = value_and_grad(mean_loss, autograd=options.autograd)

    @partial(jit, donate_argnums=(0,))
    def learn(state: TrainState, documents: Sequence[Window]) -> tuple[TrainState, Tensor, Tensor]:
        value, grads = differentiate(state.params, documents)
        state, norm = optimizer.update(state, value, state.params.flatten(grads))
        return state, value, norm

    def advance(state: TrainState, step: int) -> tuple[TrainState, Tensor, Tensor]:
        turns = range(step * at_once, (step + 1) * at_once)
        texts = [run.documents[turn % len(run.documents)] for turn in turns]
        return learn(state, [run.model.windows(text) for text in texts])

    return advance
