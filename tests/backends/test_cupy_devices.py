"""A CUDA device that is not the first: everything runs there, whichever is current.

Needs two: simulated ones by CUDASIM_DEVICES=2.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tfx.backends.cupy import plugin
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.generation import GenerationOptions, generate
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.presets import BUNDLED
from tfx.testing.composed_table import FUSED_OPS
from tfx.testing.records import Op
from tfx.testing.trials import check_gradients, check_values


@pytest.fixture(scope="module")
def both() -> tuple[Backend, Backend]:
    """The first device, and the second."""
    found = plugin.probe()
    if len(found.devices) < 2:
        pytest.skip(f"two CUDA devices: {found.reason or f'there are {len(found.devices)}'}")
    from tfx.backends.cupy.backend import CupyBackend

    return CupyBackend("0"), CupyBackend("1")


@pytest.mark.parametrize("op", FUSED_OPS, ids=str)
def test_a_kernel_runs_on_either(both: tuple[Backend, Backend], op: Op) -> None:
    """One after the other, so that nothing compiled for the first serves the second."""
    if op.name not in both[1].fused:
        pytest.skip("no kernel for it")
    for B in both:
        check_values(op, B, op.samples[:2], DType.float32, ["plain"])
        if op.differentiable:
            check_gradients(op, B, op.samples[:1], DType.float64)
        assert sys.modules["cupy"].cuda.runtime.getDevice() == 0


def test_a_model_writes_the_same_on_either(both: tuple[Backend, Backend]) -> None:
    options = GenerationOptions(max_new_tokens=4)

    def written(B: Backend) -> Any:
        model = LanguageModel.load(BUNDLED, B, lambda _: None)
        return [text.token_ids for (text,) in generate(model, [[1, 2, 3], [4, 5]], options)]

    expected = written(NumpyBackend())
    assert [written(B) for B in both] == [expected, expected]
    assert sys.modules["cupy"].cuda.runtime.getDevice() == 0
