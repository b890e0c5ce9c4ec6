"""What is JAX's own about this backend; tfx's tests of every backend say the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tfx_jax.backend import JaxBackend
from tfx_jax.primitives import matmul

import tfx
from tfx.core.backend import Backend
from tfx.core.errors import BackendError, ShapeError


@pytest.fixture(scope="module")
def backend() -> Backend:
    return tfx.backend("jax")


def test_the_host_finds_it_and_does_not_import_jax() -> None:
    code = (
        "import sys; from tfx.core.plugins import PluginHost; host = PluginHost(); "
        "print('jax' in host.backends(), host.probe('jax').ready, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_another_device_is_refused() -> None:
    with pytest.raises(BackendError, match="no device 'tpu:0'"):
        JaxBackend("tpu:0")


# ---- 64 bits, and the user's configuration -------------------------------------------------------


def test_float64_is_float64_from_end_to_end(backend: Backend) -> None:
    """2**-40 is lost wherever one value on the way is a float32."""
    x = tfx.tensor([1.0, 2**-40], backend, tfx.float64)
    w = tfx.tensor([[1.0], [1.0]], backend, tfx.float64)

    def fn(x: tfx.Tensor) -> tfx.Tensor:
        return ((x @ w) * 1.0 + 0.0).sum() ** 1.0

    for autograd in ("native", "core"):
        value, slope = tfx.value_and_grad(fn, autograd=autograd)(x)
        assert value.item() == 1 + 2**-40
        assert slope.dtype is tfx.float64
    big = tfx.tensor([2**40], backend, tfx.int64)
    assert (big + 1).tolist() == [2**40 + 1]


def test_jax_itself_stays_as_it_was_configured(backend: Backend) -> None:
    before = dict(jax.config.values)
    seen = []

    def fn(x: tfx.Tensor) -> tfx.Tensor:
        with ThreadPoolExecutor(1) as other:  # while 64 bits are on, on this thread
            seen.append(other.submit(lambda: jnp.ones(1).dtype).result())
        return (x * x).sum()

    tfx.value_and_grad(fn)(tfx.tensor([1.0], backend, tfx.float64))
    assert dict(jax.config.values) == before
    assert seen == [jnp.float32] and jnp.ones(1).dtype == jnp.float32


def test_arrays_stay_off_the_default_device() -> None:
    code = """if True:
        import jax, tfx
        jax.config.update("jax_default_device", jax.devices("cpu")[1])
        B = tfx.backend("jax")
        x = tfx.tensor([1.0], B) + tfx.full((1,), 1.0, B)
        slope = tfx.grad(lambda x: (tfx.full((1,), 2.0, B) * x).sum())(x)
        arrays = x.data, slope.data, tfx.arange(2, B).data
        print(all(map(B.is_array, arrays)), jax.numpy.ones(1).device.id)
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    )
    assert done.stdout.split() == ["True", "1"]


def test_products_of_float32_ask_for_all_their_digits() -> None:
    """On the CPU they have them in any case; elsewhere JAX's default would be fewer."""
    square = jax.ShapeDtypeStruct((2, 2), jnp.float32)
    with jax.default_matmul_precision("bfloat16"):
        assert "Precision.HIGHEST" in str(jax.make_jaxpr(matmul)(square, square))


# ---- arrays that nobody can change ---------------------------------------------------------------


def test_write_takes_the_buffer_over(backend: Backend) -> None:
    buffer = tfx.full((4, 2), 0.0, backend)
    place = buffer.data.unsafe_buffer_pointer()
    written = buffer.write(tfx.full((1, 2), 1.0, backend), 2)
    assert written.data.unsafe_buffer_pointer() == place  # nothing was copied
    assert written.tolist() == [[0, 0], [0, 0], [1, 1], [0, 0]]
    with pytest.raises(RuntimeError, match="deleted"):
        buffer.tolist()


def test_write_leaves_the_buffer_where_a_gradient_is_taken(backend: Backend) -> None:
    buffer = tfx.full((3,), 1.0, backend)

    def fn(slab: tfx.Tensor) -> tfx.Tensor:
        once = buffer.write(slab, 1)
        return (once * once.write(slab * 3.0, 0)).sum()

    value, slope = tfx.value_and_grad(fn)(tfx.tensor([2.0], backend))
    assert (value.item(), slope.tolist()) == (1 * 6 + 2 * 2 + 1, [3 + 2 * 2])
    assert buffer.tolist() == [1, 1, 1]


