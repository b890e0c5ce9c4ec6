"""Named parameters over one buffer: what goes in comes out, whatever the shapes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import DTypeError, GradientError, ShapeError
from tfx.core.parameters import Parameters
from tfx.core.weights import StoredTensor
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
        assert params[name].dtype == back[name].dtype == back[name].array.dtype == "float64"
        np.testing.assert_array_equal(params[name].numpy(), array)
        np.testing.assert_array_equal(back[name].array, array)


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
        np.testing.assert_array_equal(back[name].array, array)


def test_the_dtype_is_the_one_asked_for(backend: Backend) -> None:
    params = params_on(backend, DType.float32)
    assert {x.dtype for x in (params.flat, *params.values())} == {DType.float32}
    for name, array in arrays("float32").items():
        np.testing.assert_array_equal(params.to_host()[name].array, array)


def test_bfloat16_comes_back_as_words(backend: Backend) -> None:
    host = {"x": np.array([[1.0, -2.0]]), "y": np.array(0.5)}
    back = Parameters.from_host(host, backend, DType.bfloat16).to_host()
    assert back["x"].dtype == back["y"].dtype == DType.bfloat16
    assert back["x"].array.dtype == back["y"].array.dtype == "uint16"
    assert back["x"].array.tolist() == [[0x3F80, 0xC000]]
    assert back["y"].array.item() == 0x3F00


WORDS = StoredTensor(DType.bfloat16, np.array([0x3FC0, 0xC000], "uint16"))  # 1.5 and -2


@pytest.mark.parametrize("dtype", [DType.float32, DType.float64])
def test_stored_tensors_are_taken_for_what_they_mean(backend: Backend, dtype: DType) -> None:
    half = StoredTensor(DType.float16, np.array([[0.25]], "float16"))
    host = {"bfloat16": WORDS, "float16": half, "float64": np.array([1e-300])}
    params = Parameters.from_host(host, backend, dtype)
    assert params.flat.dtype is dtype
    assert params["bfloat16"].tolist() == [1.5, -2.0]
    assert params["float16"].tolist() == [[0.25]]
    assert params["float64"].tolist() == [np.array(1e-300, dtype).item()]


def test_words_stay_the_same_words(backend: Backend) -> None:
    back = Parameters.from_host({"x": WORDS}, backend, DType.bfloat16).to_host()
    assert back["x"].array.tolist() == [0x3FC0, 0xC000]
    again = Parameters.from_host(back, backend, DType.bfloat16).to_host()
    assert again["x"].array.tolist() == [0x3FC0, 0xC000]


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16])
@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.array([0x3FC0], "uint16"), "is of uint16, expected floats; wrap .* in StoredTensor"),
        (np.array([1, 2]), "is of int64, expected floats"),
        (np.array([True]), "is of bool, expected floats"),
        (StoredTensor(DType.int64, np.array([1])), "is of int64, expected floats"),
        (np.array([1j]), "is of complex128, expected floats"),
    ],
)
def test_what_is_no_float_is_refused(
    backend: Backend, array: HostArray | StoredTensor, fault: str, dtype: DType
) -> None:
    with pytest.raises(DTypeError, match=f"parameter 'b' {fault}"):
        Parameters.from_host({"a": np.zeros(2), "b": array}, backend, dtype)


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
        np.testing.assert_array_equal(moments[name].array, array + 1)


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
    assert flat["number"].array == 1
    assert not flat["matrix"].array.any()  # not used, so its gradient is zero


def test_a_transfer_for_each_tensor_there_and_one_for_all_back() -> None:
    strict = StrictBackend()
    params = params_on(strict)
    assert strict.transfers == Counter(asarray=len(SHAPES))
    params.to_host()
    assert strict.transfers == Counter(asarray=len(SHAPES), to_numpy=1)


def test_the_host_never_holds_more_than_one_copy() -> None:
    class Seen(StrictBackend):
        largest = 0

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name != "asarray":
                return found

            def asarray(value: HostArray, **how: Any) -> Any:
                self.largest = max(self.largest, value.size)
                return found(value, **how)

            return asarray

    backend = Seen()
    params_on(backend)
    assert backend.largest == 6  # of 18 numbers


def test_what_is_recorded_is_refused(backend: Backend) -> None:
    params = params_on(backend)
    recorded = params.flat.detach().requires_grad_() * 2
    for use in (lambda: Parameters(recorded, SHAPES), lambda: params.replaced(recorded)):
        with pytest.raises(GradientError, match=r"recorded buffer.*would be lost; detach"):
            use()
    assert Parameters(recorded.detach(), SHAPES)["row"].shape == (5,)
    named = dict(params) | {"cube": params["cube"].detach().requires_grad_()}
    with pytest.raises(GradientError, match=r"recorded tensor cannot be flattened.*detach"):
        params.flatten(named)


def test_it_is_a_mapping(backend: Backend) -> None:
    params = params_on(backend)
    assert len(params) == 5
    assert "row" in params
    assert "column" not in params
    with pytest.raises(KeyError):
        params["column"]
