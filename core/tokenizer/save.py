"""Writing a tokenizer as the files that come with a checkpoint.

`tfx.core.tokenizer.files` reads them back, as do `transformers` and, of `tokenizer.json`, the
library `tokenizers`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx.core.errors import TokenizerError
from tfx.core.files import make_folder, reason, replace_file, shown
from tfx.core.tokenizer.bpe import ByteLevelBPE
from tfx.core.wording import quoted

MERGES, CONFIG, VOCAB, TOKENIZER = FILES = (
    "merges.txt",
    "tokenizer_config.json",
    "vocab.json",
    "tokenizer.json",
)
"""In the order of writing: whatever is there when it is cut short is no tokenizer, or this one."""


def tokenizer_files(tokenizer: ByteLevelBPE) -> dict[str, bytes]:
    """The files of a tokenizer by name, for a folder of their own or that of a checkpoint.

    `tokenizer.json` has all of it, and so have `vocab.json`, `merges.txt` and
    `tokenizer_config.json` together: who reads either gets the same ids.

    Raises:
        TokenizerError: a merge holds a space or a line feed, which end it in `merges.txt`, or
            what ends a text is no special token, which readers would make it.

    >>> from tfx.core.tokenizer.byte_pairs import ALPHABET
    >>> vocab = {spelled: byte for byte, spelled in enumerate(ALPHABET)}
    >>> files = tokenizer_files(ByteLevelBPE(vocab | {"Ġt": 256}, [("Ġ", "t")]))
    >>> files["merges.txt"].decode()
    '#version: 0.2\\nĠ t\\n'
    """
    if tokenizer.eos_token not in {None, *tokenizer.special_tokens}:
        raise TokenizerError(
            f"{quoted(str(tokenizer.eos_token))} ends a text and is no special token; "
            "a tokenizer that is written must have it among them"
        )
    vocab = dict(sorted(tokenizer.vocab.items(), key=lambda item: item[1]))
    contents = {
        MERGES: _lines(tokenizer.merges),
        CONFIG: _json(_config(tokenizer)),
        VOCAB: _json(vocab),
        TOKENIZER: _json(_description(tokenizer, vocab)),
    }
    return {name: contents[name].encode() for name in FILES}


def save_tokenizer(tokenizer: ByteLevelBPE, folder: str | Path) -> None:
    """Write the files of a tokenizer into a folder, which is made if need be.

    Each is whole or absent, and a tokenizer that is there already is not written over: so no
    folder ever holds parts of two.

    Raises:
        TokenizerError: the folder has such a file, or cannot be written to.
    """
    folder = Path(folder)
    check_free(folder)
    contents = tokenizer_files(tokenizer)
    try:
        make_folder(folder)
        for name, data in contents.items():
            replace_file(folder / name, [data])
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"cannot write a tokenizer to {shown(folder)}: {reason(error)}"
        ) from None


def check_free(folder: Path) -> None:
    """Refuse a folder that has a tokenizer or a part of one, and what is no folder."""
    if folder.exists() and not folder.is_dir():
        raise TokenizerError(f"{shown(folder)} is a file; expected a folder for the tokenizer")
    for name in FILES:
        if (file := folder / name).exists():
            raise TokenizerError(
                f"{shown(file)} is in the way, and no tokenizer is written over; "
                "choose another folder, or remove that one"
            )


def _lines(merges: list[tuple[str, str]]) -> str:
    for left, right in merges:
        if {" ", "\n"} & {*left, *right}:
            raise TokenizerError(
                f"the merge of {quoted(left)} with {quoted(right)} holds a space or a line feed, "
                "which merges.txt cannot have"
            )
    return "".join(f"{line}\n" for line in ("#version: 0.2", *map(" ".join, merges)))


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _description(tokenizer: ByteLevelBPE, vocab: dict[str, int]) -> dict[str, Any]:
    """What `tokenizer.json` holds: all the ids, and each step from a text to them and back."""
    step = {"type": "ByteLevel", "add_prefix_space": tokenizer.add_prefix_space}
    step |= {"trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": tokenizer.merges,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **entry} for i, entry in _whole_tokens(tokenizer).items()],
        "normalizer": None,
        "pre_tokenizer": step,
        "post_processor": step,
        "decoder": step,
        "model": model,
    }


def _config(tokenizer: ByteLevelBPE) -> dict[str, Any]:
    """What `tokenizer_config.json` holds: what `vocab.json` with `merges.txt` does not say."""
    return {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": tokenizer.add_prefix_space,
        "added_tokens_decoder": {str(i): e for i, e in _whole_tokens(tokenizer).items()},
        "bos_token": tokenizer.eos_token,
        "eos_token": tokenizer.eos_token,
        "unk_token": tokenizer.eos_token,
        "clean_up_tokenization_spaces": False,
    }


def _whole_tokens(tokenizer: ByteLevelBPE) -> dict[int, dict[str, Any]]:
    """The tokens that are found whole in a text, by id, as `tokenizers` describes one."""
    whole = tokenizer.special_tokens | tokenizer.added_tokens
    return {
        number: {
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token in tokenizer.special_tokens,
        }
        for token, number in sorted(tokenizer.vocab.items(), key=lambda item: item[1])
        if token in whole
    }
