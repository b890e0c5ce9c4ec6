"""What training prints, and that its settings do what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from microgpt_cli import (
    Invoke,
    finish,
    metrics,
    weights,
)

from tfx.core.checkpoint import find_checkpoint
from tfx.core.schedules import linear
from tfx.models.microgpt.data import BUNDLED

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "microgpt_losses.json").read_text())

# ---- what it prints ------------------------------------------------------------------------


def test_it_prints_what_the_original_prints(shared_data: Path, tmp_path: Path) -> None:
    names = shared_data / "names.txt"
    if not names.is_file():
        pytest.skip(f"no {names}: the reference's names")
    out, err = finish(
        "train", "microgpt", "--backend", "numpy", "--data", names, "--out", "run", cwd=tmp_path
    )
    samples = [f"sample {i:2d}: {name}" for i, name in enumerate(RECORDED["samples"], 1)]
    assert out.split("\n") == [
        "num docs: 32033",
        "vocab size: 27",
        "num params: 4192",
        "step 1000 / 1000 | loss 2.6497",
        "--- inference (new, hallucinated names) ---",
        *samples,
        "",
    ]
    assert err.startswith("step    1 / 1000 | loss 3.3660\n")
    assert "\x1b" not in out + err


def test_the_lines_of_a_short_run(train: Invoke) -> None:
    result = train("--steps", 5, "--num-samples", 2, "--out", "run")
    *head, one, two = result.stdout.splitlines()
    assert head == [
        "num docs: 5163",
        "vocab size: 27",
        "num params: 4192",
        f"step    5 /    5 | loss {metrics(Path('run'))[-1]['loss']:.4f}",
        "--- inference (new, hallucinated names) ---",
    ]
    assert one.startswith("sample  1: ")
    assert two.startswith("sample  2: ")


def test_no_samples_and_no_heading(train: Invoke) -> None:
    result = train("--steps", 1, "--num-samples", 0, "--out", "run")
    assert len(result.stdout.splitlines()) == 4


def test_no_steps(train: Invoke) -> None:
    result = train("--steps", 0, "--num-samples", 1, "--out", "run")
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        *("num docs", "vocab size", "num params"),
        *("--- inference (new, hallucinated names) ---", "sample  1"),
    ]
    assert find_checkpoint("run").name == "checkpoint-0"
    assert metrics(Path("run")) == []
    said = json.loads(train("--steps", 0, "--json", "--out", "json").stdout)
    assert said["final_loss"] is None


def test_json(train: Invoke) -> None:
    said = json.loads(train("--steps", 3, "--num-samples", 2, "--json", "--out", "run").stdout)
    assert said.keys() >= {"backend", "dtype", "seed", "num_docs", "vocab_size", "num_params"}
    assert (said["backend"], said["dtype"], said["seed"]) == ("numpy", "float64", 42)
    assert (said["num_docs"], said["steps"], said["out"]) == (5163, 3, "run")
    assert said["final_loss"] == metrics(Path("run"))[-1]["loss"]
    assert len(said["samples"]) == 2
    assert said["timing"].keys() == {"load_s", "train_s", "sample_s"}
    assert all(seconds > 0 for seconds in said["timing"].values())


def test_the_folder_that_nobody_named_is_told(train: Invoke, invoke: Invoke) -> None:
    result = train("--steps", 1, "--num-samples", 3)
    (folder,) = Path("runs").iterdir()
    assert f"run folder: {folder}\n" in result.stderr
    again = invoke("run", "microgpt", "-b", "numpy", "--num-samples", 3)
    assert f"weights: {folder}/checkpoint-1\n" in again.stderr
    assert again.stdout.splitlines() == result.stdout.splitlines()[-3:]


def test_without_data_and_connection_it_says_what_it_trains_on(invoke: Invoke) -> None:
    result = invoke("train", "microgpt", "-b", "numpy", "--steps", 1, "--out", "run")
    assert "training data: the bundled US census names" in result.stderr
    assert result.stdout.startswith("num docs: 5163\n")


# ---- settings do what they say -------------------------------------------------------------


def losses_of(train: Invoke, *args: object) -> list[float]:
    train("--num-samples", 0, "--out", "run", *args)
    found = [line["loss"] for line in metrics(Path("run"))]
    shutil.rmtree("run")
    return found


def test_the_seed_is_used(train: Invoke) -> None:
    first = losses_of(train, "--steps", 3)
    assert losses_of(train, "--steps", 3) == losses_of(train, "--steps", 3, "--seed", 42) == first
    assert losses_of(train, "--steps", 3, "--seed", 43)[0] != first[0]


def test_batch_size_and_grad_accum_are_the_mean(train: Invoke) -> None:
    whole = losses_of(train, "--steps", 6, "--batch-size", 4)
    np.testing.assert_allclose(losses_of(train, "--steps", 6, "--grad-accum", 4), whole, rtol=1e-12)
    both = losses_of(train, "--steps", 6, "--batch-size", 2, "--grad-accum", 2)
    np.testing.assert_allclose(both, whole, rtol=1e-12)
    # With a rate of next to nothing, all steps are taken by the same model.
    single = losses_of(train, "--steps", 12, "--lr", 1e-300)
    whole = losses_of(train, "--steps", 3, "--lr", 1e-300, "--batch-size", 4)
    np.testing.assert_allclose(whole, np.reshape(single, (3, 4)).mean(1), rtol=1e-12)


def test_documents_come_round_again(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("  bo\r\n\naa \n")
    result = invoke(
        *("train", "microgpt", "-b", "numpy", "--data", "two.txt", "--out", "run"),
        *("--steps", 5, "--lr", 1e-300),
    )
    assert result.stdout.startswith("num docs: 2\nvocab size: 4\n")
    one, two, *again = [line["loss"] for line in metrics(Path("run"))]
    assert one != two
    assert again == [one, two, one]


def test_grad_clip_caps_the_gradient(train: Invoke) -> None:
    train("--steps", 1, "--num-samples", 0, "--out", "free")
    train("--steps", 1, "--num-samples", 0, "--out", "capped", "--grad-clip", 0.25)
    moments = weights(Path("capped"), "optimizer")
    first = np.concatenate([m.ravel() for name, m in moments.items() if name.startswith("m.")])
    assert np.linalg.norm(first / (1 - 0.85)) == pytest.approx(0.25, rel=1e-12)
    (free,), (capped,) = metrics(Path("free")), metrics(Path("capped"))
    assert free["grad_norm"] == capped["grad_norm"] > 0.25
    train("--steps", 1, "--num-samples", 0, "--out", "uncapped", "--grad-clip", 0)
    np.testing.assert_equal(weights(Path("uncapped")), weights(Path("free")))


def test_weight_decay_is_torchs(train: Invoke) -> None:
    torch = pytest.importorskip("torch")
    from tfx.backends.numpy.backend import NumpyBackend
    from tfx.core.autograd import grad
    from tfx.models.microgpt.model import loss
    from tfx.models.microgpt.options import Options
    from tfx.models.microgpt.run import Run

    steps = 10
    train("--steps", steps, "--num-samples", 0, "--out", "run", "--weight-decay", 0.2)
    run = Run.begin(Options(steps=steps), BUNDLED, NumpyBackend(), pytest.fail)
    theirs = {name: torch.tensor(x.array) for name, x in run.model.params.to_host().items()}
    optimizer = torch.optim.AdamW(theirs.values(), betas=(0.85, 0.99), weight_decay=0.2)
    for step in range(steps):
        ours = type(run.model.params).from_host(
            {name: x.numpy() for name, x in theirs.items()},
            run.model.params.flat.backend,
            run.model.params.flat.dtype,
        )
        slopes = grad(loss)(ours, run.model.config, *run.model.windows(run.documents[step]))
        for name, x in theirs.items():
            x.grad = torch.tensor(slopes[name].numpy())
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / steps)
        optimizer.step()
    for name, array in weights(Path("run")).items():
        np.testing.assert_allclose(array, theirs[name].numpy(), rtol=0, atol=1e-12, err_msg=name)


def test_the_learning_rate_goes_as_asked(train: Invoke) -> None:
    train("--steps", 8, "--out", "run", "--lr", 0.02, "--min-lr", 0.004, "--warmup-steps", 3)
    expected = [0.02 / 3, 0.04 / 3, 0.02, 0.02, 0.0168, 0.0136, 0.0104, 0.0072]
    assert [line["lr"] for line in metrics(Path("run"))] == pytest.approx(expected, rel=1e-12)


def test_metrics_tell_every_step(train: Invoke) -> None:
    train("--steps", 40, "--num-samples", 0, "--out", "run")
    found = metrics(Path("run"))
    assert [line["step"] for line in found] == list(range(1, 41))
    assert [line["lr"] for line in found] == linear(40, 0.01).tolist()
    assert all(line.keys() == {"step", "loss", "grad_norm", "lr", "seconds"} for line in found)
    assert np.mean([line["loss"] for line in found[-10:]]) < found[0]["loss"] - 0.3


def test_sizes_by_set(train: Invoke) -> None:
    sizes = {"n_layer": 2, "n_embd": 12, "n_head": 3, "block_size": 5}
    pairs = [f"--set={name}={value}" for name, value in sizes.items()]
    said = json.loads(train("--steps", 2, "--json", "--out", "run", *pairs).stdout)
    assert said["num_params"] == (27 + 5 + 27) * 12 + 2 * 12 * 12 * 12
    assert all(len(name) <= 5 for name in said["samples"])
    config = json.loads((find_checkpoint("run") / "config.json").read_text())
    assert config["model"] == "microgpt"
    assert config.items() >= sizes.items()
    assert config["characters"] == list("abcdefghijklmnopqrstuvwxyz")


def test_other_settings_by_set(train: Invoke) -> None:
    usual = losses_of(train, "--steps", 3)
    for pair in ("init_std=0.02", "beta1=0.5", "beta2=0.5", "eps=0.1"):
        assert losses_of(train, "--steps", 3, "--set", pair) != usual, pair
    train("--steps", 1, "--out", "cold", "--set", "temperature=0", "--num-samples", 4)
    assert json.loads((find_checkpoint("cold") / "state.json").read_text())["options"]["seed"] == 42


def test_plot(train: Invoke) -> None:
    pytest.importorskip("matplotlib")
    result = train("--steps", 60, "--out", "run", "--plot")
    assert Path("run/loss.png").read_bytes().startswith(b"\x89PNG")
    assert "loss curve: run/loss.png" in result.stderr
    train("--steps", 2, "--out", "other", "--plot", "curve.svg")
    assert "<svg" in Path("curve.svg").read_text()
