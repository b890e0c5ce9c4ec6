"""What becomes of checks: statuses, levels, the report; and files of known gaps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.errors import DataError, UsageError
from tfx.testing import Level, Result, Subject, run
from tfx.testing.known_gaps import read_known_gaps

LOW = [Level.CONTRACT, Level.VALUES]


class Unfinished(NumpyBackend):
    """One primitive is missing and one is wrong; without float16."""

    dtypes = NumpyBackend.dtypes - {"float16"}

    def tanh(self, x: Any) -> Any:
        raise NotImplementedError("tanh")

    def exp(self, x: Any) -> Any:
        return self._array(self.xp.exp(x) * 1.01)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject("numpy", Unfinished)


@pytest.fixture(scope="module")
def result(subject: Subject) -> Result:
    return run(subject, LOW)


def test_each_check_comes_to_something(result: Result) -> None:
    found = {f"{o.level} {o.name}": o for o in result.outcomes}
    assert found["L0 log"].status == "passed"
    for name in ("L0 tanh", "L1 tanh float64"):
        assert (found[name].status, found[name].message) == ("missing", "tanh")
    assert found["L0 exp"].status == "passed" and found["L1 exp float32"].status == "failed"
    assert found["L1 log float16"].status == "skipped"
    assert found["L1 log float16"].message == "float16 is not among its dtypes"
    assert all(o.message for o in result.outcomes if o.status != "passed")
    assert not any("\n" in o.message for o in result.outcomes)


def test_levels_count_from_the_lowest_and_only_whole(subject: Subject, result: Result) -> None:
    assert result.passed == () and result.whole == tuple(LOW)
    sound = Subject("numpy", NumpyBackend)
    assert run(sound, LOW).passed == tuple(LOW)
    assert run(sound, [Level.VALUES]).passed == ()
    part = run(sound, LOW, keyword="log")
    assert part.passed == part.whole == () and not part.failures
    assert {o.name.split()[0] for o in part.outcomes} == {"log"}


def test_known_gaps_fail_nothing_but_pass_no_level(subject: Subject) -> None:
    everything = run(subject, [Level.CONTRACT], known=["L0-tanh"])
    assert [o.status for o in everything.outcomes if o.name == "tanh"] == ["xfailed"]
    assert not everything.failures and everything.passed == ()
    mended = run(subject, [Level.CONTRACT], known=["L0-tanh", "L0-log"])
    assert [(o.name, o.status) for o in mended.failures] == [("log", "xpassed")]


def test_who_listens_hears_of_each_before_and_after(subject: Subject) -> None:
    heard: list[str] = []
    done = run(
        subject,
        LOW,
        "L1-exp",
        begins=lambda check: heard.append(check.name),
        ended=lambda outcome: heard.append(outcome.status),
    )
    assert heard == [x for o in done.outcomes for x in (o.name, o.status)] != []


def test_a_keyword_of_nothing(subject: Subject) -> None:
    with pytest.raises(UsageError, match=r"no check has 'expp' in its name; .*--list"):
        run(subject, LOW, "expp")


def test_the_report_is_json_and_says_what_is_declared(result: Result) -> None:
    report = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert report["backend"] == "numpy" and report["passed"] == []
    assert "float16" not in report["declared"]["dtypes"]
    level = report["levels"]["L0"]
    assert (level["missing"], level["failed"], level["whole"]) == (1, 0, True)
    assert sum(level[s] for s in ("passed", "failed", "missing", "skipped")) == sum(
        check["level"] == "L0" for check in report["checks"]
    )


# ---- files of known gaps -----------------------------------------------------------------


def test_known_gaps_are_read_with_their_reasons(tmp_path: Path) -> None:
    path = tmp_path / "gaps"
    path.write_text("# ours\n\nL1-exp-float32  # one percent off\n  L0-tanh\n")
    assert read_known_gaps(path) == {"L1-exp-float32": "one percent off", "L0-tanh": ""}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"L1-exp-float32\nL1-nothing\n", "names 'L1-nothing', which is no check; .*--list"),
        (b"\xff", "cannot read known gaps from .*gaps: "),
        (None, "cannot read known gaps from .*gaps: No such file"),
    ],
)
def test_files_that_will_not_do(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "gaps").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_known_gaps(tmp_path / "gaps")
