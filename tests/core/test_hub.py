"""Checkpoints from the Hub: a server of the same answers in place of it, and prepared caches.

What a downloaded cache holds is checked against `huggingface_hub`'s own reader of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfx.core import hub
from tfx.core.errors import HubError
from tfx.core.hub import is_repo_id, snapshot
from tfx.core.weights import encoded_weights

pytest.importorskip("huggingface_hub")
REPO = "someone/gpt2"
COMMIT, LATER = "a" * 40, "b" * 40


def weights(*names: str) -> bytes:
    return b"".join(encoded_weights({name: np.arange(64, dtype=np.float32) for name in names}))


WEIGHTS = weights("wte", "wpe")
SHARDS = {"model-00001-of-00002.safetensors": weights("wte"), "model-2.safetensors": weights("wpe")}
INDEX = json.dumps({"weight_map": dict(zip(("wte", "wpe"), SHARDS, strict=True))}).encode()
TEXTS = {
    name: f'{{"this is": "{name}"}}'.encode()
    for name in (
        "config.json",
        "generation_config.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    )
}
OTHERS = dict.fromkeys(
    [
        ".gitattributes",
        "64.tflite",
        "README.md",
        "flax_model.msgpack",
        "onnx/config.json",
        "onnx/decoder_model.onnx",
        "onnx/tokenizer.json",
        "pytorch_model.bin",
        "rust_model.ot",
        "tf_model.h5",
    ],
    b"not wanted",
)
"""What openai-community/gpt2 has besides."""


class FakeHub(ThreadingHTTPServer):
    """Answers what huggingface_hub asks about one repository.

    Attributes:
        files: of the repository, by path.
        commit: what its branch `main` points to.
        token: what must be sent to read it; None where it is public.
        refusal: status and error code of every answer, or None.
        file_refusal: the same, but its description is given.
        cut: files of which half is sent before the connection is closed; there is no second half.
        stalled: files of which half is sent, and then nothing.
        asked: method and path of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {**TEXTS, **OTHERS, "model.safetensors": WEIGHTS}
        self.commit = COMMIT
        self.token: str | None = None
        self.refusal: tuple[int, str] | None = None
        self.file_refusal: tuple[int, str] | None = None
        self.cut: set[str] = set()
        self.stalled: set[str] = set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def sent(self) -> set[str]:
        """The files whose contents were asked for."""
        head = f"GET /{REPO}/resolve/"
        return {ask.removeprefix(head).partition("/")[2] for ask in self.asked if head in ask}


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if self.server.refusal:
            self.refuse(*self.server.refusal)
        elif path.startswith("/api/models/"):
            self.describe(path)
        else:
            self.send_file(path)

    do_HEAD = do_GET

    def describe(self, path: str) -> None:
        asked, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        known = {"", "main", self.server.commit}
        if asked != REPO or not self.authorised:
            self.refuse(401, "RepoNotFound")
        elif revision not in known:
            self.refuse(404, "RevisionNotFound")
        else:
            files = self.server.files.items()
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files]
            answer = {"id": REPO, "sha": self.server.commit, "siblings": siblings}
            self.answer(json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def send_file(self, path: str) -> None:
        revision, _, name = path.removeprefix(f"/{REPO}/resolve/").partition("/")
        if self.server.file_refusal:
            self.refuse(*self.server.file_refusal)
        elif name not in self.server.files:
            self.refuse(404, "EntryNotFound")
        else:
            data = self.server.files[name]
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            commit = self.server.commit if revision == "main" else revision
            headers = {"X-Repo-Commit": commit, "ETag": etag}
            self.answer(data, headers, half=name in self.server.cut | self.server.stalled)
            if name in self.server.stalled and self.command == "GET":
                self.rfile.read()  # until the other side has gone

    def answer(self, data: bytes, headers: dict[str, str], half: bool = False) -> None:
        if half and "Range" in self.headers:
            self.close_connection = True
            return
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[: len(data) // 2] if half else data)
        self.close_connection = half

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @property
    def authorised(self) -> bool:
        token = self.server.token
        return token is None or self.headers["Authorization"] == f"Bearer {token}"

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with FakeHub() as fake:
        Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield fake
        fake.shutdown()


@pytest.fixture
def cache(tmp_path: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; huggingface_hub reads its environment once, so its constants are set."""
    from huggingface_hub import close_session, constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TFX_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    close_session()
    return folder


def silent(line: str) -> NoReturn:
    pytest.fail(f"nothing was to be said: {line}")


def fill(cache: Path, files: dict[str, bytes], commit: str = COMMIT) -> Path:
    """A snapshot as huggingface_hub lays it out."""
    home = cache / "models--someone--gpt2"
    folder = home / "snapshots" / commit
    for part in (home / "refs", home / "blobs", folder):
        part.mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    for name, data in files.items():
        etag = hashlib.sha256(data).hexdigest()
        (home / "blobs" / etag).write_bytes(data)
        (folder / name).symlink_to(f"../../blobs/{etag}")
    return folder


def refusal(repo: str = REPO, note: Callable[[str], None] = silent, **more: str) -> str:
    with pytest.raises(HubError) as caught:
        snapshot(repo, note, **more)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable()
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# ---- names ---------------------------------------------------------------------------------------


@settings(deadline=None)  # the first one imports the library
@given(st.from_regex(r"[a-zA-Z0-9_.\-]{0,5}/[a-zA-Z0-9_.\-]{0,5}", fullmatch=True))
@example("a/b.git")
@example("a--b/c")
@example("a/b..c")
@example("a/" + "b" * 96)
def test_repository_names_are_those_the_library_takes(text: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        assert not is_repo_id(text)
    else:
        assert is_repo_id(text)


@pytest.mark.parametrize(
    "text",
    ["", "gpt2", "a/b/c", "/a/b", "a/", "../gpt2", "C:\\gpt2", "é/b", "a/b\n", "a" * 97 + "/b"],
)
def test_anything_else_is_no_repository(text: str) -> None:
    assert not is_repo_id(text)
    assert "expected OWNER/NAME" in refusal(text)


# ---- downloading ---------------------------------------------------------------------------------


def test_what_is_needed_is_downloaded_and_then_no_longer_asked_for(
    cache: Path, server: FakeHub, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import try_to_load_from_cache

    notes: list[str] = []
    folder = snapshot(REPO, notes.append)
    assert contents(folder) == {**TEXTS, "model.safetensors": WEIGHTS}
    assert server.sent == {*TEXTS, "model.safetensors"}
    (note,) = notes
    size = sum(map(len, TEXTS.values())) + len(WEIGHTS)
    assert REPO in note and f"{size / 1e6:,.1f} MB in 7 files" in note and str(cache) in note
    assert capfd.readouterr() == ("", "")

    assert try_to_load_from_cache(REPO, "config.json") == str(folder / "config.json")
    server.asked.clear()
    assert snapshot(REPO, silent) == snapshot(REPO, silent, "main") == folder
    assert snapshot(REPO, silent, COMMIT) == folder
    assert server.asked == []


def test_the_note_counts_bytes_not_yet_there(cache: Path, server: FakeHub) -> None:
    server.files["model.safetensors"] = weights(*map(str, range(5000)))
    fill(cache, TEXTS)
    notes: list[str] = []
    snapshot(REPO, notes.append)
    size = len(server.files["model.safetensors"]) / 1e6
    assert size > 1.5 and f": {size:.1f} MB in 1 file," in notes[0]
    assert server.sent == {"model.safetensors"}


def test_shards_are_those_of_the_index(cache: Path, server: FakeHub) -> None:
    del server.files["model.safetensors"]
    index = {"model.safetensors.index.json": INDEX}
    server.files |= {**SHARDS, **index, "model-of-another-kind.safetensors": WEIGHTS}
    folder = snapshot(REPO, lambda note: None)
    assert contents(folder) == {**TEXTS, **index, **SHARDS}

    (folder / "model-2.safetensors").unlink()
    server.asked.clear()
    snapshot(REPO, lambda note: None)
    assert contents(folder) == {**TEXTS, **index, **SHARDS}


def test_a_token_is_sent(cache: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "hf_secret"
    message = refusal()
    assert f"no repository {REPO}" in message and "HF_TOKEN" in message and "hf auth" in message
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert snapshot(REPO, lambda note: None).is_dir()


def test_revisions(cache: Path, server: FakeHub) -> None:
    first = snapshot(REPO, lambda note: None)
    server.commit = LATER
    assert snapshot(REPO, silent) == first
    assert snapshot(REPO, lambda note: None, LATER) == first.with_name(LATER)
    assert snapshot(REPO, silent) == first
    assert "has no revision 'v9'" in refusal(revision="v9")


def test_a_branch_that_moves_meanwhile_does_not_mix_commits(cache: Path, server: FakeHub) -> None:
    folder = snapshot(REPO, lambda note: setattr(server, "commit", LATER))
    assert folder.name == COMMIT
    assert contents(folder) == {**TEXTS, "model.safetensors": WEIGHTS}
    assert snapshot(REPO, lambda note: None).name == LATER


# ---- what the Hub refuses ------------------------------------------------------------------------


def test_a_gated_repository(cache: Path, server: FakeHub) -> None:
    server.file_refusal = 403, "GatedRepo"
    message = refusal(note=lambda note: None)
    assert f"{REPO} is gated" in message and "HF_TOKEN" in message


def test_no_such_repository(cache: Path) -> None:
    message = refusal("someone/gtp2")
    assert "no repository someone/gtp2" in message and "check the name" in message


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_refused(cache: Path, server: FakeHub, status: int) -> None:
    server.refusal = status, ""
    message = refusal()
    assert f"denies access to {REPO} ({status} " in message and "HF_TOKEN" in message


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_out_of_order_is_no_hub(cache: Path, server: FakeHub, status: int) -> None:
    server.refusal = status, ""
    assert f"cannot be reached: {status} " in refusal()
    folder = fill(cache, {"config.json": b"{}", "model.safetensors": WEIGHTS})
    assert snapshot(REPO, silent) == folder


def test_a_repository_of_pickles_only(cache: Path, server: FakeHub) -> None:
    del server.files["model.safetensors"]
    message = refusal()
    assert "only pytorch_model.bin" in message and "save_pretrained" in message
    assert "then take the folder DIR" in message
    del server.files["pytorch_model.bin"]
    assert "no model.safetensors" in refusal()
    assert server.sent == set()


def test_files_that_the_repository_lacks(cache: Path, server: FakeHub) -> None:
    del server.files["config.json"]
    assert "has no config.json" in refusal()
    del server.files["model.safetensors"]
    outside = {"wte": "../../../secret", "wpe": "model-3.safetensors"}
    server.files |= {"model.safetensors.index.json": json.dumps({"weight_map": outside}).encode()}
    message = refusal()
    assert "has no config.json, ../../../secret and model-3.safetensors" in message
    assert server.sent == {"model.safetensors.index.json"}


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"weight_map": 1}',
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": 1}}',
        b'{"weight_map": {"a": []}}',
        b"\xff",
        b"[" * 100_000,
    ],
    ids=lambda index: repr(index[:30]),
)
def test_an_index_that_is_none(cache: Path, server: FakeHub, index: bytes) -> None:
    del server.files["model.safetensors"]
    server.files["model.safetensors.index.json"] = index
    message = refusal()
    assert "model.safetensors.index.json" in message and f"delete the folder {cache}" in message


# ---- no connection -------------------------------------------------------------------------------


@pytest.fixture(params=["HF_HUB_OFFLINE", "TFX_OFFLINE"])
def offline(request: pytest.FixtureRequest, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The variable that forbids connections."""
    if request.param == "TFX_OFFLINE":
        monkeypatch.setenv("TFX_OFFLINE", "1")
    else:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return str(request.param)


def test_offline_the_cache_is_used_and_nothing_is_asked(
    cache: Path, server: FakeHub, offline: str
) -> None:
    message = refusal()
    for word in (REPO, str(cache)):
        assert word in message
    assert message.endswith(f"{offline} forbids a download: unset it once")
    folder = fill(cache, {**TEXTS, "model.safetensors": WEIGHTS})
    assert snapshot(REPO, silent) == snapshot(REPO, silent, COMMIT) == folder
    assert f"{REPO} is not in the cache" in refusal(revision="v9")
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").unlink()
    assert snapshot(REPO, silent) == folder
    assert server.asked == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_offline_a_part_is_not_taken_for_the_whole(cache: Path, offline: str, name: str) -> None:
    folder = fill(cache, {**TEXTS, "model.safetensors": WEIGHTS})
    (folder / name).resolve().unlink()  # as an interrupted removal leaves it: a link to nothing
    assert f"{REPO} is not in the cache" in refusal()


def test_offline_every_shard_must_be_there(cache: Path, offline: str) -> None:
    folder = fill(cache, {**TEXTS, **SHARDS, "model.safetensors.index.json": INDEX})
    assert snapshot(REPO, silent) == folder
    (folder / "model-2.safetensors").unlink()
    assert f"{REPO} is not in the cache" in refusal()


def test_a_missing_tokenizer_is_fetched_when_there_is_a_connection(
    cache: Path, server: FakeHub
) -> None:
    folder = fill(cache, {"config.json": TEXTS["config.json"], "model.safetensors": WEIGHTS})
    assert snapshot(REPO, lambda note: None) == folder
    assert contents(folder) == {**TEXTS, "model.safetensors": WEIGHTS}
    assert "model.safetensors" not in server.sent


def test_no_connection_is_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    message = refusal()
    assert time.monotonic() - began < 2
    assert capfd.readouterr() == ("", "")
    for word in ("127.0.0.1:9", "Connection refused", REPO, "connect once"):
        assert word in message
    assert "--" not in message  # whoever asks for a repository knows what else there is


def test_a_server_that_says_nothing_is_given_up(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SECONDS", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as mute:  # accepts, never answers
        url = f"http://127.0.0.1:{mute.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        began = time.monotonic()
        assert "timed out" in refusal()
        assert time.monotonic() - began < 2


# ---- interrupted, full, damaged ------------------------------------------------------------------


def test_a_download_broken_off_is_not_taken_for_whole(
    cache: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the library's retries
    server.files["model.safetensors"] = weights(*map(str, range(100)))
    server.cut = {"model.safetensors"}
    assert f"the download of {REPO} broke off" in refusal(note=lambda note: None)

    monkeypatch.setenv("TFX_OFFLINE", "1")
    assert f"{REPO} is not in the cache" in refusal()

    monkeypatch.delenv("TFX_OFFLINE")
    server.cut = set()
    server.asked.clear()
    folder = snapshot(REPO, lambda note: None)
    assert (folder / "model.safetensors").read_bytes() == server.files["model.safetensors"]
    assert server.sent == {"model.safetensors"}


def test_a_hub_that_fails_after_a_good_start(
    cache: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server.file_refusal = 500, ""
    assert "broke off (500 Internal Server Error)" in refusal(note=lambda note: None)


def fetching(server: FakeHub, home: Path, **more: Any) -> subprocess.Popen[str]:
    """A process of its own that prints the folder, with its cache in `home`."""
    code = f"from tfx.core.hub import snapshot; print(snapshot({REPO!r}, lambda note: None))"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TFX_"))}
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": server.url, "NO_PROXY": "127.0.0.1"}
    return subprocess.Popen([sys.executable, "-c", code], env=kept | settings, text=True, **more)


def test_a_killed_download_is_not_taken_for_whole(
    tmp_path: Path, cache: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stalled = {"model.safetensors"}
    with fetching(server, tmp_path) as process:
        while not list(cache.glob("*/blobs/*.incomplete")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    monkeypatch.setenv("TFX_OFFLINE", "1")
    assert f"{REPO} is not in the cache" in refusal()
    assert f"{REPO} is not in the cache" in refusal(revision=COMMIT)

    monkeypatch.delenv("TFX_OFFLINE")
    server.stalled = set()
    folder = snapshot(REPO, lambda note: None)
    assert contents(folder) == {**TEXTS, "model.safetensors": WEIGHTS}


def test_progress_is_shown_on_a_terminal_and_never_on_stdout(
    tmp_path: Path, cache: Path, server: FakeHub
) -> None:
    termios = pytest.importorskip("termios")
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    with fetching(server, tmp_path, stdout=subprocess.PIPE, stderr=terminal) as process:
        shown, _ = process.communicate(timeout=30)
    assert Path(shown.strip()) == cache / "models--someone--gpt2" / "snapshots" / COMMIT
    assert b"model.safetensors: 100%" in os.read(screen, 100_000)
    os.close(terminal)
    os.close(screen)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_cache_that_cannot_be_written(
    cache: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*args: object, **more: object) -> NoReturn:
        raise OSError(code, os.strerror(code), "blob")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    message = refusal(note=lambda note: None)
    assert os.strerror(code) in message and str(cache) in message and "HF_HOME" in message


def test_other_troubles_of_the_library_are_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **more: object) -> NoReturn:
        raise RuntimeError("Data processing error:\n CAS client error")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    assert "broke off (RuntimeError: Data processing error: CAS" in refusal(note=lambda note: None)


def test_a_damaged_cache_says_what_to_delete(cache: Path, server: FakeHub) -> None:
    folder = fill(cache, {**TEXTS, "model.safetensors": WEIGHTS[:-8]})
    home = folder.parents[1]
    for fault in ("cut short", "the file is empty", "cannot read"):
        message = refusal()
        assert fault in message and message.endswith(f"delete the folder {home} and try again")
        if fault == "cut short":
            (folder / "model.safetensors").resolve().write_bytes(b"")
        else:
            (home / "refs" / "main").write_bytes(b"\xff")
    assert server.asked == []


@pytest.mark.installed
def test_importing_the_module_imports_no_library() -> None:
    code = "import sys, tfx.core.hub; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    assert "tfx" in tops
    assert not tops & {"huggingface_hub", "numpy", "httpx", "httpx2", "tqdm", "torch"}
