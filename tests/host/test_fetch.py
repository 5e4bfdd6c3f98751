from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import socket
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from liteship import fetch as module
from liteship.cli.data import app
from liteship.errors import DataError, LinkError, UsageError
from liteship.fetch import fetch

NAME = "cats_and_dogs_filtered"


def make_zip(names: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in names.items():
            file.writestr(name, content)
    return data.getvalue()


IMAGES = {
    f"{NAME}/{split}/{animal}/{i}.jpg": os.urandom(5000)
    for split in ("train", "validation")
    for animal in ("cats", "dogs")
    for i in range(3)
}
ZIP = make_zip({**IMAGES, f"{NAME}/vectorize.py": b"", "__MACOSX/._x": b""})


@dataclass
class Server:
    """A web server of one file that can misbehave.

    Args:
        cut_after: Closes the connection after so many bytes of a body.
        ranges: Whether it gives parts.
        requests: The Range header of each request, None without one.
    """

    data: bytes = ZIP
    etag: str | None = '"one"'
    cut_after: int | None = None
    ranges: bool = True
    says_length: bool = True
    content_range: str | None = None
    status: int | None = None
    requests: list[str | None] = field(default_factory=list)
    url: str = ""


def make_handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.requests.append(wanted)
            if server.status:
                self.send_error(server.status)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if not server.ranges or self.headers.get("If-Range") != server.etag:
                start = 0
            elif start >= len(server.data):
                self.send_error(416)
                return
            self.reply(start)

        def reply(self, start: int) -> None:
            self.send_response(206 if start else 200)
            body, total = server.data[start:], len(server.data)
            if server.says_length:
                self.send_header("Content-Length", str(len(body)))
            if server.etag:
                self.send_header("ETag", server.etag)
            if start:
                self.send_header("Content-Range", server.content_range or f"bytes {start}-{total - 1}/{total}")
            self.end_headers()
            self.wfile.write(body[: server.cut_after])

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test output clean."""

    return Handler


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make_handler(state)) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}/{NAME}.zip"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


@contextmanager
def refused(kind: type[Exception], exit_code: int, *parts: str) -> Iterator[None]:
    with pytest.raises(kind) as info:
        yield
    assert info.value.exit_code == exit_code  # type: ignore[attr-defined]
    assert "\n" not in str(info.value)
    for part in parts:
        assert part in str(info.value)


def assert_whole(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [NAME]
    for name, content in IMAGES.items():
        assert (folder / name).read_bytes() == content


def cut_download(server: Server, folder: Path, after: int = 20_000) -> None:
    server.cut_after = after
    with pytest.raises(LinkError):
        fetch(NAME, folder, url=server.url)
    server.cut_after = None
    server.requests.clear()


def test_fetch_leaves_only_the_unpacked_folder(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetched = fetch(
        NAME, tmp_path / "new/data", url=server.url, on_progress=lambda done, all_: seen.append((done, all_))
    )
    assert_whole(tmp_path / "new/data")
    assert fetched.folder == tmp_path / "new/data" / NAME
    assert (fetched.sha256, fetched.size_bytes) == (hashlib.sha256(ZIP).hexdigest(), len(ZIP))
    assert (fetched.already_there, fetched.checked) == (False, False)
    assert (seen[0], seen[-1]) == ((0, len(ZIP)), (len(ZIP), len(ZIP)))


def test_fetch_does_nothing_when_the_folder_is_there(server: Server, tmp_path: Path) -> None:
    fetch(NAME, tmp_path, url=server.url)
    server.requests.clear()
    assert fetch(NAME, tmp_path, url=server.url).already_there
    assert server.requests == []


def test_cut_download_is_an_error_and_the_same_command_goes_on(server: Server, tmp_path: Path) -> None:
    server.cut_after = 20_000
    with refused(LinkError, 5, f"{len(ZIP)} bytes are required. Received: 20000", "same command again: it goes on"):
        fetch(NAME, tmp_path, url=server.url)
    assert not (tmp_path / NAME).exists()
    server.cut_after = None
    seen: list[int] = []
    fetch(NAME, tmp_path, url=server.url, on_progress=lambda done, total: seen.append(done))
    assert server.requests == [None, "bytes=20000-"]
    assert seen[0] == 20_000
    assert_whole(tmp_path)


def test_file_that_changed_on_the_server_starts_anew(server: Server, tmp_path: Path) -> None:
    server.data = b"x" * len(ZIP)
    cut_download(server, tmp_path)
    server.data, server.etag = ZIP, '"two"'
    fetch(NAME, tmp_path, url=server.url)
    assert server.requests == ["bytes=20000-"]
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("change", "requests"),
    [
        (lambda server: setattr(server, "ranges", False), ["bytes=20000-"]),
        (lambda server: setattr(server, "content_range", "bytes 0-9/10"), ["bytes=20000-", None]),
    ],
    ids=["server ignores Range", "server gives another part"],
)
def test_download_ends_whole_whatever_the_server_answers(
    server: Server, tmp_path: Path, change: Callable[[Server], None], requests: list[str | None]
) -> None:
    cut_download(server, tmp_path)
    change(server)
    fetch(NAME, tmp_path, url=server.url)
    assert server.requests == requests
    assert_whole(tmp_path)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_server_without_a_strong_validator_starts_anew(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.etag = etag
    cut_download(server, tmp_path)
    fetch(NAME, tmp_path, url=server.url)
    assert server.requests == [None]
    assert_whole(tmp_path)


def test_partial_file_of_another_address_starts_anew(server: Server, tmp_path: Path) -> None:
    cut_download(server, tmp_path)
    fetch(NAME, tmp_path, url=server.url + "?mirror")
    assert server.requests == [None]


@pytest.mark.parametrize("record", ["", "[]", '{"url": 1}'])
def test_damaged_record_of_a_partial_file_starts_anew(server: Server, tmp_path: Path, record: str) -> None:
    cut_download(server, tmp_path)
    (tmp_path / f"{NAME}.zip.partial.json").write_text(record)
    fetch(NAME, tmp_path, url=server.url)
    assert server.requests == [None]


def test_partial_file_longer_than_the_file_starts_anew(server: Server, tmp_path: Path) -> None:
    cut_download(server, tmp_path)
    (tmp_path / f"{NAME}.zip.partial").write_bytes(b"x" * (len(ZIP) + 1))
    fetch(NAME, tmp_path, url=server.url)
    assert server.requests == [f"bytes={len(ZIP) + 1}-", None]
    assert_whole(tmp_path)


def test_whole_partial_file_is_unpacked_without_a_request(server: Server, tmp_path: Path) -> None:
    cut_download(server, tmp_path)
    (tmp_path / f"{NAME}.zip.partial").write_bytes(ZIP)
    fetch(NAME, tmp_path, url=server.url)
    assert server.requests == []
    assert_whole(tmp_path)


def test_server_that_does_not_say_the_length_is_accepted(server: Server, tmp_path: Path) -> None:
    server.says_length = False
    seen: list[int | None] = []
    fetch(NAME, tmp_path, url=server.url, on_progress=lambda done, total: seen.append(total))
    assert set(seen) == {None}
    assert_whole(tmp_path)


def test_expected_sum_is_checked(server: Server, tmp_path: Path) -> None:
    actual = hashlib.sha256(ZIP).hexdigest()
    with refused(DataError, 2, f"sha256 {'0' * 64} is required. Received: {actual}."):
        fetch(NAME, tmp_path, url=server.url, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    assert fetch(NAME, tmp_path, url=server.url, sha256=actual.upper()).checked


def test_pinned_sum_is_checked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.DATASETS, NAME, module.Source(server.url, NAME, "0" * 64))
    with refused(DataError, 2, f"sha256 {'0' * 64} is required."):
        fetch(NAME, tmp_path)


@pytest.mark.parametrize("sha256", ["abc", "g" * 64, ""])
def test_sum_that_is_none_is_refused(tmp_path: Path, sha256: str) -> None:
    with refused(UsageError, 2, f"--sha256: 64 hex digits are required. Received: {sha256}."):
        fetch(NAME, tmp_path, sha256=sha256)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x.zip", "https:///x.zip", "x.zip"])
def test_address_that_is_not_http_is_refused(tmp_path: Path, url: str) -> None:
    with refused(UsageError, 2, f"--url: an http or https address is required. Received: {url}."):
        fetch(NAME, tmp_path, url=url)


def test_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with refused(DataError, 2, f"One of {NAME} is required. Received: flowers."):
        fetch("flowers", tmp_path)


@pytest.mark.parametrize("name", ["../../evil", f"{NAME}/train/../../../evil", "/evil", "..\\evil"])
def test_zip_with_names_that_climb_out_is_refused(server: Server, tmp_path: Path, name: str) -> None:
    server.data = make_zip({**IMAGES, name: b"x"})
    with refused(DataError, 2, f"names inside it is required. Received: {name}."):
        fetch(NAME, tmp_path / "data", url=server.url)
    assert list(tmp_path.rglob("*")) == [tmp_path / "data"]


def test_zip_with_a_link_is_refused(server: Server, tmp_path: Path) -> None:
    link = zipfile.ZipInfo(f"{NAME}/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr(link, "/etc")
    server.data = data.getvalue()
    with refused(
        DataError, 2, f"A zip file without links and with names inside it is required. Received: {NAME}/link."
    ):
        fetch(NAME, tmp_path, url=server.url)


@pytest.mark.parametrize(
    "data", [b"<html>login</html>", ZIP[:20_000], ZIP.replace(IMAGES[f"{NAME}/train/cats/0.jpg"], b"x" * 5000)]
)
def test_file_that_is_not_a_sound_zip_is_refused_and_removed(server: Server, tmp_path: Path, data: bytes) -> None:
    server.data = data
    with refused(DataError, 2, "a sound zip file is required. Received: ", "was removed"):
        fetch(NAME, tmp_path, url=server.url)
    assert list(tmp_path.iterdir()) == []


def test_zip_of_something_else_is_refused(server: Server, tmp_path: Path) -> None:
    server.data = make_zip({f"{NAME}/train/cats/0.jpg": b"x"})
    with refused(DataError, 2, "folders train and validation are required. Received: no validation."):
        fetch(NAME, tmp_path, url=server.url)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_there_but_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with refused(DataError, 2, f"{tmp_path / NAME}: folders train and validation are required.", "Move "):
        fetch(NAME, tmp_path)


def test_status_that_is_not_a_file_is_a_link_error(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with refused(LinkError, 5, f"{server.url}: a file is required. Received: status 404 Not Found."):
        fetch(NAME, tmp_path, url=server.url)


def test_server_that_is_not_there_is_a_link_error(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.zip"
        with refused(LinkError, 5, "a server that answers is required. Received: ", "refused", "Check the network"):
            fetch(NAME, tmp_path, url=url)


def test_server_that_never_answers_is_a_link_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip"
        with refused(LinkError, 5, "a server that answers is required. Received: timed out."):
            fetch(NAME, tmp_path, url=url)


def test_server_that_stalls_is_a_link_error_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.zip"

        def stall() -> None:
            link, _ = server.accept()
            link.recv(4096)
            link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart")
            link.recv(1)  # until the other side gives up
            link.close()

        thread = threading.Thread(target=stall)
        thread.start()
        with refused(
            LinkError, 5, "the whole file is required. Received: a part, then timed out.", "goes on from there"
        ):
            fetch(NAME, tmp_path, url=url)
        thread.join()


def test_full_disk_is_a_data_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.zip.partial").symlink_to("/dev/full")
    with refused(DataError, 2, "with space to write is required. Received: No space left on device.", "make room"):
        fetch(NAME, tmp_path, url=server.url)


def test_folder_that_is_a_file_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with refused(DataError, 2, f"{tmp_path}/file: a folder with space to write is required."):
        fetch(NAME, tmp_path / "file", url=server.url)


def test_command_prints_one_result_line_on_stdout(server: Server, tmp_path: Path) -> None:
    command = ["fetch", NAME, "--folder", str(tmp_path), "--url", server.url]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"{tmp_path}/{NAME} from 0.1 MiB ({len(ZIP)} bytes), sha256 {hashlib.sha256(ZIP).hexdigest()} "
        "(no sum is pinned for it: pass this one as --sha256 next time).\n"
    )
    again = CliRunner().invoke(app, command)
    assert again.stdout == f"{tmp_path}/{NAME} is already there; nothing was downloaded.\n"


def test_command_prints_json(server: Server, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(ZIP).hexdigest()
    command = ["fetch", NAME, "--folder", str(tmp_path), "--url", server.url, "--sha256", sha256, "--json"]
    result = CliRunner().invoke(app, command)
    assert json.loads(result.stdout) == {
        "folder": f"{tmp_path}/{NAME}",
        "already_there": False,
        "sha256": sha256,
        "size_bytes": len(ZIP),
        "checked": True,
    }


def test_command_passes_expected_errors_on() -> None:
    assert isinstance(CliRunner().invoke(app, ["fetch", "flowers"]).exception, DataError)
