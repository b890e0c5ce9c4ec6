"""`tfx resonate gpt2`: at a terminal, by a file, and what is kept of it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from interrupts import heed_ctrl_c

from tfx.core.experiences import Experience, ExperienceStore

RESONATE = ("resonate", "gpt2", "-b", "numpy", "--weights")
PROMPT = "the the"


@pytest.fixture
def store(tmp_path: Path) -> ExperienceStore:
    return ExperienceStore(tmp_path / "runs" / "experiences.jsonl")


def keys_of(experience: Experience) -> str:
    return "".join(decision.key for decision in experience.decisions)


# ---- at a terminal -------------------------------------------------------------------------------


class Terminal:
    """A process at a terminal: stdin and stderr are the terminal, stdout is a pipe.

    Attributes:
        seen: all that it has shown so far.
    """

    def __init__(self, args: list[str], **options: Any) -> None:
        self._master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            args,
            stdin=self._slave,
            stderr=self._slave,
            stdout=subprocess.PIPE,
            preexec_fn=self._take,
            **options,
        )
        self.seen = ""

    def _take(self) -> None:
        """Make it the terminal whose Ctrl-C counts."""
        import fcntl

        os.setsid()
        fcntl.ioctl(self._slave, termios.TIOCSCTTY, 0)
        heed_ctrl_c()

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until it has shown a text that it had not shown when this was last called."""
        begun, fresh = time.monotonic(), ""
        while text not in fresh:
            left = begun + seconds - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(left, 0))
            assert ready, f"waited for {text!r}, saw {self.seen!r}"
            fresh += self._read()
        self.seen += fresh

    def _read(self) -> str:
        return os.read(self._master, 4096).decode()  # an OSError: it ended

    def read_to_the_end(self) -> None:
        """Read what it still shows, until it has ended."""
        while True:
            ready, _, _ = select.select([self._master], [], [], 0.05)
            if ready:
                self.seen += self._read()
            elif self.process.poll() is not None:
                return

    def press(self, key: str, shows: str = "theta ") -> None:
        os.write(self._master, key.encode())
        self.wait_for(shows)

    def ends(self) -> tuple[int, str]:
        """Its exit code, and its stdout."""
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode()

    def modes(self) -> Any:
        return termios.tcgetattr(self._slave)

    def hang_up(self) -> None:
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self._master >= 0:
            self.hang_up()


@pytest.fixture
def terminal(tmp_path: Path, environment: dict[str, str], folder: Path) -> Iterator[Terminal]:
    command = [sys.executable, "-m", "tfx", *RESONATE, str(folder), PROMPT]
    opened = Terminal(command, cwd=tmp_path, env=environment)
    yield opened
    opened.close()


def test_every_key(terminal: Terminal, store: ExperienceStore) -> None:
    terminal.wait_for("theta 0.75")
    terminal.press("s", "theta 0.8")
    terminal.press("n", "theta 0.75")
    terminal.press("n", "theta 0.7")
    terminal.press("u", "theta 0.75")
    terminal.press("s", "theta 0.8")
    terminal.press("x", "'x' is no key here; expected s satisfied, n not satisfied, u undo, q quit")
    for key, name in (("é", "'é'"), ("☃", "'☃'"), ("\x1b[A", "that"), ("\x1b", "that")):
        terminal.press(key, f"{name} is no key here; expected s satisfied")
    terminal.press("\n \x1bOB\x1b[1;5Cu", "theta 0.75")
    terminal.press("u", "theta 0.8")
    terminal.press("u", "theta 0.75")
    terminal.press("u", "there is nothing to undo")
    terminal.press("n", "theta 0.7")
    terminal.press("s", "theta 0.75")
    terminal.press("q", "kept as ")
    code, out = terminal.ends()
    [found] = store.experiences()
    assert code == 0
    assert out == f"{PROMPT}{found.response}\n"
    assert keys_of(found) == "ns"
    assert found.response == found.decisions[1].token
    assert found.theta == 0.75
    assert found.status == "unvalidated"
    assert terminal.modes() == terminal.before
    assert terminal.seen.count("is no key here") == 7
    assert "\x1b" not in terminal.seen


