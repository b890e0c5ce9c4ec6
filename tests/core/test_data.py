"""Documents are read as the user meant them, and a fetched file is the right one or none."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tfx.core.data import RemoteFile, data_dir, obtain, read_documents
from tfx.core.errors import DataError

CONTENTS = b"emma\nolivia\n"


class Server(ThreadingHTTPServer):
    """Serves `body` with `status` whatever is asked, and counts the requests."""

    body = CONTENTS
    status = 200
    requests = 0

    class Handler(BaseHTTPRequestHandler):
        server: Server

        def do_GET(self) -> None:
            self.server.requests += 1
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(self.server.body)))
            self.end_headers()
            self.wfile.write(self.server.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/names.txt"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(("127.0.0.1", 0), Server.Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def remote(server: Server) -> RemoteFile:
    return RemoteFile("names.txt", server.url, hashlib.sha256(CONTENTS).hexdigest())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TFX_DATA_DIR", str(folder))
    monkeypatch.delenv("TFX_OFFLINE", raising=False)
    return folder


def refuse_note(line: str) -> None:
    raise AssertionError(f"unexpected note: {line}")


def reading(tmp_path: Path, raw: bytes) -> list[str]:
    path = tmp_path / "documents.txt"
    path.write_bytes(raw)
    return read_documents(path)


def test_a_document_a_line_stripped_and_empty_lines_dropped(tmp_path: Path) -> None:
    assert reading(tmp_path, b"emma\n  ava \r\n\n\t\nmia") == ["emma", "ava", "mia"]


def test_only_a_newline_ends_a_document(tmp_path: Path) -> None:
    assert reading(tmp_path, "a\u2028b\x0cc\nd".encode()) == ["a\u2028b\x0cc", "d"]


def test_letters_beyond_ascii_and_a_byte_order_mark(tmp_path: Path) -> None:
    assert reading(tmp_path, "\ufeffzoë\nрая\n".encode()) == ["zoë", "рая"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b"\n \n\t\r\n", "only empty lines"),
        (b"abc\n\xff\xfe", "byte 0xff at offset 4"),
        (b"abc\0def", "byte 0x00 at offset 3"),
        (b"ab\0c\xff", "byte 0x00 at offset 2"),
        (b"ab\xffc\0", "byte 0xff at offset 2"),
        ("emma\n".encode("utf-16"), "byte 0xff at offset 0"),
        (b"abc\xc3", "byte 0xc3 at offset 3"),
    ],
)
def test_unusable_contents(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        reading(tmp_path, raw)
    assert str(tmp_path / "documents.txt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data file .*absent\.txt"):
        read_documents(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="is a directory"):
        read_documents(tmp_path)


def test_the_cache_is_downloaded_into_once(
    cache: Path, server: Server, remote: RemoteFile, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert obtain(remote, refuse_note) == cache / "names.txt"
    assert (cache / "names.txt").read_bytes() == CONTENTS
    assert server.requests == 1
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


def test_a_terminal_sees_progress(
    cache: Path,
    remote: RemoteFile,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    obtain(remote, refuse_note)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"another file", "sent another file"),
        (200, CONTENTS[:5], "sent another file"),
        (404, b"", "404"),
    ],
)
def test_a_failed_download_leaves_nothing(
    cache: Path, server: Server, remote: RemoteFile, status: int, body: bytes, words: str
) -> None:
    server.status, server.body = status, body
    with pytest.raises(DataError, match=words) as caught:
        obtain(remote, refuse_note)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_damaged_copy_is_replaced_and_kept_aside(cache: Path, remote: RemoteFile) -> None:
    cache.mkdir()
    (cache / "names.txt").write_bytes(b"my own list\n")
    notes: list[str] = []
    obtain(remote, notes.append)
    contents = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert contents == {"names.txt": CONTENTS, "names.txt.damaged": b"my own list\n"}
    assert len(notes) == 1
    assert "names.txt.damaged" in notes[0]


def test_a_damaged_copy_stays_where_the_download_fails(
    cache: Path, server: Server, remote: RemoteFile
) -> None:
    server.status = 503
    cache.mkdir()
    (cache / "names.txt").write_bytes(b"my own list\n")
    with pytest.raises(DataError, match=r"is damaged .*503"):
        obtain(remote, refuse_note)
    contents = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert contents == {"names.txt": b"my own list\n"}


def test_offline_never_tries(
    cache: Path, server: Server, remote: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFX_OFFLINE", "1")
    with pytest.raises(DataError, match="does not exist and TFX_OFFLINE"):
        obtain(remote, refuse_note)
    assert server.requests == 0
    assert not cache.exists()

    monkeypatch.setenv("TFX_OFFLINE", "0")
    obtain(remote, refuse_note)
    monkeypatch.setenv("TFX_OFFLINE", "1")
    assert obtain(remote, refuse_note) == cache / "names.txt"


def test_no_connection_and_no_room_are_one_line(
    cache: Path, server: Server, remote: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = RemoteFile("names.txt", "http://127.0.0.1:9/names.txt", remote.sha256)
    with pytest.raises(DataError, match="Connection refused") as caught:
        obtain(closed, refuse_note)
    assert "\n" not in str(caught.value)

    occupied = cache / "file"
    occupied.touch()
    monkeypatch.setenv("TFX_DATA_DIR", str(occupied))
    with pytest.raises(DataError, match="cannot be read"):
        obtain(remote, refuse_note)


def test_a_server_that_says_nothing_is_given_up(
    cache: Path, remote: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfx.core.data.READ_SECONDS", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server.Handler) as silent:  # accepts, never answers
        url = f"http://127.0.0.1:{silent.server_port}/names.txt"
        with pytest.raises(DataError, match="timed out"):
            obtain(RemoteFile("names.txt", url, remote.sha256), refuse_note)


def test_without_a_data_dir_the_users_cache_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.delenv("TFX_DATA_DIR", raising=False)
    pooch = pytest.importorskip("pooch")
    assert data_dir() == Path(pooch.os_cache("tfx"))
