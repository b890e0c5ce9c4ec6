"""The whole kit on every backend that is ready here, and what it is itself made of."""

from __future__ import annotations

import pytest

from tfx.core.backend import PRIMITIVES, Backend
from tfx.core.fused import FUSED
from tfx.testing import Check, Level, Subject, checks
from tfx.testing.composed_table import FUSED_OPS
from tfx.testing.contract import CONTRACT
from tfx.testing.primitive_table import PRIMITIVE_OPS

CHECKS = checks([level for level in Level if level is not Level.OVERHEAD])


@pytest.fixture(scope="session")
def subject(backend: Backend) -> Subject:
    return Subject(str(backend), lambda: type(backend)(None))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    check.test(subject)


def test_every_primitive_has_a_record_and_a_contract() -> None:
    apart = {"asarray", "to_numpy", "full", "arange", "random_bits"}
    assert {*PRIMITIVE_OPS, *apart} == set(PRIMITIVES) == set(CONTRACT)


def test_every_fused_op_has_a_record() -> None:
    ours = {name for name, form in FUSED.items() if form.__module__.startswith("tfx.")}
    assert {op.name.split()[0] for op in FUSED_OPS} == ours


def test_names_of_checks_are_their_own() -> None:
    names = [str(check) for check in checks()]
    assert len(set(names)) == len(names)
