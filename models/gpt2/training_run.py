"""The training run of a GPT-2: begun from nothing or from weights, kept, and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tfx.core.backend import Backend
from tfx.core.checkpoint import Checkpoint, SavedCheckpoint
from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError, HubError, TokenizerError, UsageError
from tfx.core.evaluation import Evaluations
from tfx.core.files import shown
from tfx.core.optim import TrainState
from tfx.core.parameters import Parameters
from tfx.core.recipe import TrainSettings, computable
from tfx.core.tokenizer import ByteLevelBPE, load_tokenizer
from tfx.core.tokenizer.save import tokenizer_files
from tfx.core.wording import in_words
from tfx.models.gpt2.config import config_json
from tfx.models.gpt2.data import Corpus, Sources, read_corpus
from tfx.models.gpt2.initial import initial_weights
from tfx.models.gpt2.language_model import end_alike, tokenizer_of
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.options import DROPOUTS, NEW_ATTN_PDROP, Options, configured
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.resumption import (
    noted,
    restored,
    restored_state,
    resumed_options,
    take_best_along,
)
from tfx.models.gpt2.weights import NAME, Pretrained, pretrained_in, read_pretrained

Note = Callable[[str], None]


@dataclass
class Run:
    """A training run.

    Attributes:
        options: what was chosen.
        config: what kind of GPT-2 it is.
        tokenizer: None where the data is tokens, and nobody said whose.
        data: where the data is from.
        corpus: what is in there.
        state: parameters and optimizer as far as the run is.
        evaluations: what the evaluations have shown so far.
        done: how many steps that is.
        resumed: the checkpoint it goes on from.
    """

    options: Options
    config: Config
    tokenizer: ByteLevelBPE | None
    data: Path
    corpus: Corpus
    state: TrainState
    evaluations: Evaluations = field(default_factory=Evaluations)
    done: int = 0
    resumed: Path | None = None

    @classmethod
    def begin(cls, preset: Preset, settings: TrainSettings, backend: Backend, note: Note) -> Run:
        """A new run, from random weights or from those of `--weights`."""
        if settings.data is None:
            raise UsageError(
                f"{preset.name} has nothing to learn from; give --data: a text file, a folder of "
                "them, or token files"
            )
        sources = Sources.of(settings.data)
        found = None
        if settings.weights is not None:
            found = read_pretrained(find_weights(preset, settings.weights, note), note)
        tokenizer = _tokenizer(preset, settings.tokenizer, found, sources, note)
        config = _config(preset, settings.overrides, found, tokenizer)
        options = Options.chosen(settings, config, fine_tuning=found is not None)
        dtype = computable(NAME, options.dtype, backend, never={DType.float16})
        corpus = read_corpus(sources, tokenizer, options.val_fraction)
        corpus.check(config.vocab_size, options.block_size, settings.data)
        refuse_vain_patience(options, len(corpus.val) > 0)
        if found is None:
            note("weights: random ones; --weights goes on from others")
        weights = (
            found.floats("training") if found else initial_weights(config, options.seed, dtype)
        )
        state = TrainState.start(Parameters.from_host(weights, backend, dtype))
        return cls(options, config, tokenizer, settings.data, corpus, state)

    @classmethod
    def resume(
        cls, saved: SavedCheckpoint, settings: TrainSettings, backend: Backend, note: Note
    ) -> Run:
        """Take up a saved run where it stopped, bit for bit."""
        found = pretrained_in(saved, note)
        config, tokenizer = found.config, tokenizer_of(found)
        options = resumed_options(saved, config, settings, note)
        data = settings.data or Path(noted(saved, "data"))
        corpus = read_corpus(Sources.of(data), tokenizer, options.val_fraction)
        if corpus.fingerprint() != noted(saved, "tokens"):
            raise CheckpointError(
                f"{shown(data)} is not what {shown(saved.path)} was trained on; "
                "say with --data where that is"
            )
        refuse_vain_patience(options, len(corpus.val) > 0)
        evaluations = restored(Evaluations, saved, "evaluations")
        state = restored_state(saved, found.tensors, options, backend)
        return cls(
            options, config, tokenizer, data, corpus, state, evaluations, saved.step, saved.path
        )

    def checkpoint(self, state: TrainState, done: int) -> Checkpoint:
        """All that `resume` needs, after `done` steps; transformers can load it too."""
        return Checkpoint(
            model=NAME,
            step=done,
            config=config_json(self.config),
            weights=state.params.to_host(),
            optimizer=state.moments(),
            state={
                "options": asdict(self.options),
                "data": str(self.data.absolute()),
                "tokens": self._fingerprint,
                "evaluations": asdict(self.evaluations),
            },
            files=self._files,
        )

    @property
    def tokens_a_step(self) -> int:
        return self.options.grad_accum * self.options.batch_size * self.options.block_size

    @cached_property
    def _fingerprint(self) -> str:
        return self.corpus.fingerprint()

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return tokenizer_files(self.tokenizer) if self.tokenizer else {}

    def take_best_along(self, out: Path) -> None:
        """Copy the best checkpoint so far into the folder of a run that goes on elsewhere."""
        take_best_along(self.resumed, self.done, self.evaluations.best_step, out)


def refuse_vain_patience(options: Options, validated: bool) -> None:
    if options.patience and not (options.eval_every and validated):
        raise UsageError("--set patience: needs --eval-every and validation data")


def _tokenizer(
    preset: Preset, asked: Path | None, found: Pretrained | None, sources: Sources, note: Note
) -> ByteLevelBPE | None:
    """The tokenizer of a new run: the one asked for, that of the weights, or the preset's."""
    if asked is not None:
        given = load_tokenizer(find_weights(preset, asked, note))
        if found is not None:
            refuse_other_tokenizer(given, asked, found)
        return given
    if found is not None and (tokenizer := tokenizer_of(found)) is not None:
        return tokenizer
    if sources.are_tokens:
        return None  # the ids may be anybody's
    if found is not None:
        raise TokenizerError(f"{shown(found.path)} has no tokenizer; give one with --tokenizer")
    try:
        return load_tokenizer(find_weights(preset, None, note))
    except HubError as fault:
        raise HubError(f"no tokenizer, as {fault}; or give one with --tokenizer DIR") from None


