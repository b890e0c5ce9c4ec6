"""What `tfx run gpt2` guesses ahead by: the text itself, or a smaller GPT-2."""

from __future__ import annotations

from pathlib import Path

from tfx.core.errors import TfxError, UsageError
from tfx.core.generation import Speculation
from tfx.core.recipe import Reporter, RunSettings
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.request import in_flags


def check_speculation(settings: RunSettings) -> None:
    """Raise `UsageError` for flags of speculation that do not go together."""
    sources = [name for name in ("prompt_lookup", "draft") if getattr(settings, name)]
    if len(sources) > 1:
        raise UsageError("--prompt-lookup and --draft both guess the next tokens; leave one out")
    if not sources:
        if settings.num_draft_tokens is not None:
            raise UsageError(
                "--num-draft-tokens is for tokens that are guessed; add --prompt-lookup, or --draft"
            )
    elif (settings.num_beams or 1) > 1:
        raise UsageError(
            f"{settings.flag(sources[0])} guesses tokens, and a search with --num-beams takes no "
            "guesses; leave one out"
        )


def speculation_from(
    settings: RunSettings, preset: Preset, model: LanguageModel, report: Reporter
) -> Speculation | None:
    """How tokens are guessed for a model; None where they are not.

    Raises:
        TfxError: the draft model is not to be had, or does not go with the model.
    """
    if not settings.prompt_lookup and settings.draft is None:
        return None
    with in_flags(settings):
        speculation = Speculation(length=settings.num_draft_tokens)
    if settings.draft is not None:
        speculation.draft = _draft(Path(settings.draft), preset, model, report)
    return speculation


def _draft(asked: Path, preset: Preset, model: LanguageModel, report: Reporter) -> LanguageModel:
    try:
        path = find_weights(preset, asked, report.note, "--draft")
        draft = LanguageModel.load(path, model.backend, report.note, model.dtype)
    except TfxError as fault:
        raise type(fault)(f"--draft: {fault}") from fault
    if draft.vocab_size != model.vocab_size or not _same_tokens(draft, model):
        raise UsageError(
            f"--draft {asked}: its {draft.vocab_size} tokens are not the {model.vocab_size} of "
            f"{preset.name}; expected a smaller model with the same tokenizer"
        )
    return draft


def _same_tokens(one: LanguageModel, other: LanguageModel) -> bool:
    """Whether ids stand for the same; where a model has no tokenizer, they may."""
    if one.tokenizer is None or other.tokenizer is None:
        return True
    return one.tokenizer.vocab == other.tokenizer.vocab
