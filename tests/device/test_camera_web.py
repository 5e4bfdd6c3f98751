"""The page's server, asked as browsers, other sites and programs ask it."""

from __future__ import annotations

import json
import socket
import time
import zipfile

import cv2
import numpy as np
import pytest
from camera_page import TOKEN, Page, frame, next_news, next_part

from liteship.payload import agent_archive
from liteship_agent.camera.errors import CameraError
from liteship_agent.camera.frame import Frame
from liteship_agent.camera.slot import Latest
from liteship_agent.camera.web import server as web
from liteship_agent.camera.web.access import Access, choose_token
from liteship_agent.camera.web.feed import Feed
from liteship_agent.camera.web.picture import LivePicture, encode
from liteship_agent.camera.web.server import CameraServer, PortError, RefusedError


@pytest.fixture
def page():
    page = Page()
    yield page
    page.close()


@pytest.fixture
def locked(monkeypatch):
    monkeypatch.setattr(web, "_WRONG_TOKEN_SECONDS", 0.0)
    page = Page(TOKEN)
    yield page
    page.close()


def until(condition) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- the page ---


@pytest.mark.parametrize(
    ("path", "kind", "has"),
    [
        ("/", "text/html", b"<!doctype html>"),
        ("/page.css", "text/css", b"prefers-color-scheme"),
        ("/page.js", "text/javascript", b"EventSource"),
    ],
)
def test_page_and_its_files_come_with_a_policy_of_this_origin_only(page, path, kind, has):
    status, headers, body = page.get(path)
    assert (status, headers["Content-Type"].partition(";")[0], has in body) == (200, kind, True)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js"])
def test_page_names_no_other_place(page, path):
    body = page.get(path)[2]
    assert b"://" not in body
    assert b"innerHTML" not in body


def test_page_files_are_in_the_archive_that_the_board_gets(tmp_path):
    archive = tmp_path / "liteship_agent.zip"
    archive.write_bytes(agent_archive())
    with zipfile.ZipFile(archive) as packed:
        assert packed.read("liteship_agent/camera/web/page.js").startswith(b'"use strict"')


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page.html", "/server.py", "/frames/1.jpg"],
)
def test_no_path_reaches_a_file(page, path):
    assert page.get(path)[0] == 404


def test_health_tells_the_state_to_programs(page):
    assert json.loads(page.get("/health")[2]) == {"state": "running", "viewers": 0}


# --- the picture ---


def test_stream_is_one_jpeg_after_the_other(page):
    stream = page.open("/stream")
    assert stream.getheader("Content-Type") == "multipart/x-mixed-replace; boundary=liteship-frame"
    assert stream.readline() == b"--liteship-frame\r\n"
    for number in (1, 2, 3):
        page.frames.publish(frame(number))
        pixels = cv2.imdecode(np.frombuffer(next_part(stream), np.uint8), cv2.IMREAD_COLOR)
        assert abs(int(pixels.mean()) - number * 37) <= 1
        assert stream.readline() == b"--liteship-frame\r\n"
    stream.close()


def test_frame_is_encoded_once_for_twenty_viewers_and_never_for_none(page):
    page.frames.publish(frame(1))
    assert page.picture.encoded == 0
    streams = [page.open("/stream") for _ in range(20)]
    pictures = set()
    for stream in streams:
        stream.readline()
        pictures.add(next_part(stream))
    assert len(pictures) == 1
    until(lambda: page.server.viewers == 20)
    assert json.loads(page.get("/health")[2])["viewers"] == 20
    for stream in streams:
        stream.close()


def test_pictures_come_no_faster_than_their_rate_whatever_the_frames_do():
    now = [100.0]
    frames: Latest[Frame] = Latest()
    waited = []

    def pause(seconds: float) -> None:
        waited.append(round(seconds, 6))
        now[0] += seconds
        frames.publish(frame(9))

    picture = LivePicture(frames, 20.0, lambda: now[0], pause)
    frames.publish(frame(1))
    first = picture.next(0, 0)
    frames.publish(frame(2))
    second = picture.next(first.version, 0)
    assert (first.number, second.number, waited, picture.encoded) == (1, 9, [0.05], 2)
    assert picture.next(second.version, 0) is None


def test_two_who_ask_within_an_interval_share_one_picture():
    now = [100.0]
    frames: Latest[Frame] = Latest()
    picture = LivePicture(frames, 20.0, lambda: now[0], lambda seconds: None)
    frames.publish(frame(1))
    assert picture.next(0, 0) is picture.next(0, 0)
    assert picture.encoded == 1


