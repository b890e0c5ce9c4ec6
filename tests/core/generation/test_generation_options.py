"""Options: every value that makes no sense is refused in one line that names it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tfx.core.errors import OptionError, UsageError
from tfx.core.generation.options import GenerationOptions

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("max_new_tokens", {"max_new_tokens": 0}, "0: expected a whole number from 1 to 2147483647"),
    (
        "max_new_tokens",
        {"max_new_tokens": 2.0},
        "2.0: expected a whole number from 1 to",
    ),
    (
        "max_new_tokens",
        {"max_new_tokens": True},
        "True: expected a whole number from 1 to",
    ),
    ("max_new_tokens", {"max_new_tokens": 2**31}, "2147483648: expected a whole number from 1 to"),
    ("min_new_tokens", {"min_new_tokens": -1}, "-1: expected a whole number from 0 to 2147483647"),
    ("min_new_tokens", {"min_new_tokens": 51}, "51: expected at most max_new_tokens, 50"),
    ("temperature", {"temperature": -0.5}, "-0.5: expected a number from 0 up"),
    ("temperature", {"temperature": math.nan}, "nan: expected a number from 0 up"),
    ("temperature", {"temperature": math.inf}, "inf: expected a number from 0 up"),
    ("temperature", {"temperature": "hot"}, "'hot': expected a number from 0 up"),
    ("top_k", {"top_k": -1}, "-1: expected a whole number from 0 up"),
    ("top_p", {"top_p": 1.01}, "1.01: expected a number from 0 to 1"),
    ("min_p", {"min_p": -0.1}, "-0.1: expected a number from 0 to 1"),
    ("repetition_penalty", {"repetition_penalty": 0.0}, "0.0: expected a number above 0"),
    ("no_repeat_ngram_size", {"no_repeat_ngram_size": -2}, "-2: expected a whole number"),
    ("num_beams", {"num_beams": 0}, "0: expected a whole number from 1 up"),
    ("length_penalty", {"length_penalty": -11}, "-11: expected a number from -10 to 10"),
    ("early_stopping", {"early_stopping": "always"}, "'always': expected True, False or 'never'"),
    ("early_stopping", {"early_stopping": 1}, "1: expected True, False or 'never'"),
    ("num_samples", {"num_samples": 0}, "0: expected a whole number from 1 up"),
    ("num_samples", {"num_samples": 2}, "2: expected 1 at temperature 0"),
    ("num_samples", {"num_samples": 5, "num_beams": 4}, "5: expected at most num_beams, 4"),
    ("temperature", {"temperature": 0.8, "num_beams": 4}, "0.8: expected 0 with num_beams"),
    ("eos_ids", {"eos_ids": [3]}, "[3]: expected a tuple of token ids"),
    ("eos_ids", {"eos_ids": (3, -1)}, "(3, -1): expected a tuple of token ids"),
    ("stop", {"stop": "end"}, "'end': expected a tuple of strings"),
    ("stop", {"stop": ("end", "")}, "'' would end every text at once; expected some text, or none"),
    ("stop", {"stop": ("{stop}", 3)}, "('{stop}', 3): expected a tuple of strings"),
    ("seed", {"seed": -1}, "-1: expected a whole number from 0 to 18446744073709551615"),
    ("seed", {"seed": 2**64}, "18446744073709551616: expected a whole number"),
    ("logprobs", {"logprobs": -1}, "-1: expected a whole number from 0 up"),
    ("window", {"window": 16}, "16: expected True or False"),
]


@pytest.mark.parametrize(("field", "given", "message"), WRONG, ids=lambda x: str(x)[:30])
def test_what_makes_no_sense_is_refused(field: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        GenerationOptions(**given)
    assert str(caught.value).startswith(f"{field} {message}")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, OptionError)
    spelled = caught.value.spelled(lambda name: f"<{name}>")
    assert type(spelled) is UsageError
    assert str(spelled).startswith(f"<{field}> {message[:12]}")


def test_every_option_in_a_message_is_spelled() -> None:
    with pytest.raises(OptionError) as caught:
        GenerationOptions(min_new_tokens=51)
    spelled = caught.value.spelled(str.upper)
    assert str(spelled) == "MIN_NEW_TOKENS 51: expected at most MAX_NEW_TOKENS, 50"


def test_what_makes_sense_is_taken_as_it_is() -> None:
    GenerationOptions()
    GenerationOptions(
        temperature=1, top_k=50, top_p=0, min_p=1, repetition_penalty=0.5, num_samples=3,
        seed=2**64 - 1, logprobs=0, eos_ids=(1, 2), stop=("a",),
    )  # fmt: skip
    GenerationOptions(num_beams=3, num_samples=3, length_penalty=-1, early_stopping="never")
    GenerationOptions(top_k=np.int64(5), top_p=np.float32(0.5))  # type: ignore[arg-type]
