"""What Python code gets wrong: each is one line that names the argument as Python has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfx
from tfx.core.errors import NonFiniteError, ShapeError, TfxError
from tfx.core.pipelines.language_model import LanguageModel

Call = Callable[[LanguageModel], Any]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tfx.load("gpt2-tiny", backend="numpy")


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(TfxError) as caught:
        call()
    told = str(caught.value)
    assert "\n" not in told and "--" not in told
    return told


def load(**options: Any) -> Any:
    return tfx.load("gpt2-tiny", **{"backend": "numpy", **options})


def write(model: LanguageModel, **options: Any) -> Any:
    return tfx.pipeline("text-generation", model, **options)


def shown(model: LanguageModel, **options: Any) -> Any:
    return tfx.pipeline("feature-extraction", model, **options)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda m: load(bakend="numpy"), "load has no argument 'bakend'. Did you mean 'backend'?"),
        (lambda m: m.explain("a", topk=1), "explain has no argument 'topk'. Did you mean 'top_k'?"),
        (
            lambda m: m("a", output_attention=True),
            "a call has no argument 'output_attention'. Did you mean 'output_attentions'?",
        ),
        (lambda m: m.save(dir="x"), "save has no argument 'dir'. There are folder."),
        (lambda m: m.prune_heads(head={}), "prune_heads has no argument 'head'. Did you mean"),
        (lambda m: m.generate("a", topk=1), "there is no option 'topk'. Did you mean 'top_k'?"),
        (lambda m: m.stream("a", foo=1), "there is no option 'foo'. There are max_new_tokens,"),
        (lambda m: tfx.load("gpt2-tiny", "numpy"), "load: too many positional arguments; it takes"),
        (lambda m: m.generate(), "generate: missing a required argument: 'prompts'; it takes"),
        (lambda m: tfx.pipeline("perplexity"), "pipeline: missing a required argument: 'model'"),
    ],
)
def test_arguments_that_there_are_not(model: LanguageModel, call: Call, told: str) -> None:
    assert refusal(lambda: call(model)).startswith(told)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda m: load(quantize="int8", group_size=0), "group_size 0: expected a whole number"),
        (lambda m: load(quantize="int4", group_size="x"), "group_size 'x': expected a whole"),
        (lambda m: m.explain("a", top_k=-1), "top_k -1: expected a whole number from 0 up"),
        (lambda m: m.explain("a", top_k="x"), "top_k 'x': expected a whole number from 0 up"),
        (lambda m: m.explain("a", layers=0), "layers 0: expected a list of whole numbers"),
        (lambda m: m.explain("a", heads="0"), "heads '0': expected a list of whole numbers"),
        (lambda m: m.explain("a", layers=[0.5]), "layers [0.5]: expected a list of whole"),
        (lambda m: m.decode(5), "ids 5: expected a list of whole numbers"),
        (lambda m: m.decode([True]), "ids [True]: expected a list of whole numbers"),
        (lambda m: m.decode([768]), "ids 768: expected a whole number from 0 to 767"),
        (lambda m: m.decode([-1]), "ids -1: expected a whole number from 0 to 767"),
        (lambda m: m.save(5), "folder 5: expected a path"),
        (lambda m: m.save(""), "folder '': expected a path"),
        (lambda m: load(backend=5), "backend 5: expected a name, as 'numpy'"),
        (lambda m: load(device=5), "device 5: expected a name"),
        (lambda m: load(model="gpt3"), "model 'gpt3': there is no such model. Did you mean 'gpt2'"),
        (lambda m: load(model="gpt2"), "model 'gpt2': gpt2-tiny is a model itself; leave it out"),
        (lambda m: write(m, truncation="no"), "truncation 'no': expected one of True, False"),
        (lambda m: shown(m, truncation=1), "truncation 1: expected one of True, False"),
        (lambda m: m(np.array([["a"]])), "an array, or attention_mask, is for ids of one length"),
        (lambda m: tfx.load(""), "expected the name of a model or a path, not an empty text"),
    ],
)
def test_values_that_will_not_do(model: LanguageModel, call: Call, told: str) -> None:
    assert refusal(lambda: call(model)).startswith(told)


READS: tuple[Callable[[LanguageModel, Any], Any], ...] = (
    lambda m, given: m(given),
    lambda m, given: m.generate(given),
    lambda m, given: m.logits(given),
    lambda m, given: m.head_importance(given),
)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "there are no texts; expected at least one"),
        (np.zeros((0, 3), int), "there are no texts; expected at least one"),
        (b"abc", "expected a text, not bytes; decode them: b'abc'"),
        ([b"abc"], "expected a text, not bytes"),
        ([True, False], "expected a text"),
        ([1.5, 2.5], "expected a text"),
        (np.array(3), "expected"),
        ({"text": "a"}, "expected a text, token ids, or a list of these, not a dict"),
        (None, "expected a text, token ids, or a list of these, not None"),
    ],
)
def test_what_is_no_text(
    model: LanguageModel, read: Callable[..., Any], given: Any, told: str
) -> None:
    assert told in refusal(lambda: read(model, given))


def test_heads_are_weighed_by_texts_that_the_model_can_read(model: LanguageModel) -> None:
    assert "not a dict" in refusal(lambda: model.head_importance([{"text": "a"}]))
    for ids in ([-1, 5], [5, 10**9]):
        assert "is none of the model's" in refusal(lambda ids=ids: model.head_importance(ids))


@pytest.mark.parametrize(
    "call",
    [
        lambda m, theta: load(theta=theta),
        lambda m, theta: m("a", theta=theta),
        lambda m, theta: m("a", theta=lambda token: theta),
        lambda m, theta: m.generate("a", theta=theta),
        lambda m, theta: m.generate("a", theta=lambda step: theta),
        lambda m, theta: m.explain("a", theta=theta),
        lambda m, theta: write(m, theta=theta),
    ],
)
def test_theta_is_a_finite_number_from_0_up(model: LanguageModel, call: Callable[..., Any]) -> None:
    assert refusal(lambda: call(model, -0.5)).startswith("theta -0.5: expected numbers of at least")
    assert "in float32 there are numbers up to 3.4e+38" in refusal(lambda: call(model, 1e308))
    wrong = np.full((4, 3), 0.5)
    with pytest.raises(ShapeError, match=r"has the shape \(4, 3\); expected \(\) or \(4,\) or"):
        call(model, wrong)
    wrong[1, 1] = np.nan
    assert "expected finite numbers, as many in every row" in refusal(lambda: call(model, wrong))


def test_what_overflows_under_theta_is_told_of(model: LanguageModel) -> None:
    for call in (model, model.generate, model.explain):
        with pytest.raises(NonFiniteError, match="are too large, or theta or the head mask"):
            call("a king", theta=1e38)
    with pytest.raises(TfxError, match=r"head_mask 1e\+308: in float32"):
        model("a", head_mask=1e308)


@pytest.mark.parametrize("given", [b"a", {"a": 1}, 5])
def test_pipelines_refuse_at_once_what_is_no_text(model: LanguageModel, given: Any) -> None:
    ask = tfx.pipeline("text-generation", model, max_new_tokens=1)
    assert refusal(lambda: ask(given)).startswith("expected a text, a list of texts")
    assert ask([]) == []  # as in transformers


def test_what_cannot_be_had_is_loaded_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said as in Python, where the command line would name a flag."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("gpt2-xl", "microgpt"):
        with pytest.raises(TfxError, match=r"tfx\.load\('DIR'\)") as caught:
            tfx.load(name, backend="numpy")
        assert "--" not in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_of_ids_are_texts_wherever_texts_are_read(model: LanguageModel) -> None:
    ids = np.array([[5, 6, 7], [8, 9, 10]])
    several = model.logits([ids[0], ids[1, :2]])
    assert [x.shape for x in several] == [(3, 768), (2, 768)]
    wrapped = type("Ids", (), {"__array__": lambda self, *_, **__: ids})()
    for given in (ids, wrapped):
        found = [text.token_ids for text in model.generate(given, max_new_tokens=2)]
        assert found == [x.token_ids for x in model.generate(ids.tolist(), max_new_tokens=2)]
        np.testing.assert_allclose(model.logits(given), model(given).logits, rtol=1e-4, atol=1e-4)
