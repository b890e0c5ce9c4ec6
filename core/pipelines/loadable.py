"""What a model plugin hands over so that Python code can hold its model: `tfx.load` and
`tfx.pipeline` are made of this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from tfx.core.backend import Backend
from tfx.core.generation import CausalModel
from tfx.core.pipelines.inside import Inside
from tfx.core.recipe import Settings, Theta
from tfx.core.tensor import Tensor

FEATURES = "feature-extraction"


@dataclass
class LoadSettings(Settings):
    """What is asked of a recipe's `load`. None means: not given, the recipe's default holds.

    Attributes:
        weights: a file or folder, or a repository of the Hub; None for the recipe's own.
        task: the head that is wanted, by the name of its pipeline; `FEATURES` for hidden states
            of whichever model; None for the language model.
    """

    weights: Path | None = None
    task: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    quantize_embeddings: str | None = None
    group_size: int | None = None
    kv_dtype: str | None = None
    theta: Theta | None = None

    def flag(self, name: str) -> str:
        """How the setting `name` is spelled in Python."""
        return name


class Codec(Protocol):
    """From text to token ids and back."""

    def encode(self, text: str) -> Iterable[int]:
        """The ids of a text; `TfxError` for one that the model cannot read."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; for bytes that make no character yet, a replacement."""

    def piece(self, token: int) -> bytes:
        """What one token stands for, in UTF-8: a text is what its tokens' bytes make together."""


@dataclass(frozen=True, eq=False)
class Head:
    """What makes an answer of a text.

    Attributes:
        task: the name of its pipeline; "multiple-choice" has none.
        scores: of ids (B, T) and what of them is visible, bool (B, T): for
            `text-classification` one tensor (B, labels), for `token-classification` one
            (B, T, labels), for `question-answering` two (B, T), of each token as the first and as
            the last of an answer. Padding is on the right.
        labels: names of the classes.
        kind: of classes of texts: whether one of them is right (`one`), any number (`many`), or a
            number is predicted for each (`numbers`).
        end: the token to read behind a context, which stands for "no answer", and to read in place
            of a text without tokens.
    """

    task: str
    scores: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    labels: tuple[str, ...] = ()
    kind: Literal["one", "many", "numbers"] = "one"
    end: int = 0


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that is ready to use.

    Attributes:
        backend: what it computes on.
        max_positions: how many tokens of a text it can read.
        causal: what goes on from texts; None for a head without a language model.
        codec: text to ids; None where the weights came without.
        hidden: of ids (B, T) and what of them is visible, or None for all: the last hidden states
            (B, T, C); None where they are not to be had.
        head: for the task that was asked for.
        eos_ids: tokens that end a text.
        begin: the token to go on from where a text is empty; None where there is none.
        save: writes the model to a new folder; None where it cannot be written.
        inside: what can be seen of it and changed in it.
    """

    backend: Backend
    max_positions: int
    causal: CausalModel | None = None
    codec: Codec | None = None
    hidden: Callable[[Tensor, Tensor | None], Tensor] | None = None
    head: Head | None = None
    eos_ids: tuple[int, ...] = ()
    begin: int | None = None
    save: Callable[[Path], None] | None = None
    inside: Inside = field(default_factory=Inside)


@runtime_checkable
class Loadable(Protocol):
    """A recipe whose model Python code can hold.

    `note` is called with a line that the user should know. Raises `TfxError` for what the user can
    mend, such as a task that the weights have no head for.
    """

    def load(
        self, settings: LoadSettings, backend: Backend, note: Callable[[str], None]
    ) -> Loaded: ...
