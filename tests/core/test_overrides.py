"""What `--set` may say of a model's settings."""

from __future__ import annotations

import pytest

from tfx.core.errors import UsageError
from tfx.core.overrides import no_such_setting, number_set


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("3", int, 3), ("-3", int, -3), ("3", float, 3.0), ("1e-3", float, 0.001)],
)
def test_a_number(text: str, kind: type, value: float) -> None:
    found = number_set("x", text, kind)
    assert found == value
    assert type(found) is kind


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        *((text, int, "a whole number") for text in ("", "two", "1.5", "1e3", "inf")),
        *((text, float, "a number") for text in ("", "two", "nan", "-inf", "1e999")),
        ("9" * 400, int, "a whole number"),
    ],
)
def test_what_is_no_number(text: str, kind: type, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        number_set("x", text, kind)
    assert str(caught.value) == f"--set x={text}: expected {expected}"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("n_layers", "Did you mean 'n_layer'?"),
        ("xyzzy", "There are n_layer, eps."),
        ("batch_size", "It is a flag: --batch-size."),
    ],
)
def test_what_is_no_setting(key: str, hint: str) -> None:
    error = no_such_setting("acme", key, ["n_layer", "eps"], {"batch_size"})
    assert str(error) == f"--set {key}: acme has no such setting. {hint}"
