"""The GPT-2s that have a name: where their weights are, and how large they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfx.core.errors import HubError
from tfx.core.files import shown
from tfx.models.gpt2.model import Config

BUNDLED = Path(__file__).parent / "tiny"
"""The folder of the weights that come with tfx."""


@dataclass(frozen=True)
class Preset:
    """A GPT-2 by name.

    Attributes:
        name: as after `tfx run`.
        config: what a new one is made by.
        source: a repository on the Hugging Face Hub, or a folder.
    """

    name: str
    config: Config
    source: str | Path


PRESETS = {
    name: Preset(name, config, source)
    for name, config, source in (
        (
            "gpt2-tiny",
            Config(vocab_size=768, n_positions=256, n_embd=128, n_layer=4, n_head=4),
            BUNDLED,
        ),
        ("distilgpt2", Config(n_layer=6), "distilbert/distilgpt2"),
        ("gpt2", Config(), "openai-community/gpt2"),
        ("gpt2-medium", Config(n_embd=1024, n_layer=24, n_head=16), "openai-community/gpt2-medium"),
        ("gpt2-large", Config(n_embd=1280, n_layer=36, n_head=20), "openai-community/gpt2-large"),
        ("gpt2-xl", Config(n_embd=1600, n_layer=48, n_head=25), "openai-community/gpt2-xl"),
    )
}


def find_weights(
    preset: Preset,
    asked: Path | None,
    note: Callable[[str], None],
    instead: str = "give a folder with --weights DIR",
) -> Path:
    """The folder or file of the weights: what was asked for, a path, a preset's name or a
    repository on the Hub, else the preset's own. What begins with a folder that is here is a path,
    though it lead nowhere. Errors say what can be done `instead`.

    Raises:
        HubError: a repository that cannot be had; says what to do instead.
    """
    if asked is not None and not asked.exists() and str(asked) in PRESETS:
        preset, asked = PRESETS[str(asked)], None
    if asked is None and isinstance(preset.source, Path):
        return preset.source
    if asked is not None and (asked.exists() or asked.parent.is_dir()):
        return asked
    from tfx.core.hub import is_repo_id, snapshot  # imported for those who have nothing here

    if asked is None:
        try:
            return snapshot(str(preset.source), note)
        except HubError as fault:
            raise HubError(
                f"{fault}, or {instead}, or run gpt2-tiny, which comes with tfx"
            ) from fault
    if not is_repo_id(str(asked)):
        return asked
    try:
        return snapshot(str(asked), note)
    except HubError as fault:
        raise HubError(
            f"there is no folder {shown(asked)} here, and as a repository of the Hub: {fault}, "
            f"or {instead}"
        ) from fault
