"""The kit under test: every backend with a fault is caught, and at the level where it belongs."""

from __future__ import annotations

from collections.abc import Iterator

import broken_behaviour  # noqa: F401 (enters its faults)
import broken_kernels  # noqa: F401
import broken_values  # noqa: F401
import pytest
from broken_backends import BROKEN, Broken
from broken_gradients import TapeBackend

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.testing import Level, Subject, run

each = pytest.mark.parametrize("broken", BROKEN, ids=str)
BEFORE_OVERHEAD = [level for level in Level if level < Level.OVERHEAD]


@pytest.fixture(scope="module")
def score(request: pytest.FixtureRequest) -> Iterator[dict[Broken, str]]:
    """What each backend was caught by; printed when all have been."""
    caught: dict[Broken, str] = {}
    yield caught
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print()
        for broken, message in sorted(caught.items(), key=lambda item: item[0].level):
            print(f"{broken.level} {broken.fault}\n   {message}")
        print(f"{len(caught)} of {len(BROKEN)} broken backends caught, each at its level")


def test_there_are_many_of_every_level() -> None:
    assert len({str(broken) for broken in BROKEN}) == len(BROKEN) >= 25
    assert {broken.level for broken in BROKEN} == set(BEFORE_OVERHEAD)


@each
def test_a_broken_backend_is_caught(broken: Broken, score: dict[Broken, str]) -> None:
    failures = run(broken.subject(), [broken.level], broken.check).failures
    assert failures, f"nothing finds that: {broken.fault}"
    score[broken] = f"{failures[0].name}: {failures[0].message}"


@pytest.mark.slow
@each
def test_levels_below_pass(broken: Broken) -> None:
    below = [level for level in Level if level < broken.level]
    failures = run(broken.subject(), below).failures if below else []
    # What dropout draws is another where the generator is, which has its own checks further up.
    about_bits = broken.check.startswith(("random bits", "a counter"))
    assert [x for x in failures if not (about_bits and x.name.startswith("dropout_factor"))] == []


@pytest.mark.slow
@pytest.mark.parametrize("sound", [NumpyBackend, TapeBackend])
def test_a_sound_backend_passes(sound: type[Backend]) -> None:
    result = run(Subject("numpy", sound), BEFORE_OVERHEAD)
    assert list(result.passed) == BEFORE_OVERHEAD, result.failures