def test_large_frame_is_shrunk_and_a_camera_s_own_jpeg_is_passed_on():
    assert cv2.imdecode(np.frombuffer(encode(frame(1, 3000, 4000)), np.uint8), 1).shape == (720, 960, 3)
    assert encode(frame(1, jpeg=b"the camera's")) == b"the camera's"
    assert encode(frame(1, 3000, 4000, jpeg=b"the camera's")) != b"the camera's"


def test_stalled_browser_loses_its_own_connection_and_holds_nobody_up(page, monkeypatch):
    monkeypatch.setattr(web, "_SEND_SECONDS", 0.3)
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    page.frames.publish(Frame(noise, 0, 0))
    stalled = socket.create_connection(("127.0.0.1", page.server.port))
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    until(lambda: page.server.viewers == 1)
    other = page.open("/stream")
    other.readline()
    number = 0
    while page.server.viewers != 1 or number < 20:  # the stalled one is let go, the other one goes on
        number += 1
        page.frames.publish(Frame(noise, number, number))
        assert next_part(other)
        other.readline()
        assert number < 5000
    stalled.close()
    other.close()


# --- the news ---


def test_news_are_the_newest_of_each_kind(page):
    page.feed.publish("state", {"state": "running"})
    page.feed.publish("figures", {"classified": 1})
    page.feed.publish("figures", {"classified": 2})
    page.feed.publish("saved", {"name": "old"}, lasts=False)
    stream = page.open("/events")
    assert [next_news(stream), next_news(stream)] == [
        ("state", '{"state": "running"}'),
        ("figures", '{"classified": 2}'),
    ]
    page.feed.publish("saved", {"name": "new"}, lasts=False)
    assert next_news(stream) == ("saved", '{"name": "new"}')
    stream.close()


def test_slow_reader_skips_news():
    feed = Feed()
    reader = feed.reader()
    assert reader.next(0) == []
    for number in range(1000):
        feed.publish("frame", number)
    assert reader.next(0) == [("frame", "999")]
    feed.close()
    assert reader.next(60) == []


def test_news_hold_any_class_name_as_text(page):
    name = "<script>alert(1)</script>\n\ndata: 😀 \u2028 قطة"
    page.feed.publish("frame", {"label": name})
    stream = page.open("/events")
    assert json.loads(next_news(stream)[1])["label"] == name
    stream.close()


# --- the buttons ---


def test_buttons_are_pressed_by_the_page(page):
    assert [page.press(f"/{button}")[0] for button in ("pause", "resume")] == [200, 200]
    status, _, body = page.press("/save")
    assert (status, json.loads(body)) == (200, {"saved": "frame-1.jpg"})
    assert page.buttons.pressed == ["pause", "resume", "save"]


def test_refused_button_tells_why(page):
    page.buttons.refusal = RefusedError(507, "No space is left on the board.")
    status, _, body = page.press("/save")
    assert (status, json.loads(body)) == (507, {"error": "No space is left on the board."})


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}],
    ids=["none", "other", "null", "port"],
)
def test_no_other_page_presses_buttons(page, headers):
    assert page.ask("POST", "/pause", headers)[0] == 403
    assert page.buttons.pressed == []


def test_button_takes_no_content_and_get_presses_none(page):
    own = {"Origin": f"http://{page.host}"}
    assert page.ask("POST", "/pause", own, b"x" * 5000)[0] == 413
    assert page.get("/pause")[0] == 404
    assert page.press("/format-disk")[0] == 404
    assert page.buttons.pressed == []


def test_other_methods_are_refused_as_text(page):
    status, headers, body = page.ask("DELETE", "/")
    assert (status, headers["Content-Type"], b"<" in body) == (501, "text/plain; charset=utf-8", False)


# --- who may come in ---


def test_name_that_somebody_points_here_is_refused(page):
    assert page.get("/", Host="evil.example")[0] == 421
    assert page.get("/", Host="evil.example:80")[0] == 421
    assert page.get("/", Host="localhost:5000")[0] == 200


