"""AdamW over one flat buffer, with everything that changes from step to step held in arrays."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.creation import full, tensor
from tfx.core.nn import adamw_step, euclidean_norm
from tfx.core.parameters import Parameters
from tfx.core.schedules import Table
from tfx.core.tensor import Tensor
from tfx.core.weights import StoredTensor


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
        m, v = (full(flat.shape, 0.0, backend, flat.dtype) for _ in "mv")
        step = full((), 0, backend, backend.index_dtype)
        return cls(params, m, v, step, step == 0)

    @classmethod
    def resumed(
        cls,
        params: Parameters,
        m: Mapping[str, HostArray | StoredTensor],
        v: Mapping[str, HostArray | StoredTensor],
        step: int,
    ) -> TrainState:
        """The state after `step` steps: `m` and `v` are by the names of the parameters, and of
        their shapes, as `moments` gave them."""
        start, flat = cls.start(params), params.flat
        flat_m, flat_v = (
            Parameters.from_host(named, flat.backend, flat.dtype).flat for named in (m, v)
        )
        return replace(start, m=flat_m, v=flat_v, step=start.step + step)

    def moments(self) -> dict[str, StoredTensor]:
        """Host copies of both moments of each parameter, as `m.NAME` and `v.NAME`."""
        return {
            f"{which}.{name}": array
            for which, flat in (("m", self.m), ("v", self.v))
            for name, array in self.params.to_host(flat).items()
        }

    def tree_leaves(self) -> list[Tensor]:
        """Everything in it; the parameters as the one buffer they are cut from."""
        return [self.params.flat, self.m, self.v, self.step, self.healthy]

    def tree_form(self) -> Hashable:
        """The names and shapes of the parameters."""
        return self.params.form

    def tree_like(self, values: Iterator[Tensor]) -> TrainState:
        """A state of other tensors in the order of `tree_leaves`."""
        flat, m, v, step, healthy = islice(values, 5)
        return TrainState(self.params.replaced(flat), m, v, step, healthy)


class AdamW:
    """Adam with decoupled weight decay and a schedule (Loshchilov and Hutter 2019,
    arXiv:1711.05101). `eps` stands outside the root.

    Args:
        schedule: the learning rate of each step.
        like: parameters whose backend and dtype the table is made for.
        beta1, beta2, eps: as in the paper.
        decay: weight decay of all parameters, or of each by its name; 0 for plain Adam.
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
        decay: float | Mapping[str, float] = 0.0,
        grad_clip: float | None = None,
    ) -> None:
        self.beta1, self.beta2, self.eps, self.grad_clip = beta1, beta2, eps, grad_clip
        backend, dtype = like.flat.backend, like.flat.dtype
        t = np.arange(1, len(schedule) + 1)
        rates = np.stack([schedule, 1 / (1 - beta1**t), 1 / (1 - beta2**t)], axis=1)
        self._rates = tensor(rates, backend, dtype)
        if isinstance(decay, Mapping):
            each = {n: full(s, decay[n], backend, dtype) for n, s in like.shapes.items()}
            self._decay: Tensor | None = like.flatten(each)
        else:
            self._decay = full((), decay, backend, dtype) if decay else None

    def update(self, state: TrainState, loss: Tensor, g: Tensor) -> tuple[TrainState, Tensor]:
        """One step by the gradient `g`, flat like `params.flat`: the state it leads to, and the
        gradient's norm before clipping.

        Where the loss or the norm (0-d, both) is not finite, and ever after, the new state is the
        old one bit for bit, but for `healthy`.
        """
        params = state.params
        norm = euclidean_norm(g)
        healthy = state.healthy & (loss * 0 == norm * 0)  # inf * 0 is NaN, which equals nothing
        clip = self.grad_clip
        p, m, v = adamw_step(
            params.flat,
            g,
            state.m,
            state.v,
            self._rates.take(state.step),
            self._decay,
            healthy,
            None if clip is None else clip / norm.maximum(clip),
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
        )
        new = TrainState(
            params=params.replaced(p),
            m=m,
            v=v,
            step=state.step + healthy.cast(state.step.dtype),
            healthy=healthy,
        )
        return new, norm
