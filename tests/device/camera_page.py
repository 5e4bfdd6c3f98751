"""A camera's page on a free port with frames and news made up, and requests to it as a browser sends them."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from liteship_agent.camera.frame import Frame
from liteship_agent.camera.slot import Latest
from liteship_agent.camera.web.feed import Feed
from liteship_agent.camera.web.picture import LivePicture
from liteship_agent.camera.web.server import CameraServer, Shown

TOKEN = "correct horse".replace(" ", "-")


def frame(number: int, height: int = 48, width: int = 64, **changes: object) -> Frame:
    """One with a grey that tells its number."""
    return Frame(np.full((height, width, 3), (number * 37) % 256, np.uint8), number, number, **changes)


class Buttons:
    """Notes what is pressed."""

    def __init__(self) -> None:
        self.pressed: list[str] = []
        self.refusal: Exception | None = None

    def pause(self) -> None:
        self.pressed.append("pause")

    def resume(self) -> None:
        self.pressed.append("resume")

    def save(self) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.pressed.append("save")
        return "frame-1.jpg"

    def health(self) -> Mapping[str, Any]:
        return {"state": "running"}


class Page:
    """The page of a camera that is made up."""

    def __init__(self, token: str | None = None, host: str = "127.0.0.1", **options: Any) -> None:
        self.frames: Latest[Frame] = Latest()
        self.feed, self.buttons = Feed(), Buttons()
        self.picture = LivePicture(self.frames, rate_hz=1e6)
        self.server = CameraServer(Shown(self.buttons, self.picture, self.feed), host, 0, token, **options)

    @property
    def host(self) -> str:
        """As the Host header names it."""
        return f"127.0.0.1:{self.server.port}"

    def connection(self) -> http.client.HTTPConnection:
        """A new one."""
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None):
        """Status, headers and body of an answer that ends."""
        connection = self.connection()
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        found = answer.status, answer.headers, answer.read()
        connection.close()
        return found

    def get(self, path: str, **headers: str):
        """As a browser that was told the address."""
        return self.ask("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})

    def press(self, path: str, **headers: str):
        """As the page's own script does."""
        own = {"Origin": f"http://{self.host}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.ask("POST", path, own)

    def open(self, path: str):
        """An answer without an end, of which the head has come."""
        connection = self.connection()
        connection.request("GET", path)
        return connection.getresponse()

    def close(self) -> None:
        """End all."""
        self.frames.close()
        self.feed.close()
        self.server.close()


def next_part(stream: http.client.HTTPResponse) -> bytes:
    """The next JPEG of a multipart answer."""
    length = 0
    for line in iter(stream.readline, b"\r\n"):
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    content = stream.read(length)
    stream.readline()
    return content


def next_news(stream: http.client.HTTPResponse) -> tuple[str, str]:
    """Kind and JSON of the next server-sent event."""
    kind = data = ""
    for line in iter(stream.readline, b""):
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not name and kind:
            return kind, data
    return "", ""


def later(work, *arguments: Any) -> threading.Thread:
    """Do something beside."""
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread
