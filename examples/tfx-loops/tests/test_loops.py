"""What is the loops' own: cells, places, numbers; and the command line.

test_conformance.py says the rest.
"""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from math import inf, nan, tanh
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfx_loops import arrays, scalars
from tfx_loops.backend import LoopsBackend

from tfx.core.dtypes import DType

B = LoopsBackend()
GRID = np.arange(12.0).reshape(3, 4)
ODD = [nan, inf, -inf, 0.0, -0.0, 0.5, -0.5, 2.0, -3.0, 800.0, -800.0, 1e300]


def test_the_examples_in_the_docstrings() -> None:
    assert doctest.testmod(arrays) == (0, 4)


# ---- views ---------------------------------------------------------------------------------------


def test_another_view_is_another_rule_over_the_same_cells() -> None:
    x = B.asarray(GRID, dtype=DType.float64)
    turned = B.transpose(x, axes=(1, 0))
    corner = B.slice(turned, starts=(1, 1), stops=(4, 3), steps=(2, 1))
    assert turned.cells is corner.cells is x.cells
    assert (turned.strides, corner.strides, corner.offset) == ((1, 4), (2, 4), 5)
    assert corner.numbers() == GRID.T[1:4:2, 1:3].reshape(-1).tolist()


def test_a_number_is_repeated_without_being_copied() -> None:
    x = B.broadcast_to(B.full(shape=(), value=7, dtype=DType.int8), shape=(2, 3))
    assert (len(x.cells), x.strides, x.numbers()) == (1, (0, 0), [7] * 6)


def test_write_is_in_place_and_no_other_cell_is_touched() -> None:
    x = B.asarray(GRID, dtype=DType.float64)
    out = B.write(x, B.full(shape=(3, 1), value=-1, dtype=DType.float64), 2, axis=1)
    assert out.cells is x.cells
    assert out.cells.tolist() == [0, 1, -1, 3, 4, 5, -1, 7, 8, 9, -1, 11]


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (scalars.exp, np.exp),
        (scalars.log, np.log),
        (scalars.sqrt, np.sqrt),
        (tanh, np.tanh),
        (scalars.divide, np.true_divide),
        (scalars.power, np.power),
        (scalars.maximum, np.maximum),
    ],
)
def test_a_function_of_numbers_is_that_of_ieee_754(
    ours: Callable[..., float], numpys: np.ufunc
) -> None:
    cases = list(product(ODD, repeat=numpys.nin))
    expected = numpys(*np.array(cases).T)
    np.testing.assert_allclose([ours(*numbers) for numbers in cases], expected, rtol=1e-14)


@pytest.mark.parametrize("numbers", [[1.0, 3.0, 3.0], [2.0, nan, 5.0], [-inf, -inf], [0, 7]])
def test_where_the_largest_stands(numbers: list[Any]) -> None:
    assert scalars.place_of_largest(numbers) == np.argmax(numbers)


def test_what_is_no_integer_becomes_one_without_an_error() -> None:
    assert list(map(scalars.whole, [nan, inf, -2.9, 2.9])) == [0, 0, -2, 2]


# ---- the models ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "run gpt2-tiny ROMEO: -n 8 --seed 1",
        "train microgpt --steps 2 --num-samples 2",
    ],
)
def test_a_model_prints_what_it_prints_on_numpy(command: str, tmp_path: Path) -> None:
    said = {}
    for name in ("numpy", "loops"):
        done = subprocess.run(
            [sys.executable, "-m", "tfx", *command.split(), "--backend", name],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"TFX_OFFLINE": "1", "TFX_DATA_DIR": str(tmp_path)},
        )
        said[name] = done.stdout
    assert said["loops"] == said["numpy"]
    assert len(said["loops"].splitlines()) >= 2
