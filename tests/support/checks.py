"""Gradients of gradients, against finite differences of the first ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.dtypes import DType
from tfx.core.tensor import Tensor
from tfx.testing.calling import told
from tfx.testing.records import Op
from tfx.testing.trials import Trial, assert_slope


def check_second_derivatives(op: Op, B: Backend) -> None:
    """In float64, the tape walked twice."""
    for sample in op.samples:
        trial = Trial(op, sample, DType.float64)
        with told(trial):
            aims = [
                np.random.default_rng(1).standard_normal(x.shape)
                for x in trial.variables(trial.arrays)
            ]

            def slope(moved: Sequence[Any], trial: Trial = trial, aims: Any = aims) -> float:
                grads = trial.gradients(B, arrays=moved)
                return float(sum((g * v).sum() for g, v in zip(grads, aims, strict=True)))

            found = _gradients_of_the_slope(trial, B, aims)
            assert_slope(found, *trial.differences(slope), DType.float64)


def _gradients_of_the_slope(trial: Trial, B: Backend, aims: Sequence[HostArray]) -> list[HostArray]:
    """By every variable, of the slope of the loss along `aims`."""
    loss = trial.loss(B, "plain")

    def slope(params: Sequence[Tensor]) -> Tensor:
        _, grads = value_and_grad(loss, autograd="core")(params)
        along = [Tensor(B.asarray(v, dtype=DType.float64), B) for v in aims]
        terms: list[Tensor] = [(g * v).sum() for g, v in zip(grads, along, strict=True)]
        return sum(terms[1:], start=terms[0])

    params = [Tensor(x, B) for x in trial.variables(trial.raw(B))]
    _, found = value_and_grad(slope, autograd="core")(params)
    return [g.numpy() for g in found]
