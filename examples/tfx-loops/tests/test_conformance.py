"""Holds the backend to tfx's contract: pytest, or `tfx conformance loops` for a table."""

import pytest

from tfx.testing import Check, Subject, checks


@pytest.fixture(scope="session")
def subject() -> Subject:
    return Subject.open("loops")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("check", checks(), ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    check.test(subject)
