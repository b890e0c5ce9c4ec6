"""Settings of the commands: what was given, and what is refused."""

from __future__ import annotations

import pytest

from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.recipe import RunSettings, TrainSettings, computable
from tfx.testing import StrictBackend


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


def test_dtypes_to_compute_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TFX_DTYPE", raising=False)
    backend = StrictBackend()
    assert computable("acme", "float16", backend) is DType.float16
    with pytest.raises(UsageError) as caught:
        computable("acme", "bfloat16", backend, never={DType.float16})
    assert str(caught.value) == (
        "acme cannot compute in bfloat16 on strict; choose --dtype float32, float64"
    )
