"""AdamW over one flat buffer, with everything that changes from step to step held in arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfx.core.nn import adamw_step
from tfx.core.ops import where
from tfx.core.parameters import Parameters
from tfx.core.schedules import Table
from tfx.core.tensor import Tensor, full, tensor


@dataclass(frozen=True, eq=False)
class TrainState:
    """What a training step maps to what it becomes.

    Attributes:
        params: the parameters.
        m, v: Adam's moments, flat like `params.flat`.
        step: how many steps were taken, a 0-d tensor of the backend's index dtype.
        healthy: a 0-d bool, False from the first step whose loss or gradient was not finite.
    """

    params: Parameters
    m: Tensor
    v: Tensor
    step: Tensor
    healthy: Tensor

    @classmethod
    def start(cls, params: Parameters) -> TrainState:
        """The state before the first step."""
        flat, backend = params.flat, params.flat.backend
        zeros = full(flat.shape, 0.0, backend, flat.dtype)
        step = full((), 0, backend, backend.index_dtype)
        return cls(params, zeros, zeros, step, step == 0)


class AdamW:
    """Adam with decoupled weight decay and a schedule (Loshchilov and Hutter 2019,
    arXiv:1711.05101). `eps` stands outside the root.

    Args:
        schedule: the learning rate of each step.
        like: parameters whose backend and dtype the table is made for.
        beta1, beta2, eps: as in the paper.
        decay: weight decay of all parameters; 0 for plain Adam.
        grad_clip: cap of the global gradient norm; None for no cap.
    """

    def __init__(
        self,
        schedule: Table,
        like: Parameters,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        decay: float = 0.0,
        grad_clip: float | None = None,
    ) -> None:
        self.beta1, self.beta2, self.eps, self.grad_clip = beta1, beta2, eps, grad_clip
        backend, dtype = like.flat.backend, like.flat.dtype
        t = np.arange(1, len(schedule) + 1)
        rates = np.stack([schedule, 1 / (1 - beta1**t), 1 / (1 - beta2**t)], axis=1)
        self._rates = tensor(rates, backend, dtype)
        self._decay = full((), decay, backend, dtype) if decay else None

    def update(
        self, state: TrainState, loss: Tensor, grads: Mapping[str, Tensor]
    ) -> tuple[TrainState, Tensor]:
        """One step: the state it leads to, and the gradient's norm before clipping.

        Where the loss or the norm (0-d, both) is not finite, and ever after, the new state is the
        old one bit for bit, but for `healthy`.
        """
        params = state.params
        g = params.flatten(grads)
        norm = (g * g).sum().sqrt()
        healthy = state.healthy & (loss * 0 == norm * 0)  # inf * 0 is NaN, which equals nothing
        if self.grad_clip is not None:
            g = g * (self.grad_clip / norm.maximum(self.grad_clip))
        p, m, v = adamw_step(
            params.flat,
            g,
            state.m,
            state.v,
            self._rates.take(state.step),
            self._decay,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
        )
        new = TrainState(
            params=params.replaced(where(healthy, p, params.flat)),
            m=where(healthy, m, state.m),
            v=where(healthy, v, state.v),
            step=state.step + healthy.cast(state.step.dtype),
            healthy=healthy,
        )
        return new, norm
