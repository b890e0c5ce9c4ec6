"""Training a GPT-2: against plain torch, across backends, interrupted, and judged on its way."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_training import SMALL, TEXT, Place, kept, losses, metrics, tokenizer, weights

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import files
from tfx.core.backend import Backend
from tfx.core.checkpoint import find_checkpoint, load_checkpoint
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError
from tfx.core.runs import BEST, newest_in
from tfx.core.schedules import cosine
from tfx.core.weights import open_weights
from tfx.models.gpt2.data import Batches
from tfx.models.gpt2.initial import initial_weights
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config

NUMPY = NumpyBackend()
BPE = tokenizer()
CONFIG = Config(
    vocab_size=BPE.vocab_size, bos_token_id=BPE.eos_id, eos_token_id=BPE.eos_id, **SMALL
)
IDS = np.array(BPE.encode(TEXT[: round(len(TEXT) * 0.9)]))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# ---- against plain torch -----------------------------------------------------------------------


@pytest.mark.parametrize("grad_accum", [1, 3])
@pytest.mark.parametrize("clip", [0.05, 0])
def test_training_is_what_plain_torch_does(
    place: Place, backend: Backend, grad_accum: int, clip: float
) -> None:
    from torch_gpt2 import TorchGPT2, train

    steps = 4 if str(backend).startswith(("strict", "cupy")) else 12
    schedule = cosine(steps, 0.01, 0.002, warmup=3)
    batches = Batches(IDS, 12, 2, seed=7)
    theirs = TorchGPT2(CONFIG.vocab_size, 12, 16, 2, 2)
    theirs.take(initial_weights(CONFIG, 7))
    taken = [[batches[i * grad_accum + j] for j in range(grad_accum)] for i in range(steps)]
    expected = train(theirs, taken, schedule.tolist(), decay=0.3, clip=clip or 1e9)

    flags = {"lr": 0.01, "min_lr": 0.002, "warmup_steps": 3, "weight_decay": 0.3, "seed": 7}
    flags |= {"steps": steps, "grad_accum": grad_accum, "grad_clip": clip, "dtype": "float64"}
    place.train(backend, "run", **flags, dropout=0)
    found = metrics(place.folder / "run")
    np.testing.assert_allclose([line["loss"] for line in found], expected[0], rtol=1e-9)
    np.testing.assert_allclose([line["grad_norm"] for line in found], expected[1], rtol=1e-9)
    np.testing.assert_allclose([line["lr"] for line in found], schedule)
    last = weights(place.folder / "run")
    assert last.keys() == theirs.given().keys()
    for name, array in theirs.given().items():
        np.testing.assert_allclose(last[name], array, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("autograd", ["core", "native"])
def test_gradients_are_those_of_plain_torch(place: Place, autograd: str) -> None:
    """The first moment after one step is a tenth of the gradient."""
    from torch_gpt2 import TorchGPT2

    torch = pytest.importorskip("torch")
    from tfx.backends.torch.backend import TorchBackend

    theirs = TorchGPT2(CONFIG.vocab_size, 12, 16, 2, 2)
    theirs.take(initial_weights(CONFIG, 42))
    theirs.loss(*map(torch.tensor, Batches(IDS, 12, 2, seed=42)[0])).backward()
    how = {"steps": 1, "dtype": "float64", "dropout": 0, "grad_clip": 1e9, "autograd": autograd}
    place.train(TorchBackend(None), "run", **how)
    found = weights(place.folder / "run", "optimizer")
    for name, g in theirs.given(gradients=True).items():
        np.testing.assert_allclose(10 * found[f"m.{name}"], g, rtol=0, atol=1e-12, err_msg=name)


# ---- the same everywhere -----------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-4), ("float64", 1e-10)])
def test_one_seed_gives_one_curve(
    place: Place, backend: Backend, dtype: str, tolerance: float
) -> None:
    """With dropout: the masks are the same too."""
    steps = 3 if str(backend).startswith(("strict", "cupy")) else 30
    for name, on in (("there", backend), ("here", NUMPY)):
        place.train(on, name, steps=steps, dtype=dtype, grad_accum=2, dropout=0.3, lr=0.003)
    here, there = losses(place.folder / "here"), losses(place.folder / "there")
    np.testing.assert_allclose(there, here, rtol=0, atol=tolerance)
    if steps > 20:
        assert np.mean(here[-5:]) < np.mean(here[:5]) - 0.5


@pytest.mark.parametrize("autograd", ["core", "native"])
def test_checkpointing_changes_nothing_but_memory(
    place: Place, backend: Backend, autograd: str
) -> None:
    if autograd == "native" and not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    how = {"steps": 2, "dtype": "float64", "autograd": autograd, "dropout": 0.3}
    place.train(backend, "kept", **how)
    place.train(backend, "anew", **how, checkpoint_activations=True)
    tolerance = 0 if backend.deterministic else 1e-12
    for which in ("model", "optimizer"):
        found, expected = (weights(place.folder / name, which) for name in ("anew", "kept"))
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance)


def test_checkpointing_may_be_given_up_when_a_run_goes_on(place: Place) -> None:
    how = {"steps": 4, "save_every": 2, "dropout": 0.3}
    place.train(NUMPY, "straight", **how)
    place.train(NUMPY, "run", **how, checkpoint_activations=True)
    before = place.folder / "run" / "checkpoint-2"
    place.resume(NUMPY, before, "other", checkpoint_activations=False)
    for name in ("run", "other"):
        assert losses(place.folder / name) == losses(place.folder / "straight")
    saved = load_checkpoint(place.folder / "other", "gpt2")
    assert saved.state["options"]["checkpoint_activations"] is False


def test_dropout_draws_anew_in_every_step_and_turn(place: Place) -> None:
    """At a learning rate of nearly 0, on one sequence, nothing else differs between steps."""
    place.data.write_text(TEXT[:40])
    how = {"lr": 1e-12, "val_fraction": 0, "batch_size": 1, "block_size": 12, "n_positions": 12}
    ids = BPE.encode(TEXT[:40])[:13]
    np.save(place.folder / "one.npy", ids)
    how |= {"data": place.folder / "one.npy", "steps": 6, "dtype": "float64"}
    place.train(NUMPY, "single", **how, dropout=0.4)
    place.train(NUMPY, "double", **{**how, "steps": 3}, grad_accum=2, dropout=0.4)
    single, double = losses(place.folder / "single"), losses(place.folder / "double")
    assert len({round(loss, 6) for loss in single}) == 6
    np.testing.assert_allclose(double, np.reshape(single, (3, 2)).mean(1), atol=1e-9)
    place.train(NUMPY, "without", **how, dropout=0)
    assert len({round(loss, 6) for loss in losses(place.folder / "without")}) == 1


def test_batches_in_turns_are_one_large_batch(place: Place) -> None:
    how = {"steps": 5, "dropout": 0, "dtype": "float64"}
    place.train(NUMPY, "large", batch_size=6, **how)
    place.train(NUMPY, "turns", batch_size=2, grad_accum=3, **how)
    np.testing.assert_allclose(
        losses(place.folder / "turns"), losses(place.folder / "large"), rtol=1e-12
    )


# ---- stopped and taken up again ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resume_is_bitwise(place: Place, dtype: str) -> None:
    how = {"steps": 9, "eval_every": 2, "save_every": 5, "grad_accum": 2, "dtype": dtype}
    place.train(NUMPY, "straight", **how, batch_size=3)
    whole = kept(place.folder / "straight")
    place.train(NUMPY, "first", **how, batch_size=3)
    halfway = place.folder / "first" / "checkpoint-5"
    place.resume(NUMPY, halfway, "second")
    assert kept(place.folder / "second") == whole


def test_resume_of_a_fine_tuning_is_bitwise(place: Place) -> None:
    place.train(NUMPY, "base", steps=3)
    how = {"steps": 6, "eval_every": 2, "save_every": 4, "dropout": 0.2}
    place.fine_tune(NUMPY, place.folder / "base", "straight", **how)
    place.resume(NUMPY, place.folder / "straight" / "checkpoint-4", "second")
    assert kept(place.folder / "second") == kept(place.folder / "straight")


def test_resume_remembers_the_best(place: Place) -> None:
    """Which came before the pause, and is not reached again."""
    how = {"steps": 60, "eval_every": 3, "save_every": 5, "lr": 0.3, "warmup_steps": 10}
    result = place.train(NUMPY, "straight", **how, dropout=0, patience=4)
    assert result["best_step"] + 12 == result["steps"]
    earlier = max(
        int(folder.name.partition("-")[2])
        for folder in (place.folder / "straight").glob("checkpoint-*")
        if folder.name != f"checkpoint-{result['steps']}"
    )
    assert earlier >= result["best_step"]
    place.resume(NUMPY, place.folder / "straight" / f"checkpoint-{earlier}", "second")
    assert kept(place.folder / "second") == kept(place.folder / "straight")


def test_resume_on_another_backend(place: Place, backend: Backend) -> None:
    place.train(NUMPY, "straight", steps=4, save_every=2, dtype="float64")
    place.resume(backend, place.folder / "straight" / "checkpoint-2", "second")
    here, there = weights(place.folder / "straight"), weights(place.folder / "second")
    for name, array in here.items():
        np.testing.assert_allclose(there[name], array, rtol=0, atol=1e-9, err_msg=name)


def test_resume_with_more_steps(place: Place) -> None:
    place.train(NUMPY, "run", steps=4, lr=0.01, min_lr=0.001, warmup_steps=1)
    result = place.resume(NUMPY, place.folder / "run", steps=6)
    assert result["steps"] == 6
    rates = [line["lr"] for line in metrics(place.folder / "run")]
    assert rates[4:] == cosine(6, 0.01, 0.001, 1)[4:].tolist()
    (note,) = (note for note in place.listener.notes if "instead of" in note)
    assert note == "--steps 6 instead of 4: the learning rate follows the new schedule"


def test_resume_finds_its_data_where_it_is_now(place: Place) -> None:
    place.train(NUMPY, "run", steps=2)
    moved = place.data.rename(place.folder / "moved.txt")
    assert place.resume(NUMPY, place.folder / "run", steps=3, data=moved)["steps"] == 3


def test_a_later_best_of_the_run_before_is_not_taken_along(place: Place) -> None:
    how = {"steps": 6, "eval_every": 2, "save_every": 3, "lr": 0.01, "dropout": 0}
    place.train(NUMPY, "run", **how)
    run = place.folder / "run"
    assert find_checkpoint(run / BEST).name == "checkpoint-6"
    other = place.folder / "other"
    place.resume(NUMPY, run / "checkpoint-3", "other", steps=3)  # that of step 2 is gone
    assert not (other / BEST).exists()


def test_the_best_is_taken_along_whole_or_not_at_all(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"steps": 60, "eval_every": 3, "lr": 0.3, "warmup_steps": 10, "dropout": 0}
    best = place.train(NUMPY, "run", **how, patience=4)["best_step"]
    run, other = place.folder / "run", place.folder / "other"
    written: list[str] = []
    replace_file = files.replace_file

    def killed(path: Path, chunks: Any) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        replace_file(path, chunks)

    with monkeypatch.context() as patch:
        patch.setattr("tfx.core.checkpoint.replace_file", killed)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # nobody tidies up after a kill
        with pytest.raises(KeyboardInterrupt):
            place.resume(NUMPY, run, "other")
    assert len(written) == 3
    assert newest_in(other / BEST) is None
    place.resume(NUMPY, run, "other")
    assert [folder.name for folder in (other / BEST).iterdir()] == [f"checkpoint-{best}"]
    assert kept(other) == kept(run)


def test_a_best_of_another_run_is_not_mixed_in(place: Place) -> None:
    """One run was killed after its best; another is begun in its folder."""
    place.train(NUMPY, "run", steps=4, eval_every=2, save_every=0)
    run = place.folder / "run"
    shutil.rmtree(run / "checkpoint-4")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(CheckpointError, match=r"best/checkpoint-4 is in the way of this run"):
        place.train(NUMPY, "run", steps=1, seed=7)
    assert before == {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}


def test_going_on_from_the_best(place: Place) -> None:
    place.train(NUMPY, "straight", steps=6, eval_every=2, save_every=0)
    place.train(NUMPY, "run", steps=6, eval_every=2, save_every=0)
    run = place.folder / "run"
    best = find_checkpoint(run / BEST)
    assert best.name == "checkpoint-6"
    with pytest.raises(CheckpointError, match="holds the best checkpoint of a run, and no other"):
        place.resume(NUMPY, run / BEST, steps=8)
    assert [folder.name for folder in (run / BEST).iterdir()] == ["checkpoint-6"]
    place.resume(NUMPY, run / BEST, "other", steps=8, eval_every=9)
    other = place.folder / "other"
    assert losses(other)[:6] == losses(run)
    assert len(losses(other)) == 8


def test_what_is_best_is_kept_alone(place: Place) -> None:
    """Also where the one there is of a later step, of what was taken back by resuming."""
    place.train(NUMPY, "run", steps=6, eval_every=2, save_every=3, lr=0.01, warmup_steps=0)
    run = place.folder / "run"
    assert find_checkpoint(run / BEST).name == "checkpoint-6"
    shutil.rmtree(run / "checkpoint-6")
    place.resume(NUMPY, run, steps=4)
    assert [folder.name for folder in (run / BEST).iterdir()] == ["checkpoint-4"]


# ---- evaluation --------------------------------------------------------------------------------


def test_the_validation_loss(place: Place, backend: Backend) -> None:
    result = place.train(backend, "run", steps=2, eval_every=1, dropout=0.5, val_fraction=0.2)
    model = LanguageModel.load(find_checkpoint(place.folder / "run"), NUMPY, pytest.fail)
    text = TEXT[round(len(TEXT) * 0.8) :]
    ids = np.array(BPE.encode(text))
    total, count, characters = 0.0, 0, 0
    for start in range(0, len(ids) - 12, 12):
        logits = model.all_logits(tensor(ids[None, start : start + 12], NUMPY)).numpy()[0]
        following = ids[start + 1 : start + 13]
        scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= scores[range(12), following].sum()
        count += 12
        characters += len(BPE.decode(following, errors="ignore"))
    assert count > 300
    assert result["val_tokens"] == len(ids)
    assert result["val_loss"] == pytest.approx(total / count, rel=1e-5)
    assert result["val_loss_per_char"] == pytest.approx(total / characters, rel=1e-2)
    noted = [line.get("val_loss") for line in metrics(place.folder / "run")]
    assert noted[1] == result["val_loss"] != noted[0]
    assert f"step    2 | val loss {noted[1]:.4f} | val loss per char" in place.listener.notes[-2]


def test_the_best_is_kept_and_the_run_ends_when_it_gets_no_better(place: Place) -> None:
    """Learning at this rate undoes itself."""
    how = {"steps": 60, "eval_every": 3, "lr": 0.3, "warmup_steps": 10, "dropout": 0}
    result = place.train(NUMPY, "run", **how, patience=4)
    run = place.folder / "run"
    judged = {line["step"]: line["val_loss"] for line in metrics(run) if "val_loss" in line}
    best = min(judged, key=judged.__getitem__)
    assert list(judged) == list(range(3, result["steps"] + 1, 3))
    assert result["steps"] == best + 12 < 60
    assert (result["best_step"], result["best_val_loss"]) == (best, judged[best])
    assert result["val_loss"] == judged[result["steps"]] > judged[best]
    assert find_checkpoint(run / BEST).name == f"checkpoint-{best}"
    assert [folder.name for folder in (run / BEST).iterdir()] == [f"checkpoint-{best}"]
    assert find_checkpoint(run).name == f"checkpoint-{result['steps']}"
    assert place.listener.notes[-2] == "ended early: evaluations without a better one: 4"

    again = place.resume(NUMPY, run)
    assert again["steps"] == result["steps"]
    assert again["best_step"] == best
    further = place.resume(NUMPY, run, patience=0, steps=result["steps"] + 2)
    assert further["steps"] == result["steps"] + 2

    still = {"steps": 1, "lr": 1e-12, "eval_every": 1, "dropout": 0}
    measured = place.fine_tune(NUMPY, run, "judged", **still)["val_loss"]
    assert measured == pytest.approx(judged[best], abs=1e-6)
    assert place.listener.notes[-3].startswith(f"taking the run's best checkpoint, {run}")


def test_without_validation(place: Place) -> None:
    result = place.train(NUMPY, "run", steps=2, val_fraction=0)
    assert result["val_loss"] is result["best_step"] is None
    begins, judged, ends = place.listener.notes
    run = place.folder / "run"
    assert begins == "weights: random ones; --weights goes on from others"
    assert judged == "nothing is evaluated: there is no validation data"
    assert ends == f"saved: {run}; to use it: tfx run gpt2-tiny --weights {run}"
    assert not (place.folder / "run" / BEST).exists()
    result = place.train(NUMPY, "never", steps=2, eval_every=0)
    assert result["best_val_loss"] is None
    assert result["val_tokens"] > 0


# ---- what is left ------------------------------------------------------------------------------


def test_transformers_loads_a_checkpoint_as_it_is(place: Place) -> None:
    transformers: Any = pytest.importorskip("transformers")
    torch: Any = pytest.importorskip("torch")
    result = place.train(NUMPY, "run", steps=3, activation_function="relu", dropout=0.2)
    folder = find_checkpoint(place.folder / "run")
    theirs, told = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(told.values()), told
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    assert theirs.config.activation_function == "relu"
    assert theirs.config.attn_pdrop == 0.2
    bpe = transformers.AutoTokenizer.from_pretrained(folder)
    assert bpe(TEXT).input_ids == BPE.encode(TEXT)
    assert theirs.config.eos_token_id == bpe.eos_token_id == BPE.eos_id
    ids = torch.tensor([BPE.encode(TEXT)[:12]])
    ours = LanguageModel.load(folder, NUMPY, pytest.fail)
    found = ours.all_logits(tensor(ids.numpy(), NUMPY)).numpy()
    with torch.no_grad():
        np.testing.assert_allclose(found, theirs.eval()(ids).logits.numpy(), atol=1e-5)
    assert result["num_params"] == sum(p.numel() for p in theirs.parameters())


def test_a_checkpoint_tells_all(place: Place) -> None:
    how = {"n_layer": 1, "n_embd": 12, "n_head": 3, "vocab_size": 300, "tie_word_embeddings": False}
    how |= {"embd_pdrop": 0.3, "n_inner": 20, "activation_function": "silu", "eos_token_id": None}
    place.train(NUMPY, "run", steps=1, **how, n_positions=9)
    saved = load_checkpoint(place.folder / "run", "gpt2")
    values = {"resid_pdrop": 0.1, "embd_pdrop": 0.3, "attn_pdrop": 0.1, "n_positions": 9}
    values |= {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **how}
    assert {name: saved.config[name] for name in values} == values
    assert saved.files.keys() == {
        *("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")
    }
    assert saved.weights["lm_head.weight"].shape == (300, 12)
    assert saved.state["options"]["block_size"] == 9


def test_bfloat16(place: Place) -> None:
    pytest.importorskip("torch")
    from tfx.backends.torch.backend import TorchBackend

    how = {"steps": 6, "save_every": 3, "dtype": "bfloat16", "lr": 0.01}
    result = place.train(TorchBackend(None), "run", **how)
    assert result["dtype"] == "bfloat16"
    stored = open_weights(find_checkpoint(place.folder / "run") / "model.safetensors")
    assert {x.dtype for x in stored.values()} == {DType.bfloat16}
    place.resume(TorchBackend(None), place.folder / "run" / "checkpoint-3", "again")
    np.testing.assert_equal(weights(place.folder / "again"), weights(place.folder / "run"))


def test_fine_tuning_goes_on_from_the_weights(place: Place) -> None:
    place.train(NUMPY, "base", steps=20, eval_every=0, lr=0.01, n_head=4)
    base = place.folder / "base"
    how = {"dropout": 0, "eval_every": 1, "weight_decay": 0.0}
    result = place.fine_tune(NUMPY, base, "tuned", steps=1, **how)
    saved = load_checkpoint(place.folder / "tuned")
    assert saved.config["n_head"] == 4
    assert saved.files == load_checkpoint(base).files
    assert saved.state["options"]["lr"] == 5e-5
    assert result["final_loss"] < losses(base)[0] - 1
    before, after = weights(base), weights(place.folder / "tuned")
    changes = [np.abs(after[name] - before[name]).max() for name in before]
    assert 0 < max(changes) < 6e-5


def test_samples(place: Place) -> None:
    result = place.train(NUMPY, "run", steps=2, num_samples=2)
    assert len(result["samples"]) == 2
    shown = place.listener.results
    assert shown[shown.index("--- sample 1 ---") :] == [
        *("--- sample 1 ---", result["samples"][0], "--- sample 2 ---", result["samples"][1])
    ]
    assert place.train(NUMPY, "again", steps=2, num_samples=2)["samples"] == result["samples"]
    one = {"steps": 1, "num_samples": 1, "n_positions": 1}
    assert len(place.train(NUMPY, "short", **one)["samples"]) == 1


def test_tokens_of_a_padded_vocabulary_are_no_text(place: Place) -> None:
    result = place.train(NUMPY, "run", steps=1, num_samples=1, vocab_size=5000)
    assert len(result["samples"][0]) < 40  # most ids, of a model that has learnt nothing


def test_token_files_need_no_tokenizer(place: Place) -> None:
    np.array(BPE.encode(TEXT), "<u2").tofile(place.folder / "train.bin")
    how = {"data": place.folder, "tokenizer": None, "num_samples": 1, "steps": 2}
    result = place.train(NUMPY, "run", **how, vocab_size=500)
    assert (result["samples"], result["val_loss_per_char"]) == ([], None)
    assert result["val_loss"] > 0
    assert load_checkpoint(place.folder / "run").files == {}
    result = place.train(NUMPY, "text", **{**how, "tokenizer": place.tokenizer})
    assert result["samples"] != []
    assert result["val_loss_per_char"] > 0


def test_the_result_is_json(place: Place) -> None:
    result = place.train(NUMPY, "run", steps=3, num_samples=1, eval_every=2)
    told = json.loads(json.dumps(result, allow_nan=False))
    assert told["model"] == "gpt2-tiny"
    assert told["tokens_per_s"] > 0
    assert told["timing"].keys() == {"load_s", "train_s", "eval_s", "sample_s"}
    assert told["steps"] == 3
    assert told["vocab_size"] == BPE.vocab_size
    assert told["final_loss"] == losses(place.folder / "run")[-1]


# ---- memory ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_does_not_grow(place: Place) -> None:
    held: dict[int, int] = {}

    def look(step: int, total: int, loss: float, seconds: float) -> None:
        if step % 10 == 0:
            gc.collect()
            held[step] = tracemalloc.get_traced_memory()[0]

    place.listener.progress = look  # type: ignore[method-assign]
    tracemalloc.start()
    try:
        place.train(NUMPY, "run", steps=120, eval_every=20, save_every=50, grad_accum=2)
    finally:
        tracemalloc.stop()
    late, early = (max(held[s] for s in range(a, a + 51, 10)) for a in (70, 20))
    assert late - early < 20_000, held  # one more state would be 100,000 bytes


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux")
def test_memory_does_not_grow_on_torch(place: Place) -> None:
    """What the process takes, with parameters, and moments, of 6.6 MB each. A state kept at every
    save or evaluation would be six of them; where the allocator puts what is freed again makes one.
    """
    pytest.importorskip("torch")
    from tfx.backends.torch.backend import TorchBackend

    held: dict[int, int] = {}

    def look(step: int, total: int, loss: float, seconds: float) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        held[step] = pages * os.sysconf("SC_PAGE_SIZE")

    place.listener.progress = look  # type: ignore[method-assign]
    sizes = {"n_embd": 256, "steps": 120, "eval_every": 10, "save_every": 10, "batch_size": 1}
    result = place.train(TorchBackend(None), "run", **sizes, val_fraction=0.05)
    state = result["num_params"] * 4
    assert state > 6_000_000
    growth = max(held[step] for step in range(91, 121)) - max(held[s] for s in range(31, 61))
    assert growth < 2 * state, held


def test_accumulation_saves_memory(place: Place) -> None:
    tokens = place.folder / "tokens.npy"
    np.save(tokens, IDS)

    def peak(name: str, **how: int) -> int:
        tracemalloc.start()
        try:
            sizes = {"n_embd": 32, "n_positions": 32, "steps": 2, "vocab_size": 300}
            data = {"data": tokens, "tokenizer": None, "eval_every": 0}
            place.train(NUMPY, name, **data, **sizes, **how)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak("warm", batch_size=1)
    single = peak("single", batch_size=1)
    turns = peak("turns", batch_size=1, grad_accum=16)
    large = peak("large", batch_size=16)
    assert turns < 1.7 * single and turns < 0.7 * large


def test_a_learning_rate_that_is_too_large_says_so(place: Place) -> None:
    from tfx.core.errors import NonFiniteError

    with pytest.raises(NonFiniteError, match="not finite"):
        place.train(NUMPY, "run", steps=20, lr=1e30, grad_clip=1e9)
    assert not list((place.folder / "run").glob("checkpoint-*"))


def test_initial_weights() -> None:
    config = replace(CONFIG, n_embd=64, n_layer=8, initializer_range=0.3)
    drawn = initial_weights(config, 5)
    assert {name: array.shape for name, array in drawn.items()} == config.shapes()
    for name, array in drawn.items():
        if array.ndim == 1:
            assert (array == (1 if name.endswith("weight") else 0)).all(), name
            continue
        spread = 0.3 / 4 if name.endswith("c_proj.weight") else 0.3
        assert array.std() == pytest.approx(spread, rel=0.06), name
        assert abs(array.mean()) < 5 * spread / array.size**0.5, name
    again, other = initial_weights(config, 5, DType.float32), initial_weights(config, 6)
    for name, array in drawn.items():
        assert array.dtype == "float64"
        np.testing.assert_array_equal(again[name], array.astype("float32"))
        assert array.ndim == 1 or (other[name] != array).all()
