"""Named parameters over one buffer: what goes in comes out, whatever the shapes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.dtypes import DType
from tfx.core.errors import ShapeError
from tfx.core.parameters import Parameters
from tfx.core.tensor import tensor
from tfx.testing import StrictBackend

SHAPES = {"matrix": (3, 2), "number": (), "nothing": (0, 4), "cube": (2, 1, 3), "row": (5,)}


def arrays(dtype: str = "float64") -> dict[str, HostArray]:
    rng = np.random.default_rng(0)
    return {name: np.asarray(rng.standard_normal(s), dtype) for name, s in SHAPES.items()}


def params_on(backend: Backend, dtype: DType = DType.float64) -> Parameters:
    return Parameters.from_host(arrays(), backend, dtype)


def test_odd_shapes_come_back_as_they_went(backend: Backend) -> None:
    host = arrays()
    params = params_on(backend)
    back = params.to_host()
    assert list(back) == list(params) == list(SHAPES)
    for name, array in host.items():
        assert params[name].shape == back[name].shape == array.shape
        assert params[name].dtype == back[name].dtype == "float64"
        np.testing.assert_array_equal(params[name].numpy(), array)
        np.testing.assert_array_equal(back[name], array)


def test_the_buffer_holds_them_in_the_order_of_the_names(backend: Backend) -> None:
    params = params_on(backend)
    expected = np.concatenate([array.reshape(-1) for array in arrays().values()])
    assert params.flat.shape == (18,)
    np.testing.assert_array_equal(params.flat.numpy(), expected)


def test_arrays_that_are_not_contiguous(backend: Backend) -> None:
    base = np.arange(24.0).reshape(4, 6)
    host = {"columns": base.T, "every second": base[::2, ::-2]}
    back = Parameters.from_host(host, backend, DType.float64).to_host()
    for name, array in host.items():
        np.testing.assert_array_equal(back[name], array)


def test_the_dtype_is_the_one_asked_for(backend: Backend) -> None:
    params = params_on(backend, DType.float32)
    assert {x.dtype for x in (params.flat, *params.values())} == {DType.float32}
    for name, array in arrays("float32").items():
        np.testing.assert_array_equal(params.to_host()[name], array)


def test_bfloat16_comes_back_as_words(backend: Backend) -> None:
    host = {"x": np.array([[1.0, -2.0]]), "y": np.array(0.5)}
    back = Parameters.from_host(host, backend, DType.bfloat16).to_host()
    assert back["x"].dtype == back["y"].dtype == "uint16"
    assert back["x"].tolist() == [[0x3F80, 0xC000]]
    assert back["y"].item() == 0x3F00


def test_another_buffer_under_the_same_names(backend: Backend) -> None:
    params = params_on(backend)
    doubled = params.replaced(params.flat * 2)
    for name, array in arrays().items():
        np.testing.assert_array_equal(doubled[name].numpy(), 2 * array)
        np.testing.assert_array_equal(params[name].numpy(), array)
    assert doubled.shapes == params.shapes


def test_flatten_goes_by_name_not_by_order(backend: Backend) -> None:
    params = params_on(backend)
    named = {name: params[name] * 3 for name in reversed(list(params))}
    flat = params.flatten(named)
    assert flat.dtype == params.flat.dtype
    np.testing.assert_array_equal(flat.numpy(), 3 * params.flat.numpy())


def test_to_host_of_another_buffer(backend: Backend) -> None:
    params = params_on(backend)
    moments = params.to_host(params.flat + 1)
    for name, array in arrays().items():
        np.testing.assert_array_equal(moments[name], array + 1)


@pytest.mark.parametrize("shape", [(17,), (19,), (1, 18), ()])
def test_a_buffer_of_another_size_is_refused(backend: Backend, shape: tuple[int, ...]) -> None:
    params = params_on(backend)
    other = tensor(np.zeros(shape), backend)
    with pytest.raises(ShapeError, match="parameters of 18 numbers cut from"):
        params.replaced(other)
    with pytest.raises(ShapeError, match="parameters of 18 numbers cut from"):
        Parameters(other, SHAPES)


def test_gradients_stand_under_the_same_names(backend: Backend) -> None:
    params = params_on(backend)
    _, grads = value_and_grad(lambda p: (p["cube"] * p["cube"]).sum() + p["number"])(params)
    np.testing.assert_array_equal(grads["cube"].numpy(), 2 * arrays()["cube"])
    flat = params.to_host(params.flatten(grads))
    assert flat["number"] == 1
    assert not flat["matrix"].any()  # not used, so its gradient is zero


def test_one_transfer_each_way() -> None:
    strict = StrictBackend()
    params = params_on(strict)
    assert strict.transfers == Counter(asarray=1)
    params.to_host()
    assert strict.transfers == Counter(asarray=1, to_numpy=1)


def test_it_is_a_mapping(backend: Backend) -> None:
    params = params_on(backend)
    assert len(params) == 5
    assert "row" in params
    assert "column" not in params
    with pytest.raises(KeyError):
        params["column"]
