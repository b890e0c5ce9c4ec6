"""A model that a stranger's plugin brings is loaded and asked like any other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfx
from tfx.core.backend import Backend
from tfx.core.errors import CheckpointError, UsageError

PLUGIN = '''
"""A model in which each letter is followed by the next of the alphabet, most likely."""
import numpy as np
import tfx
from tfx.core.hookspecs import hookimpl
from tfx.core.pipelines.loadable import Loaded
from tfx.core.specs import ModelSpec

@hookimpl
def tfx_models():
    dumb = ModelSpec("{name}-dumb", "{name}:Dumb", "")
    return [ModelSpec("{name}", "{name}:Recipe", "letters"), dumb]

class Dumb:
    name = "{name}-dumb"
    def train(self, *a): raise NotImplementedError
    def run(self, *a): raise NotImplementedError

class Recipe(Dumb):
    name = "{name}"
    def load(self, settings, backend, note):
        model = Alphabet(backend)
        note("weights: {{}}".format(settings.weights))
        return Loaded(backend, model.max_positions, model, Letters())

class Letters:
    def encode(self, text): return [ord(x) - 97 for x in text]
    def decode(self, ids): return "".join(chr(x + 97) for x in ids)
    def piece(self, token): return bytes([token + 97])

class NoCache:
    def pad_left(self, counts): pass
    def reorder(self, rows): pass

class Alphabet:
    vocab_size, max_positions = 26, 12
    def __init__(self, backend):
        self.backend = backend
        self.table = tfx.tensor(np.roll(np.eye(26), 1, 1).astype("float32"), backend)
    def start(self, batch, capacity): return NoCache()
    def logits(self, ids, cache): return self.table.take(ids[:, -1])
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "tfx_alphabet"
    (tmp_path / f"{name}.py").write_text(PLUGIN.format(name=name))
    info = tmp_path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tfx]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delenv("TFX_LOAD_PLUGINS", raising=False)
    return name


@pytest.fixture
def numpy() -> Backend:
    return tfx.backend("numpy")


def test_it_writes_and_streams_by_its_name(plugin: str, numpy: Backend) -> None:
    model = tfx.load(plugin, backend=numpy)
    assert model.backend is numpy
    assert model.generate("abc", max_new_tokens=3).text == "def"
    one, other = model.generate(["a", [23]], max_new_tokens=2)
    assert (one.text, other.text) == ("bc", "yz")
    assert list(model.stream("k", max_new_tokens=3)) == ["l", "m", "n"]


def test_scores_of_all_tokens_come_from_a_model_that_gives_those_of_the_last(
    plugin: str, numpy: Backend
) -> None:
    model = tfx.load(plugin, backend=numpy)
    assert model.logits("adz").argmax(-1).tolist() == [1, 4, 0]
    assert [x.shape for x in model.logits(["adz", "a"])] == [(3, 26), (1, 26)]
    assert model.logits(np.array([[0, 1], [2, 3]])).shape == (2, 2, 26)


def test_pipelines_take_it(plugin: str, numpy: Backend) -> None:
    write = tfx.pipeline("text-generation", plugin, backend=numpy, max_new_tokens=2)
    assert write(["ab", "x"]) == [[{"generated_text": "abcd"}], [{"generated_text": "xyz"}]]
    judge = tfx.pipeline("perplexity", plugin, backend=numpy)
    right, wrong = judge(["abcd", "aaaa"])
    chances = np.log(np.e + 25)
    assert right["loss"] == pytest.approx(chances - 1)
    assert wrong["perplexity"] == pytest.approx(np.e + 25)
    # windows count every token once, whatever their stride
    for stride in (None, 1, 5):
        longer = judge("abcdefghijklmnopqrstuvwxyz", stride=stride)
        assert longer["num_tokens"] == 25
        assert longer["loss"] == pytest.approx(chances - 1)


@pytest.mark.parametrize("key", ["model", "model_type"])
def test_it_is_found_by_what_its_configuration_says(
    plugin: str, numpy: Backend, key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({key: plugin}))
    assert tfx.load(folder, backend=numpy).name == plugin
    assert caplog.messages == [f"weights: {folder}"]


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises((UsageError, CheckpointError)) as found:
        tfx.load(*args, **options)
    return str(found.value)


def test_refusals_say_what_is_wrong(plugin: str, numpy: Backend, tmp_path: Path) -> None:
    assert "neither a model nor a path. Did you mean 'tfx_alphabet'?" in refusal("tfx_alphabt")
    assert "its plugin has no `load`" in refusal(f"{plugin}-dumb", backend=numpy)
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    assert "tells of 'other'; expected one of" in refusal(tmp_path)
    (tmp_path / "config.json").unlink()
    assert "would tell whose weights these are" in refusal(tmp_path)
    assert tfx.load(tmp_path, model=plugin, backend=numpy).name == plugin
    assert "leave it out" in refusal(plugin, backend=numpy, device="cpu")
    model = tfx.load(plugin, backend=numpy)
    for attempt, told in (
        (lambda: model.save(tmp_path / "x"), "does not say how"),
        (lambda: model.generate("a", do_sample=True), "Here it is temperature"),
        (lambda: model.generate(["a", ""]), "prompt 1: it is empty"),
        (lambda: model.generate("a" * 13), "13 tokens do not fit"),
        (lambda: model.generate(7), "expected a text, token ids, or a list"),
        (lambda: tfx.pipeline("feature-extraction", plugin, backend=numpy), "hidden states"),
        (lambda: tfx.pipeline("text-classification", model), "such a head"),
        (lambda: tfx.pipeline("perplexty", model), "Did you mean 'perplexity'?"),
        (lambda: tfx.pipeline("perplexity", model, strde=2), "Did you mean 'stride'?"),
        (
            lambda: tfx.pipeline("perplexity", model)(["ab", "a"]),
            "input 1: its length in tok",
        ),
    ):
        with pytest.raises(UsageError, match=told):
            attempt()


def test_an_iterable_is_taken_a_batch_at_a_time(plugin: str, numpy: Backend) -> None:
    taken = []

    def texts() -> Any:
        for text in "abcde":
            taken.append(text)
            yield text

    write = tfx.pipeline("text-generation", plugin, backend=numpy, max_new_tokens=1, batch_size=2)
    results = write(texts())
    assert taken == []
    assert next(results) == [{"generated_text": "ab"}]
    assert taken == ["a", "b"]
    assert [x[0]["generated_text"] for x in results] == ["bc", "cd", "de", "ef"]
