"""The rotary model: against NumPy, against finite differences, and through training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfx_rotary.language_model import LanguageModel
from tfx_rotary.model import Config, Rotation, initial_weights, logits, loss

import tfx
from tfx.core.backend import Backend, HostArray
from tfx.core.comparison import compare
from tfx.core.dtypes import DType
from tfx.core.errors import DataError, TfxError, UsageError
from tfx.core.parameters import Parameters
from tfx.core.plugins import PluginHost
from tfx.core.recipe import CompareSettings, EvalSettings, RunSettings, TrainSettings
from tfx.core.resolve import open_model

CONFIG = Config(vocab_size=7, n_layer=2, n_head=2, n_embd=8, block_size=6)
IDS = np.array([[0, 3, 3, 6, 1], [5, 2, 0, 4, 4]])
TARGETS = np.array([[3, 3, 6, 1, 2], [2, 0, 4, 4, 1]])
TEXT = "the cat sat on the mat\nthe rat ate the cat\n" * 8
SMALL = {"n_layer": "1", "n_embd": "16", "n_head": "2", "block_size": "12"}


@pytest.fixture(params=["numpy", "torch", "loops"])
def backend(request: pytest.FixtureRequest) -> Backend:
    host = PluginHost()
    if request.param not in host.backends() or not host.probe(request.param).ready:
        pytest.skip(f"there is no {request.param} here")
    return tfx.backend(request.param)


def weights() -> dict[str, HostArray]:
    """Of CONFIG; gains too are some numbers or others."""
    drawn = initial_weights(CONFIG, seed=1)
    rng = np.random.default_rng(2)
    return {name: x + rng.normal(0, 0.1, x.shape) for name, x in drawn.items()}


def model_on(backend: Backend, host: dict[str, HostArray] | None = None) -> LanguageModel:
    params = Parameters.from_host(host or weights(), backend, DType.float64)
    return LanguageModel(CONFIG, "abcdefg", params)


# ---- the model -------------------------------------------------------------------------------


def by_hand(p: dict[str, HostArray], ids: HostArray) -> HostArray:
    """Logits (T, V) of one text (T,), head by head and position by position."""

    def norm(x: HostArray, gain: HostArray) -> HostArray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain

    size = CONFIG.n_embd // CONFIG.n_head
    speeds = 10000.0 ** (-2 * np.arange(size // 2) / size)

    def turned(x: HostArray, position: int) -> HostArray:
        point = (x[: size // 2] + 1j * x[size // 2 :]) * np.exp(1j * position * speeds)
        return np.concatenate([point.real, point.imag])

    x = p["embed"][ids]
    for i in range(CONFIG.n_layer):
        here = {name: p[f"layer{i}.{name}"] for name in ("wq", "wk", "wv", "wo")}
        y = norm(x, p[f"layer{i}.norm1"])
        q, k, v = (y @ here[name].T for name in ("wq", "wk", "wv"))
        seen = np.zeros_like(x)
        for t in range(len(ids)):
            for head in range(CONFIG.n_head):
                at = slice(head * size, (head + 1) * size)
                products = [turned(q[t, at], t) @ turned(k[s, at], s) for s in range(t + 1)]
                share = np.exp(np.array(products) / np.sqrt(size))
                seen[t, at] = share / share.sum() @ v[: t + 1, at]
        x = x + seen @ here["wo"].T
        y = norm(x, p[f"layer{i}.norm2"])
        gate = y @ p[f"layer{i}.w_gate"].T
        gated = gate / (1 + np.exp(-gate)) * (y @ p[f"layer{i}.w_up"].T)
        x = x + gated @ p[f"layer{i}.w_down"].T
    return norm(x, p["norm"]) @ p["head"].T


def test_logits_are_those_by_hand(backend: Backend) -> None:
    model = model_on(backend)
    found = logits(model.params, CONFIG, model.table, tfx.tensor(IDS, backend)).numpy()
    for text, row in zip(IDS, found, strict=True):
        np.testing.assert_allclose(row, by_hand(weights(), text), atol=1e-12)


def test_the_product_of_two_that_are_turned_knows_their_distance_alone(backend: Backend) -> None:
    q, k = np.random.default_rng(0).standard_normal((2, 1, 1, CONFIG.n_embd))
    table = Rotation.table(CONFIG, backend, DType.float64)

    def product(at: int, other: int) -> float:
        a, b = (
            table.at(tfx.tensor([place], backend))(tfx.tensor(x, backend))
            for x, place in ((q, at), (k, other))
        )
        return float((a * b).sum().item())

    assert product(5, 3) == pytest.approx(product(2, 0), abs=1e-12)
    assert product(1, 1) == pytest.approx((q * k).sum(), abs=1e-12)
    assert product(5, 3) != pytest.approx(product(3, 5), abs=1e-3)


@pytest.mark.parametrize("autograd", ["core", "auto"])
def test_gradients_are_those_of_finite_differences(backend: Backend, autograd: Any) -> None:
    rng, host = np.random.default_rng(3), weights()
    along = {name: rng.standard_normal(x.shape) for name, x in host.items()}

    def value_at(step: float) -> float:
        rows = [by_hand({n: x + step * along[n] for n, x in host.items()}, ids) for ids in IDS]
        scores = np.stack(rows)
        chosen = np.take_along_axis(scores, TARGETS[..., None], -1)[..., 0]
        return float((np.log(np.exp(scores).sum(-1)) - chosen).mean())

    model = model_on(backend, host)
    batch = tfx.tensor(IDS, backend), tfx.tensor(TARGETS, backend)
    differentiate = tfx.value_and_grad(loss, autograd=autograd)
    value, grads = differentiate(model.params, CONFIG, model.table, *batch)
    slope = sum(float((grads[name].numpy() * along[name]).sum()) for name in host)
    assert value.item() == pytest.approx(value_at(0.0), abs=1e-12)
    assert slope == pytest.approx((value_at(1e-5) - value_at(-1e-5)) / 2e-5, rel=1e-7)
    assert all(grads[name].numpy().any() for name in host)


@pytest.mark.parametrize("cuts", [[5], [1, 1, 1, 1, 1], [2, 3]])
def test_the_cache_changes_nothing(backend: Backend, cuts: list[int]) -> None:
    model = model_on(backend)
    cache, read = model.start(2, 6), 0
    for count in cuts:
        found = model.logits(tfx.tensor(IDS[:, read : read + count], backend), cache).numpy()
        read += count
        for text, row in zip(IDS, found, strict=True):
            np.testing.assert_allclose(row, by_hand(weights(), text[:read])[-1], atol=1e-12)


def test_padding_changes_nothing(backend: Backend) -> None:
    model = model_on(backend)
    cache = model.start(2, 6)
    cache.pad_left([0, 2])
    found = model.logits(tfx.tensor([[0, 3, 3, 6], [0, 0, 5, 2]], backend), cache).numpy()
    np.testing.assert_allclose(found[0], by_hand(weights(), IDS[0, :4])[-1], atol=1e-12)
    np.testing.assert_allclose(found[1], by_hand(weights(), IDS[1, :2])[-1], atol=1e-12)


# ---- the recipe, as the command line uses it -------------------------------------------------


class Page:
    """A reporter that keeps what was shown."""

    def __init__(self) -> None:
        self.text = ""

    def piece(self, text: str) -> None:
        self.text += text

    def result(self, line: str) -> None:
        self.text += line + "\n"

    def note(self, line: str) -> None: ...

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None: ...

    def progress_done(self, *, is_result: bool = True) -> None: ...


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def train(backend: Backend, out: Path, data: Path | None, **flags: Any) -> list[float]:
    """Train through the plugin host; the losses."""
    if "resume" not in flags:
        flags = {"dtype": "float64", "overrides": SMALL} | flags
    recipe = open_model(PluginHost(), "rotary")
    result = recipe.train(TrainSettings(data=data, out=out, **flags), backend, Page())
    assert result["backend"] == str(backend) and result["out"] == str(out)
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").open()]


def test_it_learns_the_same_on_every_backend(backend: Backend, text: Path, tmp_path: Path) -> None:
    losses = train(backend, tmp_path / "run", text, steps=40, lr=0.01)
    assert losses[0] > 2.5 and losses[-1] < 1.0
    there = train(tfx.backend("numpy"), tmp_path / "there", text, steps=40, lr=0.01)
    np.testing.assert_allclose(losses, there, atol=1e-9)

    recipe, page = open_model(PluginHost(), "rotary"), Page()
    judged = recipe.evaluate(EvalSettings(weights=tmp_path / "run", data=text), backend, page)
    assert judged["loss"] == pytest.approx(losses[-1], abs=0.3)

    how = {"weights": tmp_path / "run", "prompt": "the ", "seed": 1, "max_new_tokens": 30}
    pages = []
    for library in (backend, tfx.backend("numpy")):  # 30 tokens slide past the 12 positions
        page = Page()
        result = recipe.run(RunSettings(**how), library, page)
        assert page.text == "the " + result["samples"][0]["text"] + "\n"
        pages.append(page.text)
    assert pages[0] == pages[1] and len(pages[0]) == 35


def test_two_backends_agree_layer_by_layer(backend: Backend, text: Path, tmp_path: Path) -> None:
    train(tfx.backend("numpy"), tmp_path / "run", text, steps=1)
    recipe: Any = open_model(PluginHost(), "rotary")
    settings = CompareSettings(weights=tmp_path / "run", prompt="the rat")
    found = compare(*(recipe.example(settings, B) for B in (tfx.backend("numpy"), backend)))
    assert found.first_apart is None, found.verdict
    assert {row.name for row in found.rows} >= {"embed", "layer0 attention", "loss"}


# ---- the command line ------------------------------------------------------------------------


def tfx_says(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What `tfx WORDS` prints in a folder."""
    command = [sys.executable, "-m", "tfx", *words]
    environment = {k: v for k, v in os.environ.items() if k != "TFX_BACKEND"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_it_trains_and_writes_the_same_on_every_backend(
    backend: Backend, text: Path, tmp_path: Path
) -> None:
    sizes = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    pages = []
    for name, library in (("there", "numpy"), ("here", str(backend))):
        run = tmp_path / name
        on = ["--backend", library]
        steps = ["--steps", "5", "--batch-size", "2", "--lr", "0.01", "--out", str(run)]
        trained = tfx_says(tmp_path, "train", "rotary", "--data", text.name, *steps, *sizes, *on)
        assert trained.returncode == 0, trained.stderr
        how = ["--seed", "1", "-n", "8", "--weights", str(run)]
        wrote = tfx_says(tmp_path, "run", "rotary", "the ", *how, *on)
        assert wrote.returncode == 0, wrote.stderr
        pages.append(wrote.stdout)
    assert pages[0] == pages[1] and len(pages[0]) == len("the ") + 8 + 1


def test_its_command(backend: Backend, text: Path, tmp_path: Path) -> None:
    train(tfx.backend("numpy"), tmp_path / "run", text, steps=40, lr=0.01)

    def said(*args: str) -> subprocess.CompletedProcess[str]:
        return tfx_says(tmp_path, "rotary-next", *args, "--backend", str(backend))

    done = said("the ca", "--weights", "run", "--top", "2")
    assert (done.returncode, done.stderr) == (0, "") and len(done.stdout.splitlines()) == 2
    assert done.stdout.splitlines()[0].endswith("%  't'")
    wrong = said("Zoo", "--weights", "run")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("tfx: 'Z' is no character that rotary was trained on")


def test_its_command_says_which_backend_was_picked_unasked(text: Path, tmp_path: Path) -> None:
    train(tfx.backend("numpy"), tmp_path / "run", text, steps=1)
    done = tfx_says(tmp_path, "rotary-next", "the ca", "--weights", "run")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 5
    assert done.stderr.startswith("backend: ") and "--backend chooses" in done.stderr


@pytest.mark.parametrize("top", ["0", "-3"])
def test_its_command_refuses_to_show_nothing(top: str, tmp_path: Path) -> None:
    done = tfx_says(tmp_path, "rotary-next", "the ca", "--top", top)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tfx: --top {top} shows nothing; expected at least 1\n"


# ---- the recipe once more --------------------------------------------------------------------


def test_a_resumed_run_goes_on_bit_for_bit(backend: Backend, text: Path, tmp_path: Path) -> None:
    whole = train(backend, tmp_path / "whole", text, steps=6, save_every=4)
    later = tmp_path / "whole" / "checkpoint-4"
    assert train(backend, tmp_path / "later", None, resume=later) == whole


@pytest.mark.parametrize(
    ("error", "flags", "said"),
    [
        (UsageError, {"data": None}, "--data"),
        (UsageError, {"autograd": "native"}, "no autograd of its own"),
        (UsageError, {"grad_clip": 1.0}, "no use for --grad-clip"),
        (UsageError, {"overrides": {"n_embd": "0"}}, "n_embd=0"),
        (UsageError, {"overrides": {"width": "8"}}, "width=8: expected .* n_layer"),
        (UsageError, {"overrides": {"n_head": "5"}}, "multiple of 2 . n_head"),
        (DataError, {"overrides": {"block_size": "999"}}, "block_size of 999"),
        (TfxError, {"dtype": "int32"}, "int32"),
    ],
)
def test_refusals(
    error: type[TfxError], flags: dict[str, Any], said: str, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        train(tfx.backend("numpy"), tmp_path / "run", **{"data": text} | flags)
    assert not (tmp_path / "run").exists()


def test_python_code_can_hold_the_model(backend: Backend, text: Path, tmp_path: Path) -> None:
    train(backend, tmp_path / "run", text, steps=40, lr=0.01)
    model = tfx.load(tmp_path / "run", backend=backend)
    assert model.name == "rotary"
    new = model.generate("the ca", max_new_tokens=5).text
    assert "".join(model.stream("the ca", max_new_tokens=5)) == new and len(new) == 5
    found = tfx.pipeline("perplexity", model)(TEXT[:12])
    ids = model.encode(TEXT[:12])
    logits = model.logits(TEXT[:12])[:-1].astype(np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert found["loss"] == pytest.approx(-logp[range(len(ids) - 1), ids[1:]].mean(), rel=1e-5)


def test_a_prompt_of_other_characters_is_refused(text: Path, tmp_path: Path) -> None:
    backend = tfx.backend("numpy")
    train(backend, tmp_path / "run", text, steps=1)
    settings = RunSettings(weights=tmp_path / "run", prompt="Zoo")
    with pytest.raises(UsageError, match="'Z' is no character"):
        open_model(PluginHost(), "rotary").run(settings, backend, Page())