def refuse_other_tokenizer(given: ByteLevelBPE, asked: Path, found: Pretrained) -> None:
    """Refuse a tokenizer with other tokens than the one that came with weights."""
    own = None
    with suppress(TokenizerError):  # a damaged or foreign one is what another is given for
        own = tokenizer_of(found)
    if own is not None and (given.vocab, given.merges) != (own.vocab, own.merges):
        raise TokenizerError(
            f"--tokenizer {shown(asked)} has other tokens than the one that belongs to the weights "
            f"in {shown(found.path)}; leave it out"
        )


def config_of(found: Pretrained, overrides: Mapping[str, str]) -> Config:
    """The configuration of weights, of which `--set` may change the dropouts."""
    config = configured(found.config, overrides)
    for name, before in asdict(found.config).items():
        asked = getattr(config, name)
        if asked != before and name not in DROPOUTS:
            raise UsageError(
                f"--set {name}={asked}: the weights in {shown(found.path)} are of a model "
                f"with {before}; leave it out"
            )
    return config


def _config(
    preset: Preset,
    overrides: Mapping[str, str],
    found: Pretrained | None,
    tokenizer: ByteLevelBPE | None,
) -> Config:
    """The configuration of a new run: of the weights, or the preset's with the vocabulary of the
    tokenizer; then `--set`."""
    if found is not None:
        config = config_of(found, overrides)
    else:
        base = replace(preset.config, attn_pdrop=NEW_ATTN_PDROP)
        if tokenizer is not None:
            end = tokenizer.eos_id
            base = replace(
                base, vocab_size=tokenizer.vocab_size, bos_token_id=end, eos_token_id=end
            )
        config = configured(base, overrides)
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise TokenizerError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {config.vocab_size} "
            "(vocab_size): they do not go together"
        )
    if tokenizer is not None and not end_alike(tokenizer, config):
        raise TokenizerError(
            f"with the tokenizer a text ends with token {tokenizer.eos_id}, with the model "
            f"{in_words(map(str, config.eos_ids))} (eos_token_id): they do not go together"
        )
    return config