@pytest.mark.parametrize("how", ["ctrl-c", "term", "kill", "hang up", "ctrl-d"])
def test_an_interruption_loses_nothing(
    how: str, terminal: Terminal, store: ExperienceStore
) -> None:
    terminal.wait_for("theta 0.75")
    terminal.press("s", "theta 0.8")
    terminal.press("n", "theta 0.75")
    if how == "ctrl-c":
        terminal.press("\x03", "kept as ")
        assert terminal.ends()[0] == 130
        assert terminal.modes() == terminal.before
    elif how == "term":
        terminal.process.terminate()
        terminal.wait_for("kept as ")
        assert terminal.ends() == (143, "")
        assert terminal.modes() == terminal.before
    elif how == "ctrl-d":
        terminal.press("\x04", "kept as ")
        assert terminal.ends()[0] == 0
        assert terminal.modes() == terminal.before
    elif how == "kill":
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait(60)
    else:
        terminal.hang_up()
        terminal.process.wait(60)
    [found] = store.experiences()
    assert keys_of(found) == "sn"
    assert found.theta == 0.75
    assert found.response == found.decisions[0].token


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_nor_does_one_in_the_midst_of_work(
    sent: signal.Signals, terminal: Terminal, store: ExperienceStore
) -> None:
    """Of keys typed ahead, those whose effect was shown are kept, and no half of another."""
    terminal.wait_for("theta 0.75")
    terminal.press("sn" * 100, "theta 0.8")
    terminal.wait_for("theta ")
    terminal.process.send_signal(sent)
    terminal.read_to_the_end()
    terminal.process.wait(60)
    [found] = store.experiences()
    shown = terminal.seen.count("  theta ") - 1
    assert 2 <= shown <= len(keys_of(found)) < 200
    assert keys_of(found) == ("sn" * 100)[: len(keys_of(found))]
    store.note(found.id, notes="it can be gone on with")
    assert store.experience(found.id).decisions == found.decisions


# ---- by a file -----------------------------------------------------------------------------------


@pytest.fixture
def resonate(invoke: Any, folder: Path, tmp_path: Path) -> Any:
    def call(keys: str, *args: Any, prompt: str = PROMPT) -> Any:
        (tmp_path / "keys").write_text(keys)
        return invoke(*RESONATE, folder, prompt, "--feedback-file", "keys", *args)

    return call


def test_a_file_of_keys(resonate: Any, store: ExperienceStore) -> None:
    done = resonate("s s n  # not that one\n s u u n s q n n n")
    assert done.exit_code == 0, done.stderr
    [found] = store.experiences()
    assert keys_of(found) == "ssns"
    assert done.stdout == f"{PROMPT}{found.response}\n"
    assert [d.theta for d in found.decisions] == [0.75, 0.8, 0.85, 0.8]


def test_what_is_replayed_is_the_same(resonate: Any) -> None:
    one, two = (json.loads(resonate("sssnns", "--json").stdout) for _ in range(2))
    assert one.pop("id") != two.pop("id")
    del one["time"], two["time"]
    assert one == two
    again = json.loads(resonate("".join(d["key"] for d in one["decisions"]), "--json").stdout)
    assert again["decisions"] == one["decisions"]


def test_the_object(resonate: Any, store: ExperienceStore) -> None:
    found = json.loads(resonate("sn", "--json", "--accept", "--notes", "fine").stdout)
    assert found.keys() == {
        *("id", "prompt", "response", "decisions", "status", "score", "theta", "notes", "time"),
        *("model", "theta_start", "store", "token_ids", "finish_reason"),
    }
    assert found["status"] == "accepted"
    assert found["score"] == 0.5
    assert found["notes"] == "fine"
    assert found["token_ids"] == [found["decisions"][0]["token_id"]]
    [kept] = store.experiences()
    assert json.loads(json.dumps(kept.described())).items() <= found.items()


