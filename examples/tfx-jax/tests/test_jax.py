"""What is JAX's own about this backend; test_conformance.py says the rest."""

from __future__ import annotations

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
from tfx.core.errors import BackendError


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


# ---- the user's configuration --------------------------------------------------------------------


def test_jax_itself_stays_as_it_was_configured() -> None:
    """From before tfx is imported until a model has learned and written."""
    code = """if True:
        import jax
        before = dict(jax.config.values)

        import tfx
        from tfx.testing.network import Network
        backend = tfx.backend("jax")
        network = Network(backend)
        network.train_step()
        network.decode_step(network.first_ids())
        for dtype in backend.dtypes:
            x = tfx.full((2,), 1, backend).cast(dtype)
            tfx.concat([x, x], axis=0).tolist()

        after = dict(jax.config.values)
        print(len(before) > 50, [k for k in before | after if before.get(k) != after.get(k)])
        print(jax.numpy.ones(1).dtype, jax.numpy.arange(1).dtype)
    """
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True []", "float32 int32"]


def test_other_threads_have_no_64_bits_while_a_derivative_is_taken(backend: Backend) -> None:
    before = dict(jax.config.values)
    seen = []

    def fn(x: tfx.Tensor) -> tfx.Tensor:
        with ThreadPoolExecutor(1) as other:
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


# ---- what JAX is asked for -----------------------------------------------------------------------


def test_products_of_float32_ask_for_all_their_digits() -> None:
    """On the CPU they have them in any case; elsewhere JAX's default would be fewer."""
    square = jax.ShapeDtypeStruct((2, 2), jnp.float32)
    with jax.default_matmul_precision("bfloat16"):
        assert "Precision.HIGHEST" in str(jax.make_jaxpr(matmul)(square, square))


def test_write_takes_the_buffer_over(backend: Backend) -> None:
    buffer = tfx.full((4, 2), 0.0, backend)
    place = buffer.data.unsafe_buffer_pointer()
    written = buffer.write(tfx.full((1, 2), 1.0, backend), 2)
    assert written.data.unsafe_buffer_pointer() == place  # nothing was copied
    assert written.tolist() == [[0, 0], [0, 0], [1, 1], [0, 0]]
    with pytest.raises(RuntimeError, match="deleted"):
        buffer.tolist()


# ---- what JAX can do with it ---------------------------------------------------------------------


def test_values_can_be_read_while_jax_differentiates(backend: Backend) -> None:
    def fn(x: tfx.Tensor) -> tfx.Tensor:
        return (x * x).sum() * x.max().item()

    value, slope = tfx.value_and_grad(fn, autograd="native")(tfx.tensor([1.0, 3.0], backend))
    assert (value.item(), slope.tolist()) == (30, [6, 18])


def test_jax_can_trace_what_is_written_for_tfx(backend: Backend) -> None:
    """A whole function as one XLA program, and JAX's own transformations over it."""

    def norm(x: jax.Array) -> jax.Array:
        return (tfx.Tensor(x, backend) ** 2).sum().sqrt().data

    rows = jnp.array([[3.0, 4.0], [6.0, 8.0]])
    assert jax.jit(jax.vmap(norm))(rows).tolist() == [5, 10]
    np.testing.assert_allclose(jax.grad(norm)(rows[0]), [0.6, 0.8], rtol=1e-6)


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
    for name in ("numpy", "jax"):
        done = subprocess.run(
            [sys.executable, "-m", "tfx", *command.split(), "--backend", name],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"TFX_OFFLINE": "1", "TFX_DATA_DIR": str(tmp_path)},
        )
        said[name] = done.stdout
    assert said["jax"] == said["numpy"]
    assert len(said["jax"].splitlines()) >= 2
