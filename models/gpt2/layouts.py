"""The forms in which a GPT-2 is stored, all read as the one that `Config.shapes` describes.

| from | names | matrices | head |
|---|---|---|---|
| transformers | `h.0.attn...` or `transformer.h.0.attn...` | (inputs, outputs) | mostly tied |
| nanoGPT | `transformer...`; `_orig_mod.` before it if compiled | (outputs, inputs) | tied |
| minGPT | `transformer...` | (outputs, inputs) | of its own |

Any of them may have `w_q`, `w_k` and `w_v` in place of `c_attn`. What has another form is made
over when it is asked for: nothing is read before, and what only lies otherwise stays a view.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfx.core.errors import CheckpointError, WeightsError
from tfx.core.storage import Form, Storage
from tfx.core.weights import StoredTensor
from tfx.core.wording import quoted
from tfx.models.gpt2.model import Config

HEAD, TOKENS = "lm_head.weight", "wte.weight"

# Old files hold the causal mask, which is no parameter.
_MASK = re.compile(r"h\.[0-9]+\.attn\.(masked_)?bias")
_PREFIX = re.compile(r"(_orig_mod\.)?(transformer\.)?")
_APART = ("w_q", "w_k", "w_v")
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
_SHOWN = 5  # of each kind of fault


@dataclass(frozen=True)
class Source:
    """How one of our tensors is made of a file's.

    Attributes:
        names: of those side by side in it, along the last axis; none for zeros.
        turned: whether each is to be transposed first.
    """

    names: tuple[str, ...]
    turned: bool = False


class Arranged(Mapping[str, StoredTensor]):
    """The tensors of a file under our names and in our form, made over when asked for."""

    def __init__(
        self,
        stored: Mapping[str, StoredTensor],
        sources: Mapping[str, Source],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._stored, self._sources, self._shapes = stored, sources, shapes

    def __getitem__(self, name: str) -> StoredTensor:
        source, shape = self._sources[name], self._shapes[name]
        if not source.names:
            like = self._stored[self._sources[TOKENS].names[0]]
            return StoredTensor(like.dtype, np.zeros(shape, like.array.dtype))
        parts = [self._stored[part] for part in source.names]
        if len(parts) == 1 and not source.turned:
            return parts[0]
        arrays = [part.array.T if source.turned else part.array for part in parts]
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
        return StoredTensor(parts[0].dtype, array)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def translated(
    data: Mapping[str, Any], origin: str, note: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """A nanoGPT's or minGPT's configuration in transformers' words, any other as it is; and
    whether the model has biases.

    Neither says which activation it has: nanoGPT's is the exact gelu, minGPT's the one by tanh.

    Raises:
        CheckpointError: `bias` is neither true nor false.
    """
    words, biases = dict(data), True
    if "block_size" not in words:
        return words, biases
    if words.keys() & {"model_type", "embd_pdrop", "resid_pdrop", "attn_pdrop"}:
        program = "minGPT"
        defaults = {"activation_function": "gelu_new", "tie_word_embeddings": False}
        words.pop("model_type", None)  # the name of a size
    else:
        program = "nanoGPT"
        defaults = {"activation_function": "gelu"}
        defaults |= dict.fromkeys(_DROPOUTS, words.pop("dropout", 0.0))
        biases = words.pop("bias", True)
        if not isinstance(biases, bool):
            raise CheckpointError(f"{origin}: bias is {repr(biases)[:100]}; expected true or false")
    defaults |= {"n_positions": words.pop("block_size"), "bos_token_id": None, "eos_token_id": None}
    words = defaults | words
    activation = words["activation_function"]
    note(f"{origin}: read as {program} has it, with activation_function {activation}")
    return words, biases


def arranged(
    stored: Mapping[str, StoredTensor],
    config: Config,
    biases: bool,
    note: Callable[[str], None],
    beside: Mapping[str, tuple[int, ...]] = {},
) -> tuple[Config, Arranged]:
    """The tensors of a file in our form, and the configuration, which may find its head untied.

    Args:
        stored: what a file holds, under its own names.
        config: what the file is said to hold.
        biases: whether it has any; where not, those that are missing are zeros.
        note: told what is taken otherwise than `config` says.
        beside: the shapes of what else it is said to hold, by our names.

    Raises:
        WeightsError: tensors are missing, unexpected, or of the wrong shape or dtype, all listed.
            The file is not named, as it is not known here.
    """
    names = _plain_names(stored)
    config = _settle_head(names, stored, config, note)
    shapes = {**config.shapes(), **beside}
    turned = _outputs_first(names, stored, shapes)
    sources = {}
    for name, shape in shapes.items():
        parts = _parts(name, names)
        if parts or (name.endswith(".bias") and not biases):
            sources[name] = Source(parts, bool(turned) and _is_matrix(name, shape))
    used = {part for source in sources.values() for part in source.names}
    faults = {
        "missing": [name for name in shapes if name not in sources],
        "unexpected": [quoted(name) for name in names.values() if name not in used],
        "wrong": list(_misfits(stored, sources, shapes)),
    }
    if any(faults.values()):
        raise WeightsError(
            "; ".join(f"{kind}: {_listed(found)}" for kind, found in faults.items() if found)
        )
    if turned is None and any(len(source.names) > 1 for source in sources.values()):
        raise WeightsError(
            "as every matrix is square, nothing tells (inputs, outputs) from (outputs, inputs); "
            f"join {', '.join(_APART)} into c_attn"
        )
    return config, Arranged(stored, sources, shapes)


def _plain_names(stored: Iterable[str]) -> dict[str, str]:
    """The file's names by those without a prefix; masks left out."""
    names: dict[str, str] = {}
    for name in stored:
        plain = _PREFIX.sub("", name, count=1)
        if _MASK.fullmatch(plain):
            continue
        if plain in names:
            raise WeightsError(f"{quoted(names[plain])} and {quoted(name)} are the same tensor")
        names[plain] = name
    return names


