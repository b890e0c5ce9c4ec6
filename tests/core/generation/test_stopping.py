"""Where texts end, and what a stream may show of one that goes on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfx.core.errors import UsageError
from tfx.core.generation.options import GenerationOptions
from tfx.core.generation.stopping import Ending, settled

PIECES = ("", "a", "b", "ab", "ba", "aab", "<end>")


def decode(ids: Sequence[int]) -> str:
    return "".join(PIECES[i] for i in ids)


texts = st.lists(st.integers(0, 5), min_size=1, max_size=12)
stops = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple)


@given(texts, stops)
def test_a_text_ends_with_the_token_that_completes_a_stop_string(
    ids: list[int], stop: tuple[str, ...]
) -> None:
    ending = Ending(GenerationOptions(stop=stop), decode)
    for count in range(1, len(ids) + 1):
        text = decode(ids[:count])
        if any(s in text for s in stop):
            assert ending.reason(ids[:count]) == "stop"
            assert ending.text(ids[:count]) == text[: min(text.find(s) for s in stop if s in text)]
            return
        assert ending.reason(ids[:count]) is None
        assert ending.text(ids[:count]) == text


@given(texts, stops)
def test_what_is_shown_is_never_taken_back(ids: list[int], stop: tuple[str, ...]) -> None:
    """What was settled begins the final text, and no more was held back than had to be."""
    ending = Ending(GenerationOptions(stop=stop), decode)
    for count in range(1, len(ids) + 1):
        text = decode(ids[:count])
        if ending.reason(ids[:count]):
            break
        shown = settled(text, stop)
        held = text[len(shown) :]
        assert text.startswith(shown)
        assert not held or any(s.startswith(held) for s in stop)
        for later in range(count, len(ids) + 1):
            final = ending.text(ids[:later])
            assert final is not None
            assert final.startswith(shown)
            if ending.reason(ids[:later]):
                break


def of_bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


@given(
    st.one_of(
        st.text("aé🎈\N{REPLACEMENT CHARACTER}", min_size=1, max_size=30).map(str.encode),
        st.lists(st.sampled_from([*"é🎈".encode(), 97]), min_size=1, max_size=40).map(bytes),
    ),
    st.lists(
        st.text("aé🎈\N{REPLACEMENT CHARACTER}", min_size=1, max_size=3), min_size=1, max_size=3
    ).map(tuple),
)
def test_half_characters_hide_no_stop_string(raw: bytes, stop: tuple[str, ...]) -> None:
    ending = Ending(GenerationOptions(stop=stop, max_new_tokens=200), of_bytes)
    for count in range(1, len(raw) + 1):
        has_stopped = any(s in of_bytes(raw[:count]) for s in stop)
        assert ending.reason(raw[:count]) == ("stop" if has_stopped else None)
        if has_stopped:
            return


def test_a_long_text_is_not_decoded_anew_for_every_token() -> None:
    lengths: list[int] = []
    ending = Ending(
        GenerationOptions(stop=("aab", "<end>"), max_new_tokens=2000),
        lambda ids: lengths.append(len(ids)) or decode(ids),
    )
    text = [2, 2, 1, 0, 4] * 300
    for count in range(1, len(text) + 1):
        assert ending.reason(text[:count]) is None
    assert max(lengths) < 50
    assert ending.reason([*text, 5]) == "stop"


def test_reasons_and_their_order() -> None:
    options = GenerationOptions(max_new_tokens=3, eos_ids=(6,), stop=("<end>", "bb"))
    ending = Ending(options, decode)
    assert ending.reason([1, 1]) is None
    assert ending.reason([1, 1, 1]) == "length"
    assert ending.reason([1, 2, 2]) == "stop"
    assert ending.reason([1, 2, 6]) == "eos"
    assert ending.text([1, 2, 6]) == "ab"
    assert Ending(GenerationOptions()).text([1]) is None


def test_stop_strings_need_a_decoder() -> None:
    with pytest.raises(UsageError, match=r"stop \('x',\): no decoder makes text to find it in"):
        Ending(GenerationOptions(stop=("x",)))
