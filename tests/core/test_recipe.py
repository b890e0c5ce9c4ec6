"""Settings of the commands: what was given, and what is refused."""

from __future__ import annotations

import pytest

from tfx.core.errors import UsageError
from tfx.core.recipe import RunSettings, TrainSettings


def test_given_leaves_out_what_was_not_given_but_not_zero() -> None:
    assert TrainSettings(steps=0, lr=0.1).given() == {"steps": 0, "lr": 0.1}
    assert RunSettings(prompt="", stop=("a",)).given() == {"prompt": "", "stop": ("a",)}


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        (TrainSettings(batch_size=2), "--batch-size"),
        (TrainSettings(overrides={"a": "1"}), "--set"),
        (RunSettings(stop=("a",)), "--stop"),
    ],
)
def test_a_setting_without_use_is_refused_by_its_flag(
    settings: TrainSettings | RunSettings, flag: str
) -> None:
    with pytest.raises(UsageError, match=f"^acme has no use for {flag}; leave it out$"):
        settings.refuse_unsupported("acme", frozenset({"steps"}))
    settings.refuse_unsupported("acme", frozenset(settings.given()))