def _settle_head(
    names: dict[str, str],
    stored: Mapping[str, StoredTensor],
    config: Config,
    note: Callable[[str], None],
) -> Config:
    """Drop the second name of a tied head, as transformers does when it loads: whichever of the
    two is there counts for both, and where they differ the configuration is wrong."""
    if not config.tie_word_embeddings or HEAD not in names:
        return config
    if TOKENS not in names:
        names[TOKENS] = names.pop(HEAD)
    elif _equal(stored[names[TOKENS]], stored[names[HEAD]]):
        del names[HEAD]
    else:
        note(f"{HEAD} differs from {TOKENS}, so it is used, though tie_word_embeddings is true")
        return replace(config, tie_word_embeddings=False)
    return config


def _equal(a: StoredTensor, b: StoredTensor) -> bool:
    """Whether two tensors are the same; looks at a few rows at a time."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    starts = range(0, len(a.array) if a.shape else 0, 1024)
    return all(np.array_equal(a.array[i : i + 1024], b.array[i : i + 1024]) for i in starts)


def _parts(name: str, names: Mapping[str, str]) -> tuple[str, ...]:
    """The file's names of what makes up our tensor; none if the file does not have it."""
    if name in names:
        return (names[name],)
    apart = [name.replace("c_attn", part) for part in _APART]
    return tuple(names[part] for part in apart) if all(part in names for part in apart) else ()


def inputs_first(name: str) -> bool:
    """Whether a matrix, by our name or the file's, is (inputs, outputs) in our form."""
    return _PREFIX.sub("", name, count=1).startswith("h.")


def forms(config: Config, storage: Storage | None) -> dict[str, Form]:
    """What each tensor is kept as: those of matrices and token embeddings are for `storage` to say,
    all others stay floats, positions among them.

    Raises:
        UsageError: a matrix does not suit the storage.
    """
    found: dict[str, Form] = dict.fromkeys(config.shapes())
    if storage is None:
        return found
    for name, shape in config.shapes().items():
        if name in (HEAD, TOKENS):
            found[name] = storage.form(name, shape[1], embedding=True)
        elif _is_matrix(name, shape):
            found[name] = storage.form(name, shape[0], embedding=False)
    return found


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is one that some programs store transposed; embeddings never are."""
    return name.startswith("h.") and len(shape) == 2


def _outputs_first(
    names: Mapping[str, str],
    stored: Mapping[str, StoredTensor],
    shapes: Mapping[str, tuple[int, ...]],
) -> bool | None:
    """Which way round the file has its matrices, by the first that is not square."""
    for name, shape in shapes.items():
        if name in names and _is_matrix(name, shape) and shape != shape[::-1]:
            found = stored[names[name]].shape
            if found in (shape, shape[::-1]):
                return found != shape
    return None


def _misfits(
    stored: Mapping[str, StoredTensor],
    sources: Mapping[str, Source],
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[str]:
    for name, source in sources.items():
        *rows, columns = shapes[name]
        part = (*rows, columns // max(1, len(source.names)))
        expected = part[::-1] if source.turned else part
        dtypes = {stored[piece].dtype for piece in source.names}
        for piece in source.names:
            tensor = stored[piece]
            if tensor.shape != expected:
                yield f"{quoted(piece)} is {list(tensor.shape)}, expected {list(expected)}"
            elif not tensor.dtype.is_float:
                yield f"{quoted(piece)} is {tensor.dtype}, expected floats"
        if len(dtypes) > 1:
            yield f"the parts of {name} are {' and '.join(sorted(dtypes))}, expected one dtype"


def _listed(faults: list[str]) -> str:
    more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return ", ".join(faults[:_SHOWN]) + more