@pytest.mark.parametrize(
    ("served", "header", "is_ours"),
    [
        ("127.0.0.1", "127.0.0.1:9", True),
        ("127.0.0.1", "[::1]:9", True),
        ("127.0.0.1", "192.168.1.5", False),
        ("127.0.0.1", None, False),
        ("127.0.0.1", "[::1", False),
        ("0.0.0.0", "192.168.1.5:80", True),
        ("0.0.0.0", f"{socket.gethostname()}.local".lower(), True),
        ("0.0.0.0", "evil.example", False),
        ("pi.lan", "PI.lan:80", True),
    ],
)
def test_hosts_that_mean_this_machine(served, header, is_ours):
    assert Access(served, None).names_us(header) is is_ours


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_may_not_show_the_picture(page, site):
    assert page.get("/stream", Sec_Fetch_Site=site)[0] == 403
    assert page.get("/", Sec_Fetch_Site=site)[0] == 200  # a link to the page is fine


@pytest.mark.parametrize("path", ["/", "/page.js", "/stream", "/events", "/health", "/nothing"])
@pytest.mark.parametrize("query", ["", "?token=wrong-horse", "?token=", "?token=%ff", "?" + "a=1&" * 9])
def test_nothing_is_served_without_the_token(locked, path, query):
    status, headers, body = locked.get(path + query)
    assert (status, "Set-Cookie" in headers, b"token is missing or wrong" in body) == (401, False, True)


def test_no_button_without_the_token(locked):
    assert locked.press("/pause")[0] == 401
    assert locked.buttons.pressed == []


def test_the_cookie_of_a_camera_that_starts_anew_is_still_good_and_another_camera_has_another():
    assert Access("127.0.0.1", "abc").cookie == Access("127.0.0.1", "abc").cookie
    assert Access("127.0.0.1", "abc").cookie != Access("127.0.0.1", "abd").cookie


def test_token_in_the_address_becomes_a_cookie(locked):
    status, headers, _ = locked.get(f"/?token={TOKEN}")
    cookie = headers["Set-Cookie"]
    assert (status, cookie.split("; ")[1:]) == (200, ["HttpOnly", "SameSite=Strict", "Path=/"])
    kept = cookie.partition(";")[0]
    assert locked.get("/page.js", Cookie=f"other=1; {kept}")[0] == 200
    assert locked.press("/pause", Cookie=kept)[0] == 200
    assert locked.get("/page.js", Cookie=kept + "x")[0] == 401


def test_address_that_others_reach_requires_a_token():
    with pytest.raises(CameraError, match=r"a token is required where others reach the page, as on 0\.0\.0\.0"):
        choose_token(None, "0.0.0.0")
    with pytest.raises(CameraError, match="8 or more"):
        choose_token("short", "0.0.0.0")
    assert choose_token("none", "localhost") is None
    assert len(choose_token("auto", "0.0.0.0")) >= 20
    assert choose_token(TOKEN, "127.0.0.1") == TOKEN


# --- connections ---


def test_port_in_use_is_told(page):
    with pytest.raises(PortError, match=f"Received: {page.server.port}, which another program has"):
        CameraServer(page.server._server.shown, "127.0.0.1", page.server.port, None)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 70000)])
def test_address_of_another_machine_is_told(page, host, port):
    with pytest.raises(PortError, match="an address and port of this machine are required"):
        CameraServer(page.server._server.shown, host, port, None)


def test_more_connections_than_served_get_503_and_room_comes_back():
    page = Page(most_connections=2)
    streams = [page.open("/events") for _ in range(2)]
    status, headers, _ = page.get("/")
    assert (status, headers["Retry-After"]) == (503, "5")
    page.feed.publish("state", {})
    streams[0].close()
    for _ in range(500):
        page.feed.publish("state", {})
        if page.get("/")[0] == 200:
            break
    else:
        pytest.fail("no room came back")
    streams[1].close()
    page.close()


def test_who_is_slow_to_ask_holds_nobody_up_when_there_is_no_room():
    page = Page(most_connections=1)
    stream = page.open("/events")
    silent = [socket.create_connection(("127.0.0.1", page.server.port)) for _ in range(3)]
    assert page.get("/")[0] == 503
    for connection in silent:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 503 ")
        connection.close()
    stream.close()
    page.close()


def test_closing_ends_streams_that_are_open(page):
    page.frames.publish(frame(1))
    page.feed.publish("state", {"state": "ended"})
    news, stream = page.open("/events"), page.open("/stream")
    page.close()
    assert b"ended" in news.read()
    assert stream.read().count(b"image/jpeg") <= 1
    with pytest.raises(ConnectionRefusedError):
        page.get("/")
