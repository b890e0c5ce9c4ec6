"""A tokenizer beside the weights is the model's own, or is refused; a doubt is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_checkpoints import END, TOKENS, write_gpt2

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.dtypes import DType
from tfx.core.errors import TokenizerError
from tfx.core.parameters import borrowed
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.weights import read_pretrained


@pytest.fixture
def notes() -> list[str]:
    return []


def load(folder: Path, notes: list[str], **config: Any) -> LanguageModel:
    """A model beside a tokenizer whose texts end with END, its last token."""
    return LanguageModel.load(write_gpt2(folder, **config), NumpyBackend(), notes.append)


def test_on_numpy_the_weights_are_those_of_the_file(tmp_path: Path) -> None:
    """Not a copy: read-only views of a map, and of the very one that was opened."""
    folder = write_gpt2(tmp_path / "gpt")
    for tensor in LanguageModel.load(folder, NumpyBackend(), print).params.values():
        assert not tensor.data.flags.owndata and not tensor.data.flags.writeable
    found = read_pretrained(folder, print)
    params = borrowed(found.tensors, NumpyBackend(), DType.float32)
    for name, stored in found.tensors.items():
        assert np.shares_memory(params[name].data, stored.array), name


@pytest.mark.parametrize("end", [END, [3, END], None, [], 50256])
def test_a_tokenizer_that_ends_texts_as_the_model_does(
    tmp_path: Path, notes: list[str], end: Any
) -> None:
    ends = tuple(end) if isinstance(end, list) else end
    model = load(tmp_path / "gpt", notes, eos_token_id=ends)
    assert model.tokenizer is not None
    assert model.tokenizer.eos_id == END
    assert notes == []


@pytest.mark.parametrize("end", [3, END + 1, (3, 4)])
def test_a_tokenizer_that_ends_texts_otherwise(
    tmp_path: Path, notes: list[str], end: int | tuple[int, ...]
) -> None:
    said = "3 and 4" if isinstance(end, tuple) else str(end)
    with pytest.raises(TokenizerError) as caught:
        load(tmp_path / "gpt", notes, vocab_size=END + 2, eos_token_id=end)
    assert str(caught.value) == (
        f"with the tokenizer in {tmp_path / 'gpt'} a text ends with token {END}, with the model "
        f"{said}: they do not belong together; if they do, change eos_token_id in its config.json"
    )


def test_another_special_token_may_end_texts(tmp_path: Path, notes: list[str]) -> None:
    folder = write_gpt2(tmp_path / "gpt", vocab_size=END + 2, eos_token_id=END + 1)
    (folder / "added_tokens.json").write_text(f'{{"<|done|>": {END + 1}}}')
    (folder / "special_tokens_map.json").write_text(
        '{"eos_token": "<|endoftext|>", "additional_special_tokens": ["<|done|>"]}'
    )
    model = LanguageModel.load(folder, NumpyBackend(), notes.append)
    assert model.tokenizer is not None
    assert model.tokenizer.eos_id == END


def test_a_tokenizer_with_too_many_tokens(tmp_path: Path, notes: list[str]) -> None:
    with pytest.raises(TokenizerError, match="has 263 tokens, the model 262: they do not belong"):
        load(tmp_path / "gpt", notes, vocab_size=END)


def test_ids_for_padding_are_fine_and_many_more_are_told(tmp_path: Path, notes: list[str]) -> None:
    load(tmp_path / "padded", notes, vocab_size=len(TOKENS) + 1000)
    assert notes == []
    load(tmp_path / "other", notes, vocab_size=len(TOKENS) + 1001)
    assert notes == [
        f"the tokenizer of {tmp_path / 'other'} has 263 tokens, the model 1264: "
        "do they belong together?"
    ]