def test_theta_begins_where_others_ended(resonate: Any) -> None:
    def begin(prompt: str, *args: Any) -> float:
        done = resonate("q", "--json", *args, prompt=prompt)
        return float(json.loads(done.stdout)["theta_start"])

    assert begin("the") == 0.75
    resonate("nn", "--accept", "--theta", "0.6", prompt="the")
    resonate("s", "--accept", "--theta", "0.65", prompt="the th")
    resonate("s", "--reject", "--theta", "0.1", prompt="the th")
    assert begin("the") == 0.5
    assert begin("the the") == pytest.approx(0.6)
    assert begin("the the", "--theta-max", 0.55) == 0.55
    told = resonate("q", "--theta-max", 0.55).stderr
    assert "theta begins at 0.55: 0.6 (the mean of accepted experiences that begin like" in told
    told = resonate("q", "--theta-min", 1, "--theta-max", 2, prompt="other").stderr
    assert "theta begins at 1: 0.75 is not from 1 to 2" in told
    assert begin("the the", "--theta", 0.2) == 0.2
    assert begin("other") == 0.75


def test_a_folder_is_one_model_however_it_is_spelled(
    resonate: Any, invoke: Any, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").symlink_to(folder)
    resonate("nn", "--accept", "--weights", "there")
    again = json.loads(resonate("q", "--json", "--weights", tmp_path / "there").stdout)
    assert (again["theta_start"], again["model"]) == (0.65, str(folder.resolve()))
    for spelled in ("there", f"{folder}/."):
        told = json.loads(invoke("resonate", spelled, "--report", "--json").stdout)
        assert told["experiences"] == 2
    elsewhere = json.loads(resonate("q", "--json", "--weights", "gpt2-tiny").stdout)
    assert (elsewhere["theta_start"], elsewhere["model"]) == (0.75, "gpt2-tiny")


def test_bounds_and_steps(resonate: Any) -> None:
    bounds = ("--theta-min", 0.7, "--theta-max", 1.2, "--theta-step", 0.3)
    found = json.loads(resonate("ssnnn", "--json", *bounds).stdout)
    assert [round(d["theta"], 6) for d in found["decisions"]] == [0.75, 1.05, 1.2, 0.9, 0.7]
    assert found["theta"] == 0.7


def test_theta_reaches_the_model(resonate: Any, invoke: Any, folder: Path) -> None:
    def likeliest(theta: float) -> tuple[int, float]:
        done = resonate("n", "--json", "--theta", theta, "--theta-max", 3)
        first = json.loads(done.stdout)["decisions"][0]
        return first["token_id"], first["probability"]

    def ran(theta: float) -> tuple[int, float]:
        args = ("-n", 1, "--temperature", 0, "--logprobs", 0, "--json", "--theta", theta)
        done = invoke("run", "gpt2", "-b", "numpy", "--weights", folder, PROMPT, *args)
        [sample] = json.loads(done.stdout)["samples"]
        return sample["token_ids"][0], 2.718281828459045 ** sample["logprobs"][0]["logprob"]

    found = [likeliest(theta) for theta in (0, 1, 2.5)]
    for theta, (token, probability) in zip((0, 1, 2.5), found, strict=True):
        assert ran(theta) == (token, pytest.approx(probability, rel=1e-4))
    assert len({round(probability, 6) for _, probability in found}) == 3


@pytest.mark.parametrize(
    ("keys", "args", "fault"),
    [
        ("s\nsx", (), "line 2 of keys has the key 'x'; expected s, n, u, q"),
        ("u", (), "key 1 of the feedback, u: there is nothing to undo"),
        ("sss", ("-n", 2), "key 3 of the feedback, s: the text is at its end"),
        ("s", ("--accept", "--reject"), "--accept and --reject: it is one or the other"),
        ("s", ("--theta-min", 2), "expected bounds of at least 0, the lower first"),
        ("s", ("--theta", -1), "expected a number of at least 0"),
        ("s", ("--theta", 1.5), "--theta 1.5: expected a number from 0 to 1, between which"),
        ("s", ("--theta", 0.2, "--theta-min", 0.3), "--theta 0.2: expected a number from 0.3 to 1"),
        ("s", ("--score", 2), "expected a number from 0 to 1"),
        ("s", ("--plot", "x.png"), "--plot draws what --report sums up; add --report"),
        ("s", ("--prompt", "x"), "PROMPT and --prompt each give a prompt"),
        ("s", ("--id", "x", "--accept"), "--id judges what is there: without MODEL"),
        ("s", ("--report",), "leave out the PROMPT, --id and judgements"),
        ("s", ("--store", "."), "it is a folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    keys: str, args: tuple[Any, ...], fault: str, resonate: Any
) -> None:
    done = resonate(keys, *args)
    assert done.exit_code in (1, 2)
    assert fault in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_what_came_before_a_wrong_key_is_kept(resonate: Any, store: ExperienceStore) -> None:
    assert resonate("snuuu").exit_code == 1
    [found] = store.experiences()
    assert keys_of(found) == ""
    assert len(store.path.read_text().splitlines()) == 5


def test_without_a_terminal_there_are_no_keys(tfx: Any, folder: Path) -> None:
    done = tfx(*RESONATE, folder, PROMPT)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"stdin is none; write them to a file and name it with --feedback-file" in done.stderr


def test_models_and_weights_that_will_not_do(invoke: Any, bare: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("s")
    done = invoke("resonate", "microgpt", "x", "--feedback-file", "keys", "-b", "numpy")
    assert (done.exit_code, done.stderr) == (2, "tfx: microgpt does not heed theta\n")
    done = invoke(*RESONATE, bare, "x", "--feedback-file", "keys")
    assert "without a tokenizer" in done.stderr
    done = invoke(*RESONATE, bare, "--feedback-file", "keys", "--prompt", "")
    assert "nothing to go on from" in done.stderr
    assert "say which MODEL" in invoke("resonate").stderr


# ---- afterwards ----------------------------------------------------------------------------------


def test_a_verdict_may_come_later(resonate: Any, invoke: Any, store: ExperienceStore) -> None:
    name = json.loads(resonate("sn", "--json").stdout)["id"]
    done = invoke("resonate", "--id", name, "--reject", "--score", 0.2, "--notes", "no")
    assert (done.exit_code, done.stdout) == (0, f"{name}: rejected\n")
    found = store.experience(name)
    assert (found.status, found.score, found.notes) == ("rejected", 0.2, "no")
    assert keys_of(found) == "sn"
    assert invoke("resonate", "--id", name[:6], "--accept").stdout == f"{name}: accepted\n"
    unknown = invoke("resonate", "--id", "x", "--accept")
    assert (unknown.exit_code, "holds no experience 'x'" in unknown.stderr) == (1, True)
    no_verdict = invoke("resonate", "--id", name)
    assert (no_verdict.exit_code, "by --accept, --reject" in no_verdict.stderr) == (2, True)


def test_a_report(resonate: Any, invoke: Any, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    empty = invoke("resonate", "--report")
    assert (empty.exit_code, empty.stdout) == (1, "")
    assert empty.stderr.startswith("tfx: runs/experiences.jsonl holds no experiences yet; ")
    resonate("ssns", "--accept", "--notes", "well done")
    resonate("n" * 9, "--reject", prompt="a $ b_{")
    done = invoke("resonate", "--report", "--plot", "theta.png")
    assert done.exit_code == 0, done.stderr
    for words in ("well done", "2 experiences: 1 accepted, 1 rejected", "theta 0.75 -> 0.85"):
        assert words in done.stdout
    assert (tmp_path / "theta.png").stat().st_size > 5000
    found = json.loads(invoke("resonate", "--report", "--json").stdout)
    assert found["experiences"] == len(found["list"]) == 2
    assert found["list"][0]["thetas"] == [0.75, 0.8, 0.8, 0.85]
    other = invoke("resonate", "gpt2-tiny", "--report", "--json")
    assert (other.exit_code, other.stdout) == (1, "")
    assert f"experiences.jsonl holds no experience of 'gpt2-tiny'; it has some of '{folder}'" in (
        other.stderr
    )
    one = json.loads(invoke("resonate", folder, "--report", "--json").stdout)
    assert one["experiences"] == 2
    assert (
        "expected a name that ends in" in invoke("resonate", "--report", "--plot", "x.gif").stderr
    )


PAGE = (Path(__file__).parents[3] / "docs" / "resonance.md").read_text(encoding="utf-8")


def fence(mark: str) -> str:
    (found,) = re.findall(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def test_the_page_shows_what_happens(
    invoke: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").write_text("s n s")
    done = invoke("resonate", "gpt2-tiny", "To be, or", "--feedback-file", "keys", "-b", "numpy")
    assert done.stderr.startswith(fence("output: resonate"))
    exec(fence("python: theta"), {})
    assert capsys.readouterr().out == "(1, 4, 768) (1, 4, 4, 4)\n else,\nAnd, as\n"
