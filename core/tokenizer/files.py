"""Reading a byte-level BPE tokenizer from the files that come with a checkpoint.

`tokenizer.json` is the file of the `tokenizers` library. `vocab.json` with `merges.txt` is GPT-2's
own form, which OpenAI calls `encoder.json` and `vocab.bpe`; small files beside them may name
special tokens. They come from strangers: each is read whole or refused, file and fault named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tfx.core.errors import TokenizerError
from tfx.core.files import open_regular, reason, shown
from tfx.core.json_file import read_object
from tfx.core.tokenizer.bpe import ByteLevelBPE
from tfx.core.wording import kind_of, quoted

MAX_FILE = 64 * 1024 * 1024
"""Longest file read, in bytes; the longest of GPT-2 takes four million."""

END_OF_TEXT = "<|endoftext|>"
"""What ends a text, and is a special token, where no file says otherwise."""

_MERGES_OF = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}

_HARMLESS: dict[str, tuple[object, ...]] = {
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}
"""What a model in `tokenizer.json` may have set, and the values that change nothing."""

_ROLES = [f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
"""Under which names `transformers` keeps special tokens."""


T = TypeVar("T")


@dataclass
class _Parts:
    """What a tokenizer is made of, as the constructor of `ByteLevelBPE` takes it."""

    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    special_tokens: set[str] = field(default_factory=set)
    added_tokens: set[str] = field(default_factory=set)
    eos_token: str | None = END_OF_TEXT
    add_prefix_space: bool = False


def load_tokenizer(path: str | Path) -> ByteLevelBPE:
    """Read the tokenizer in a folder, or that of a `tokenizer.json` or `vocab.json`.

    In a folder that has both, `tokenizer.json` is read, as it says more. Beside them,
    `tokenizer_config.json` and `special_tokens_map.json` may set `add_prefix_space` and name
    special tokens, the one that ends a text among them; `added_tokens.json` may go with a
    `vocab.json`. Truncation and padding are no part of a tokenizer here.

    Raises:
        TokenizerError: there is no tokenizer, it is of another kind, or a file is damaged.
    """
    file = Path(path)
    if file.is_dir():
        file = _tokenizer_in(file)
    content = _read_object(file)
    if isinstance(content.get("model"), dict):
        with _naming(file):
            parts = _from_tokenizers(content)
    else:
        parts = _from_vocab(content, file)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (beside := file.with_name(name)).exists():
            settings = _read_object(beside)
            with _naming(beside):
                _apply(settings, parts)
    if parts.eos_token not in parts.special_tokens:
        parts.eos_token = None
    with _naming(file):
        return ByteLevelBPE(**vars(parts))


def _tokenizer_in(folder: Path) -> Path:
    for name in ("tokenizer.json", *_MERGES_OF):
        if (file := folder / name).exists():
            return file
    raise TokenizerError(
        f"{shown(folder)}: no tokenizer in this folder; "
        "expected tokenizer.json, or vocab.json with merges.txt"
    )


# ---- the forms a tokenizer comes in --------------------------------------------------------------


def _from_tokenizers(content: dict[str, Any]) -> _Parts:
    """The parts in a `tokenizer.json`; `TokenizerError` if it would do more than `ByteLevelBPE`."""
    model = content["model"]
    if model.get("type", "BPE") != "BPE":
        raise TokenizerError(f"its model is {model['type']!r}; only byte-level BPE is read")
    for name, harmless in _HARMLESS.items():
        if model.get(name) not in harmless:
            raise TokenizerError(f"its model has {name} set; only plain byte-level BPE is read")
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        _check_step(name, content.get(name))

    parts = _Parts(_get(model, "vocab", dict), _pairs(_get(model, "merges", list)))
    parts.add_prefix_space = _get(content["pre_tokenizer"], "add_prefix_space", bool)
    for entry in _get(content, "added_tokens", list, default=[]):
        _add(parts, entry, _get(entry, "id", int))
    return parts


def _check_step(name: str, step: Any) -> None:
    """Refuse what would change texts or ids on the way to the model or back."""
    if step is None and name != "pre_tokenizer":
        return
    kind = step.get("type") if isinstance(step, dict) else None
    if kind != "ByteLevel" or name == "normalizer":
        expected = "none" if name == "normalizer" else "ByteLevel"
        raise TokenizerError(f"its {name} is {kind or kind_of(step)}; expected {expected}")
    if name == "pre_tokenizer" and not _get(step, "use_regex", bool, default=True):
        raise TokenizerError("its pre_tokenizer has use_regex off; expected it on")


def _from_vocab(vocab: dict[str, Any], file: Path) -> _Parts:
    """The parts in a `vocab.json` and the files that go with it."""
    merges_file = file.with_name(_MERGES_OF.get(file.name, "merges.txt"))
    text = _read(merges_file).replace("\r\n", "\n").rstrip("\n")
    lines = text.split("\n") if text else []
    if lines and lines[0].startswith("#version"):
        del lines[0]
    with _naming(merges_file):
        parts = _Parts(vocab, _pairs(lines))
    if END_OF_TEXT in vocab:
        parts.special_tokens.add(END_OF_TEXT)
    if (beside := file.with_name("added_tokens.json")).exists():
        added = _read_object(beside)
        with _naming(beside):
            for token in added:
                _add(parts, token, _get(added, token, int))
    return parts


def _pairs(merges: list[Any]) -> list[tuple[str, str]]:
    """Merges as pairs; each is given as `"a b"` or as `["a", "b"]`."""
    pairs = []
    for number, merge in enumerate(merges, 1):
        left = right = ""
        if isinstance(merge, str):
            left, _, right = merge.partition(" ")
        elif isinstance(merge, list) and list(map(type, merge)) == [str, str]:
            left, right = merge
        if not left or not right or " " in right:
            raise TokenizerError(f"merge {number} is {repr(merge)[:100]}; expected two tokens")
        pairs.append((left, right))
    return pairs


def _apply(settings: dict[str, Any], parts: _Parts) -> None:
    """Take over what a `tokenizer_config.json` or `special_tokens_map.json` says."""
    for name in ("add_bos_token", "add_eos_token"):
        if settings.get(name):
            raise TokenizerError(f"{name} is set; expected a tokenizer that adds no tokens")
    parts.add_prefix_space = _get(
        settings, "add_prefix_space", bool, default=parts.add_prefix_space
    )
    for number, entry in _get(settings, "added_tokens_decoder", dict, default={}).items():
        if not (number.isascii() and number.isdecimal()):
            raise TokenizerError(f"added_tokens_decoder has {quoted(number)} for an id")
        _add(parts, entry, int(number))
    named = [(role, settings[role]) for role in _ROLES if settings.get(role) is not None]
    for name in ("additional_special_tokens", "extra_special_tokens"):
        more = settings.get(name)
        if not isinstance(more, dict):
            more = dict(enumerate(_get(settings, name, list, default=[])))
        named += [(f"an entry of {name}", entry) for entry in more.values()]
    parts.special_tokens.update(_text_of(entry, name) for name, entry in named)
    if "eos_token" in settings:
        end = settings["eos_token"]
        parts.eos_token = None if end is None else _text_of(end, "eos_token")


def _add(parts: _Parts, entry: Any, number: int) -> None:
    """Add a token that is found whole: its text, or what `tokenizers` says of it."""
    token = _text_of(entry)
    if (known := parts.vocab.setdefault(token, number)) != number:
        raise TokenizerError(
            f"the added token {quoted(token)} has the id {number}, in the vocabulary {known!r}"
        )
    special = _get(entry, "special", bool, default=False) if isinstance(entry, dict) else None
    (parts.special_tokens if special else parts.added_tokens).add(token)
    if special is False:  # said so, whatever was taken for granted
        parts.special_tokens.discard(token)


def _text_of(entry: Any, name: str = "an added token") -> str:
    """The text of a token that is found whole; an error calls the entry by `name`."""
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, dict):
        raise TokenizerError(f"{name} is {kind_of(entry)}; expected its text, or a dict with it")
    token = _get(entry, "content", str)
    for name in ("lstrip", "rstrip", "single_word"):
        if _get(entry, name, bool, default=False):
            raise TokenizerError(f"the token {quoted(token)} has {name} set; expected it off")
    return token


# ---- reading -------------------------------------------------------------------------------------


def _get(owner: Any, name: str, kind: type[T], default: T | None = None) -> T:
    """The value of that type that an object has under a name; `null` is as good as none."""
    value = owner.get(name) if isinstance(owner, dict) else None
    if value is None:
        value = default
    if type(value) is not kind:
        raise TokenizerError(f"{name} is {kind_of(value)}; expected {kind_of(kind())}")
    return value


def _read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file, no name in it given twice."""
    with _naming(file):
        try:
            return read_object(file, MAX_FILE)
        except (OSError, ValueError) as error:
            raise TokenizerError(reason(error)) from None


def _read(file: Path) -> str:
    with _naming(file):
        try:
            with open_regular(file) as opened:
                data = opened.read(MAX_FILE + 1)
            if len(data) > MAX_FILE:
                raise TokenizerError(f"longer than {MAX_FILE} bytes; no tokenizer is")
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"not UTF-8 text: {error.reason} at byte {error.start}") from None
        except (OSError, ValueError) as error:
            raise TokenizerError(reason(error)) from None


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Put the name of the file before what is wrong with it."""
    try:
        yield
    except TokenizerError as fault:
        raise TokenizerError(f"{shown(file)}: {fault}") from None