def test_host_arrays_are_copied_in_and_out(backend: Backend) -> None:
    given = np.zeros(1 << 16)  # so large that JAX would rather share it
    x = tfx.tensor(given, backend)
    given[:] = 1
    x.numpy()[:] = 1
    assert not x.numpy().any()


# ---- autograd ------------------------------------------------------------------------------------


def test_values_can_be_read_while_jax_differentiates(backend: Backend) -> None:
    def fn(x: tfx.Tensor) -> tfx.Tensor:
        return (x * x).sum() * x.max().item()

    value, slope = tfx.value_and_grad(fn, autograd="native")(tfx.tensor([1.0, 3.0], backend))
    assert (value.item(), slope.tolist()) == (30, [6, 18])


def test_ties_share_and_relu_has_no_slope_at_zero(backend: Backend) -> None:
    def fn(x: tfx.Tensor) -> tfx.Tensor:
        return x.max() + tfx.maximum(x, 0.0).sum() * 10.0 + tfx.relu(x).sum() * 100.0 + (x**0).sum()

    x = tfx.tensor([0.0, 3.0, -1.0, 3.0], backend)
    for autograd in ("native", "core"):
        slope = tfx.grad(fn, autograd=autograd)(x)
        assert slope.tolist() == [5, 110.5, 0, 110.5]


def test_jax_can_trace_what_is_written_for_tfx(backend: Backend) -> None:
    """A whole function as one XLA program, and JAX's own transformations over it."""

    def norm(x: jax.Array) -> jax.Array:
        return (tfx.Tensor(x, backend) ** 2).sum().sqrt().data

    rows = jnp.array([[3.0, 4.0], [6.0, 8.0]])
    assert jax.jit(jax.vmap(norm))(rows).tolist() == [5, 10]
    np.testing.assert_allclose(jax.grad(norm)(rows[0]), [0.6, 0.8], rtol=1e-6)


# ---- errors, words, threads, and a model ---------------------------------------------------------


def test_shapes_that_do_not_fit_are_one_line(backend: Backend) -> None:
    x, y = (tfx.full((n, 2), 0.0, backend) for n in (2, 3))
    for call in (lambda: x + y, lambda: y @ y, lambda: tfx.where(x < 1, y, 0.0)):
        with pytest.raises(ShapeError, match=r"the shapes do not fit together$"):
            call()


def test_random_words_are_those_random123_publishes(backend: Backend) -> None:
    counter = backend.asarray(np.array(0), dtype=tfx.DType.int64)
    words = backend.random_bits(counter, key=(0, 0), shape=(2,), bits=32)
    assert backend.to_numpy(words).view(np.uint32).tolist() == [0x6B200159, 0x99BA4EFE]


def test_two_instances_on_two_threads(backend: Backend) -> None:
    def descend(own: Backend) -> list[float]:
        x = tfx.tensor([1.0, 2**-40], own, tfx.float64)
        for _ in range(20):
            x = x - tfx.grad(lambda x: (x * x).sum())(x) * 0.25
        return x.tolist()

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(descend, (backend, JaxBackend(None))))
    assert found[0] == found[1] == [2.0**-20, 2.0**-60]


def test_gpt2_writes_what_it_writes_on_numpy() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-m", "tfx", *f"run gpt2-tiny ROMEO: -n 9 --seed 1 -b {name}".split()],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in ("jax", "numpy")
    ]
    assert said[0] == said[1] != ""


def test_microgpt_learns_as_on_numpy(tmp_path: Path) -> None:
    losses = {}
    for name in ("jax", "numpy"):
        out = tmp_path / name
        words = f"train microgpt --backend {name} --steps 3 --json --out".split()
        subprocess.run(
            [sys.executable, "-m", "tfx", *words, str(out)],
            check=True,
            capture_output=True,
            env=os.environ | {"TFX_OFFLINE": "1", "TFX_DATA_DIR": str(tmp_path / "data")},
        )
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses[name] = [json.loads(line)["loss"] for line in lines]
    assert len(losses["jax"]) == 3
    np.testing.assert_allclose(losses["jax"], losses["numpy"], rtol=1e-12)
