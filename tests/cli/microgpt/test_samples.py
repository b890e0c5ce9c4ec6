"""What is done with a trained microGPT: samples, evaluation, other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from microgpt_cli import (
    Invoke,
)

from tfx.core.backend import Backend
from tfx.core.checkpoint import find_checkpoint


@pytest.mark.parametrize("backend", ["numpy", "torch", "cupy"], indirect=True)
def test_the_same_names_on_every_backend(
    invoke: Invoke, trained: tuple[Path, list[str]], backend: Backend
) -> None:
    run, names = trained
    result = invoke("run", "microgpt", "--weights", run, "--backend", backend.name)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == names
    seven = ("run", "microgpt", "--weights", run, "--seed", 7)
    there, again = invoke(*seven, "-b", backend.name), invoke(*seven, "-b", "numpy")
    assert there.stdout == again.stdout
    assert there.stdout.splitlines() != names


def test_run_options(invoke: Invoke, trained: tuple[Path, list[str]]) -> None:
    def names(*args: object) -> list[str]:
        result = invoke("run", "microgpt", "-b", "numpy", "--weights", trained[0], *args)
        assert result.exit_code == 0, result.stderr
        return [line.split(": ")[1] for line in result.stdout.splitlines()]

    assert len(names("--num-samples", 3)) == 3
    assert names("--seed", 1) == names("--seed", 1) != names("--seed", 2)
    assert all(name.startswith("ka") for name in names("--prompt", "ka"))
    assert names("--prompt", "ka", "--seed", 1) == names("ka", "--seed", 1)
    assert {len(name) for name in names("-n", 2, "--temperature", 50, "--seed", 1)} <= {0, 1, 2}
    assert len(set(names("--temperature", 0))) == 1
    assert names("--dtype", "float32", "--seed", 3) == names("--seed", 3)
    longest = "abcdefghijklmno"
    assert set(map(len, names("-p", longest))) <= {15, 16}
    said = json.loads(
        invoke(
            *("run", "microgpt", "-b", "numpy", "--weights", trained[0]),
            *("--json", "--seed", 5, "--temperature", 0.7, "--num-samples", 2),
        ).stdout
    )
    assert (said["seed"], said["temperature"], said["prompt"]) == (5, 0.7, "")
    assert [set(s) for s in said["samples"]] == [{"text"}] * 2


def test_eval(invoke: Invoke, trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = trained[0]
    common = ("eval", "microgpt", "-b", "numpy", "--weights", run)
    said = json.loads(invoke(*common, "--docs", "30:60", "--json").stdout)
    assert said["docs"] == [30, 60]
    assert said["weights"] == f"{run}/checkpoint-30"
    assert invoke(*common, "--docs", "30:60").stdout == f"docs 30:60 | loss {said['loss']:.4f}\n"
    halves = [
        json.loads(invoke(*common, "--docs", docs, "--json").stdout)["loss"]
        for docs in ("30:40", "40:60")
    ]
    assert said["loss"] == pytest.approx((10 * halves[0] + 20 * halves[1]) / 30, rel=1e-12)
    half = json.loads(invoke(*common, "--docs", "30:60", "--json", "--dtype", "float16").stdout)
    assert half["dtype"] == "float16"
    assert half["loss"] == pytest.approx(said["loss"], abs=5e-3)
    (tmp_path / "one.txt").write_text("maria\n")
    result = invoke(*common, "--data", tmp_path / "one.txt")
    assert result.stdout.startswith("docs 0:1 | loss ")


def test_the_checkpoint_opens_elsewhere(trained: tuple[Path, list[str]]) -> None:
    numpy_format = pytest.importorskip("safetensors.numpy")
    tensors = numpy_format.load_file(find_checkpoint(trained[0]) / "model.safetensors")
    shapes = {"wte": (27, 16), "wpe": (16, 16), "lm_head": (27, 16)}
    shapes |= {f"layer0.attn_w{name}": (16, 16) for name in "qkvo"}
    shapes |= {"layer0.mlp_fc1": (64, 16), "layer0.mlp_fc2": (16, 64)}
    assert {name: array.shape for name, array in tensors.items()} == shapes
    assert {str(array.dtype) for array in tensors.values()} == {"float64"}
    moments = numpy_format.load_file(find_checkpoint(trained[0]) / "optimizer.safetensors")
    assert moments.keys() == {f"{which}.{name}" for which in "mv" for name in shapes}
