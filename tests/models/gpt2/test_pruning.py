"""Pruned heads are those of transformers 4, and the least important ones go."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_weights import SIZES, golden_ids, golden_weights

import tfx
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.generation.generate import GenerationOptions, generate
from tfx.core.parameters import borrowed
from tfx.core.recipe import PruneSettings
from tfx.core.storage import Storage
from tfx.models.gpt2.config import config_json
from tfx.models.gpt2.importance import TEXTS, importance, least_important, pieces
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config, loss
from tfx.models.gpt2.pruned import cuts, without_heads
from tfx.models.gpt2.recipe import GPT2
from tfx.models.gpt2.weights import read_pretrained, write_pretrained

pytestmark = pytest.mark.usefixtures("calm")

RECORDED = json.loads((Path(__file__).parents[2] / "data/transformers_4.json").read_text())
STEPS = ["one", "several", "twice"]
IDS = golden_ids(3, 8)


@pytest.fixture(params=RECORDED["cases"], ids=lambda case: str(case["name"]))
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


def whole(case: Any, backend: Backend, dtype: DType = DType.float64) -> LanguageModel:
    config = Config(**SIZES, **case["options"], bos_token_id=None, eos_token_id=None)
    return LanguageModel(config, borrowed(golden_weights(config.shapes()), backend, dtype))


def by_layer(heads: Any) -> dict[int, list[int]]:
    return {int(layer): list(some) for layer, some in heads.items()}


def pruned(case: Any, steps: str, backend: Backend, dtype: DType = DType.float64) -> LanguageModel:
    model = whole(case, backend, dtype)
    for heads in case["pruned"][steps]["steps"]:
        model = model.prune_heads(by_layer(heads))
    return model


@pytest.mark.parametrize("steps", STEPS)
def test_as_transformers_4(steps: str, case: Any, backend: Backend) -> None:
    expected = case["pruned"][steps]
    model = pruned(case, steps, backend)
    shapes = {f"transformer.{name}": list(x.shape) for name, x in model.params.items()}
    assert {name: shape for name, shape in shapes.items() if ".attn." in name} == expected["shapes"]
    assert config_json(model.config)["pruned_heads"] == expected["pruned_heads"]
    np.testing.assert_allclose(model(IDS[:1]).logits[0], expected["logits"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("steps", STEPS)
def test_the_cache_has_layers_of_several_widths(steps: str, case: Any, backend: Backend) -> None:
    expected = case["pruned"][steps]
    model = pruned(case, steps, backend)
    cache = model.start(1, 8)
    widths = {cache._buffers[i][0].shape[-1] for i in range(3)}
    assert widths == {model.config.width(i) for i in range(3)}
    for i in range(8):
        ids = tensor(IDS[:1, i : i + 1], backend, backend.index_dtype)
        found = model.logits(ids, cache).numpy()[0]
        np.testing.assert_allclose(found, expected["logits"][i], rtol=1e-8, atol=1e-8)
    options = GenerationOptions(max_new_tokens=8)
    [[text]] = generate(model, [IDS[0].tolist()], options)
    assert list(text.token_ids) == expected["greedy"]


@pytest.mark.parametrize("steps", STEPS)
def test_what_is_written_is_read_again(
    steps: str, case: Any, backend: Backend, tmp_path: Path
) -> None:
    model = pruned(case, steps, backend, DType.float32)
    stored = {name: x.numpy() for name, x in model.params.items()}
    write_pretrained(tmp_path / "out", model.config, stored)
    again = LanguageModel.load(tmp_path / "out", backend, pytest.fail)
    assert again.config == model.config
    np.testing.assert_allclose(again(IDS).logits, model(IDS).logits, rtol=1e-5, atol=1e-5)


def test_a_pruned_head_is_a_silent_one(case: Any, backend: Backend) -> None:
    """Heads keep their numbers, in masks and in theta."""
    model = whole(case, backend)
    lost = {0: [0, 3], 2: [1]}
    mask = np.array([[9, 0.3, 0.7, 9], [1, 0.2, 1, 1], [0.5, 9, 1, 1]])
    theta = np.random.default_rng(0).uniform(0.2, 1.5, (3, 4))
    silent = mask.copy()
    for layer, heads in lost.items():
        silent[layer, heads] = 0
    found = model.prune_heads(lost)(IDS, theta=theta, head_mask=mask, output_attentions=True)
    expected = model(IDS, theta=theta, head_mask=silent, output_attentions=True)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-6, atol=1e-6)
    assert found.attentions is not None and expected.attentions is not None
    assert found.attentions[0].shape == (3, 2, 8, 8)
    kept = expected.attentions[0][:, 1:3]
    np.testing.assert_allclose(found.attentions[0], kept, rtol=1e-6, atol=1e-9)


def test_it_can_be_trained(case: Any, backend: Backend) -> None:
    """The gradient of what is left is that of the whole with silent heads."""
    model = whole(case, backend)
    lost = {0: [0, 3], 2: [1]}
    mask = np.ones((3, 4))
    mask[0, [0, 3]] = mask[2, 1] = 0
    small, ids = model.prune_heads(lost), tensor(IDS, backend, backend.index_dtype)

    def slopes(of: LanguageModel) -> Any:
        def value(p: Any) -> Any:
            return loss(p, of.config, ids[:, :-1], ids[:, 1:], of.through())

        return value_and_grad(value)(dict(of.params))[1]

    found = slopes(small)
    expected = slopes(replace(model, head_mask=tensor(mask, backend, DType.float64)))
    found_cuts = cuts(model.config, small.config)
    assert len(found_cuts) == 6
    for name, grad in expected.items():
        whole_grad = grad.numpy()
        if name in found_cuts:
            cut = found_cuts[name]
            whole_grad = np.take(whole_grad, cut.kept, cut.axis)
        np.testing.assert_allclose(found[name].numpy(), whole_grad, rtol=1e-7, atol=1e-9)


def test_importance_is_that_of_transformers_4(case: Any, backend: Backend) -> None:
    found = importance(whole(case, backend), list(IDS))
    np.testing.assert_allclose(found, case["importance"], rtol=1e-6)


def test_what_is_pruned_has_no_importance(backend: Backend) -> None:
    model = pruned(RECORDED["cases"][0], "several", backend)
    found = importance(model, list(IDS))
    silent = {(layer, head) for layer, heads in model.config.pruned_heads for head in heads}
    assert silent == set(zip(*map(list, np.nonzero(found == 0)), strict=True))


def test_the_least_important_go() -> None:
    scores = np.arange(12.0).reshape(3, 4)
    assert least_important(scores, (), 1.0) == {}
    assert least_important(scores, (), 0.75) == {0: [0, 1, 2]}  # one stays in every layer
    assert least_important(scores, (), 0.5) == {0: [0, 1, 2], 1: [0, 1, 2]}
    assert least_important(scores, (), 0.01) == {i: [0, 1, 2] for i in range(3)}
    left = least_important(scores, ((0, (3,)), (1, (0, 1))), 0.5)
    assert left == {0: [0, 1], 1: [2], 2: [0, 1]}


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({3: [0]}, "there is no layer 3; the model has 0 to 2"),
        ({-1: [0]}, "there is no layer -1"),
        ({1: [0, 4]}, "layer 1 has no head 4; heads are 0 to 3"),
        ({1: range(4)}, "layer 1 would have no head left"),
    ],
)
def test_what_cannot_be_pruned(heads: Any, message: str, backend: Backend) -> None:
    model = whole(RECORDED["cases"][0], backend)
    with pytest.raises(UsageError, match=message):
        model.prune_heads(heads)
    with pytest.raises(UsageError, match="no head left"):
        without_heads(without_heads(model.config, {0: [0, 1]}), {0: [2, 3]})


def test_what_is_gone_already_changes_nothing(backend: Backend) -> None:
    model = whole(RECORDED["cases"][0], backend).prune_heads({0: [0, 1]})
    assert model.prune_heads({0: [1], 1: []}) is model


@pytest.mark.parametrize("backend", ["numpy"], indirect=True)
def test_the_command_says_what_is_gone_already(backend: Backend, tmp_path: Path) -> None:
    report = Silent()
    settings = PruneSettings(weights=None, out=tmp_path / "one", heads={0: (1, 3)})
    GPT2("gpt2-tiny").prune(settings, backend, report)
    again = replace(settings, weights=tmp_path / "one", out=tmp_path / "two")
    with pytest.raises(UsageError, match=r"^--heads: layer 0 has lost 1 and 3 already"):
        GPT2("gpt2-tiny").prune(again, backend, report)
    assert not (tmp_path / "two").exists()
    GPT2("gpt2-tiny").prune(replace(again, heads={0: (1,), 2: (0,)}), backend, report)
    assert "layer 0 has lost 1 already" in report.notes


def test_quantized_weights_are_not_pruned(backend: Backend, tmp_path: Path) -> None:
    model = whole(RECORDED["cases"][0], backend)
    stored = {name: x.numpy().astype(np.float32) for name, x in model.params.items()}
    write_pretrained(tmp_path / "out", model.config, stored)
    small = LanguageModel.load(
        tmp_path / "out", backend, lambda line: None, storage=Storage("int8", "int8", 16)
    )
    with pytest.raises(UsageError, match="quantize what is pruned already"):
        small.prune_heads({0: [0]})


def test_pieces_are_spread_over_the_text() -> None:
    ids = np.arange(101)
    assert [p.tolist() for p in pieces(ids[:5], 3)] == [[0, 1, 2], [3, 4]]
    assert [p.tolist() for p in pieces(ids[:4], 3)] == [[0, 1, 2]]  # one token predicts nothing
    many = pieces(np.arange(1000), 2)
    assert len(many) == TEXTS
    assert many[0][0] == 0 and many[-1][0] == 998


class Silent:
    """Takes a recipe's words."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []

    def result(self, line: str) -> None:
        self.lines.append(line)

    def piece(self, text: str) -> None: ...
    def note(self, line: str) -> None:
        self.notes.append(line)

    def progress(self, *_: Any) -> None: ...
    def progress_done(self, *, is_result: bool = True) -> None: ...


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_the_command(backend: Backend, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question:\n" * 20)
    settings = PruneSettings(weights=None, out=tmp_path / "out", data=text, keep=0.75)
    report = Silent()
    found = GPT2("gpt2-tiny").prune(settings, backend, report)
    assert (found["heads_before"], found["heads_after"]) == (16, 12)
    lost = {int(layer): heads for layer, heads in found["pruned_heads"].items()}
    assert sum(map(len, lost.values())) == 4
    written = read_pretrained(tmp_path / "out", pytest.fail)
    assert dict(written.config.pruned_heads) == {i: tuple(heads) for i, heads in lost.items()}
    assert found["parameters_after"] == sum(
        int(np.prod(shape)) for shape in written.config.shapes().values()
    )
    assert found["perplexity_before"] != found["perplexity_after"]
    assert any("12 of 16 heads" in line for line in report.lines)
    with pytest.raises(UsageError, match=r"--keep 1.5: expected a share"):
        GPT2("gpt2-tiny").prune(replace(settings, keep=1.5), backend, report)


@pytest.mark.parametrize("backend", ["numpy"], indirect=True)
def test_the_command_with_heads_that_are_named(backend: Backend, tmp_path: Path) -> None:
    """Of a model that judges choices; with its figures before and after, where there are data."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers_folders import write_transformers

    kind = "GPT2ForSequenceClassification"
    weights = write_transformers(tmp_path / "whole", kind, n_head=4)
    data = tmp_path / "data.jsonl"
    lines = [{"text": "the king", "label": "LABEL_0"}, {"text": "a hymn", "label": "LABEL_1"}]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report, lost = Silent(), {0: (1, 3), 1: (0,)}
    named = PruneSettings(
        weights=weights, out=tmp_path / "out", heads=lost, task="text-classification"
    )
    found = GPT2("gpt2").prune(named, backend, report)
    assert (found["heads_before"], found["heads_after"]) == (8, 5)
    assert found["pruned_heads"] == {"0": [1, 3], "1": [0]}
    assert found["importance"] is None and "loss_before" not in found
    model = tfx.load(tmp_path / "out", backend=backend, task="text-classification")
    whole = tfx.load(weights, backend=backend, task="text-classification")
    mask = [[1, 0, 1, 0], [0, 1, 1, 1]]
    expected = whole("the king", head_mask=mask).logits
    np.testing.assert_allclose(model("the king").logits, expected, rtol=1e-4, atol=1e-5)

    judged = replace(named, out=tmp_path / "least", heads=None, keep=0.5, data=data)
    found = GPT2("gpt2").prune(judged, backend, report)
    assert found["heads_after"] == 4
    scores = whole.head_importance(lines)
    np.testing.assert_allclose(found["importance"], scores, rtol=1e-6)
    gone = {(int(layer), x) for layer, heads in found["pruned_heads"].items() for x in heads}
    assert least_important(scores, (), 0.5) == by_layer(found["pruned_heads"])
    assert len(gone) == 4
    for when, path in (("before", weights), ("after", tmp_path / "least")):
        logits = tfx.load(path, backend=backend, task="text-classification")(
            [line["text"] for line in lines]
        ).logits
        logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert found[f"loss_{when}"] == pytest.approx(-logp[[0, 1], [0, 1]].mean(), rel=1e-5)
        assert found[f"accuracy_{when}"] == np.mean(logits.argmax(-1) == [0, 1])
    for wrong, told in (
        ({"heads": {2: [0]}}, "there is no layer 2"),
        ({"heads": {0: [4]}}, "layer 0 has no head 4"),
        ({"task": "poetry"}, "--task 'poetry': no such task"),
        ({"task": None}, "no language model"),
        ({"heads": None, "keep": 0.5}, "nothing says what matters"),
    ):
        with pytest.raises(UsageError, match=told):
            GPT2("gpt2").prune(replace(named, out=tmp_path / "new", **wrong), backend, report)
        assert not (tmp_path / "new").exists()
