"""The kit under pytest: `pytest --pyargs tfx.testing.suite --tfx-backend=NAME`.

Each check is a test, named by its level: `-k L1` runs one level, `-k matmul` one operation. What
the backend does not declare is skipped, with the reason.
"""

from __future__ import annotations

import pytest

from tfx.testing.kit import Check, Subject, checks

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("check", checks(), ids=str)
def test_backend(check: Check, tfx_subject: Subject) -> None:
    check.test(tfx_subject)
