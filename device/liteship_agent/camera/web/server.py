"""The page's server: a thread per connection, of which there is a bounded number.

The picture is one endless multipart answer and the news are server-sent events; each sends only what is newest when
the browser has taken what came before, so that a slow one skips and never holds up anybody else. Every path is a name
of this list, none of a file: nothing that a browser sends is ever looked up on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import pkgutil
import socket
import socketserver
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Mapping, Optional, Protocol
from urllib.parse import urlsplit

from liteship_agent.camera.errors import CameraError
from liteship_agent.camera.web.access import Access
from liteship_agent.camera.web.feed import Feed, as_server_sent
from liteship_agent.camera.web.picture import LivePicture, Picture

MOST_CONNECTIONS = 64
"""Twenty viewers have two each, and one now and then for a button."""
_REQUEST_SECONDS = 10.0
_SEND_SECONDS = 5.0
_WAIT_SECONDS = 1.0
_PING_SECONDS = 5.0
_NEWS_SECONDS = 0.1
_SEND_BUFFER_BYTES = 1 << 17  # what waits in it is old when it arrives
_MOST_BODY_BYTES = 1024
_MOST_TURNED_AWAY = 8  # at a time; more are cut off without a word
_TURN_AWAY_SECONDS = 2.0
_WRONG_TOKEN_SECONDS = 0.5
_BOUNDARY = "liteship-frame"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Connection": "close",
}
_FULL = b"The page has as many viewers as it can serve. Try again later.\n"
_NO_ROOM = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_FULL), _FULL)
)
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class PortError(CameraError):
    """The page cannot be served there: the port is in use, or the address is not this machine's."""


class RefusedError(CameraError):
    """A button that cannot do what it is for, now.

    Args:
        status: Of HTTP.
        message: For the person who pressed it.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Controls(Protocol):
    """What the page's buttons do; any thread may call them."""

    def pause(self) -> None:
        """Stop taking frames."""

    def resume(self) -> None:
        """Go on."""

    def save(self) -> str:
        """Keep the frame that is shown with its label.

        Returns:
            The name of its file.
        Raises:
            RefusedError: there is no frame yet, or it cannot be written.
        """

    def health(self) -> Mapping[str, Any]:
        """How the camera is, for programs."""


@dataclass(frozen=True)
class Shown:
    """All that the page shows and does."""

    controls: Controls
    picture: LivePicture
    feed: Feed


class CameraServer:
    """Serves the page until it is closed.

    Args:
        shown: What it shows.
        host: Address to listen on.
        port: 0 for any free one.
        token: See `access.choose_token`.
        most_connections: More are refused with status 503.
    Raises:
        PortError: it cannot listen there.
    """

    def __init__(
        self, shown: Shown, host: str, port: int, token: Optional[str], most_connections: int = MOST_CONNECTIONS
    ) -> None:
        try:
            self._server = _Server(host, port, shown, most_connections)
        except (OSError, OverflowError) as exc:
            raise _port_error(host, port, exc) from exc
        self.token = token
        self._server.access = Access(host, token)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="page", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self._server.server_address[1])

    @property
    def viewers(self) -> int:
        """Browsers that get the picture now."""
        return self._server.viewers

    def close(self, seconds: float = 1.0) -> None:
        """Listen no more and let go of every connection.

        Args:
            seconds: The longest wait for what is being sent.
        """
        self._server.is_closing = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        deadline = time.monotonic() + seconds
        while self._server.open_connections and time.monotonic() < deadline:
            time.sleep(0.01)


def _port_error(host: str, port: int, error: Exception) -> PortError:
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return PortError(
            f"a free port is required on {host}. Received: {port}, which another program has; "
            "choose another with --port, or none to get a free one"
        )
    reason = getattr(error, "strerror", None) or str(error)
    return PortError(f"an address and port of this machine are required. Received: {host}, {port}: {reason}")


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One thread per connection, up to a number."""

    daemon_threads, block_on_close, allow_reuse_address = True, False, True
    request_queue_size = 128

    def __init__(self, host: str, port: int, shown: Shown, most_connections: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.shown = shown
        self.access: Access
        self.is_closing = False
        self.viewers = self.open_connections = 0
        self._counting = threading.Lock()
        self._room = threading.BoundedSemaphore(most_connections)
        self._door = threading.BoundedSemaphore(_MOST_TURNED_AWAY)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            if self._door.acquire(blocking=False):
                threading.Thread(target=self._turn_away, args=(request,), daemon=True).start()
            else:
                self.shutdown_request(request)
            return
        with self._counting:
            self.open_connections += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._counting:
                self.open_connections -= 1
            self._room.release()

    def _turn_away(self, request: socket.socket) -> None:
        """Say that there is no room; beside the others, because who asks may be slow in asking."""
        try:
            with contextlib.suppress(OSError):
                request.settimeout(_TURN_AWAY_SECONDS)
                request.recv(4096)  # closing on unread bytes would reset the connection, and the answer would be lost
                request.sendall(_NO_ROOM)
        finally:
            self.shutdown_request(request)
            self._door.release()

    @contextlib.contextmanager
    def viewer(self) -> Iterator[None]:
        """Count one who gets the picture."""
        with self._counting:
            self.viewers += 1
        try:
            yield
        finally:
            with self._counting:
                self.viewers -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; anything else is a bug and shows its traceback."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request; its connection ends with the answer."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "liteship", ""
    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the camera's own lines are on stdout and stderr."""

    # --- what is asked ---

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if not self._may_come_in(address.path, address.query):
            return
        special = {"/stream": self._stream, "/events": self._events, "/health": self._health}
        if address.path in special:
            special[address.path]()
        elif address.path == "/favicon.ico":  # every browser asks for one
            self._head(204, {})
        elif address.path in _FILES:
            name, kind = _FILES[address.path]
            cookie = self.server.access.set_cookie() if self.server.access.came_by_address(address.query) else None
            self._answer(200, pkgutil.get_data(__package__, name) or b"", kind, cookie)
        else:
            self._say(404, "There is no such page.")

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        if not self._took_body() or not self._may_come_in(address.path, address.query):
            return
        controls = self.server.shown.controls
        buttons = {"/pause": controls.pause, "/resume": controls.resume, "/save": controls.save}
        if address.path not in buttons:
            self._say(404, "There is no such button.")
        elif not self.server.access.is_same_origin(self.headers):
            self._say(403, "Only the camera's own page may press its buttons.")
        else:
            try:
                name = buttons[address.path]()
            except RefusedError as exc:
                self._answer_json(exc.status, {"error": str(exc)})
            else:
                self._answer_json(200, {"saved": name} if name else {})

    def _took_body(self) -> bool:
        """Read what a POST brings, which means nothing."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _MOST_BODY_BYTES:
            self._say(413, "No content is wanted.")
            return False
        self.rfile.read(int(length))
        return True

    def _may_come_in(self, path: str, query: str) -> bool:
        access = self.server.access
        if not access.names_us(self.headers.get("Host")):
            self._say(421, "This address does not belong to the camera: open it by its number, or as localhost.")
        elif path != "/" and access.is_cross_site(self.headers):
            self._say(403, "Pages of other sites may not show the camera.")
        elif not access.has_token(query, self.headers):
            time.sleep(_WRONG_TOKEN_SECONDS)
            self._say(401, "The token is missing or wrong: open the whole address that the camera printed, once.")
        else:
            return True
        return False

    # --- what is answered ---

    def _stream(self) -> None:
        picture = self.server.shown.picture
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._begin(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self._send(f"--{_BOUNDARY}\r\n".encode())
        version, spoke = 0, time.monotonic()
        shown: Optional[Picture] = None
        with self.server.viewer():
            while not (self.server.is_closing or picture.is_closed):
                shown = picture.next(version, _WAIT_SECONDS) or shown
                if shown is None:
                    continue
                is_new = shown.version > version
                if is_new or time.monotonic() - spoke > _PING_SECONDS:
                    # The last one again from time to time: a browser that went away while paused shows only then.
                    self._send(_part(shown))
                    version, spoke = shown.version, time.monotonic()

    def _events(self) -> None:
        reader = self.server.shown.feed.reader()
        self._begin("text/event-stream")
        self._send(b"retry: 1000\n\n")
        spoke = time.monotonic()
        while not (self.server.is_closing or self.server.shown.feed.is_closed):
            news = reader.next(_WAIT_SECONDS)
            if news:
                self._send(as_server_sent(news))
            elif time.monotonic() - spoke > _PING_SECONDS:
                self._send(b": still here\n\n")
            else:
                continue
            spoke = time.monotonic()
            time.sleep(_NEWS_SECONDS)
        self._send(as_server_sent(reader.next(0)))  # that it has ended

    def _health(self) -> None:
        self._answer_json(200, {**self.server.shown.controls.health(), "viewers": self.server.viewers})

    def _begin(self, kind: str) -> None:
        """The head of an answer without a known end."""
        self.connection.settimeout(_SEND_SECONDS)
        self._head(200, {"Content-Type": kind, "X-Accel-Buffering": "no"})

    def _send(self, content: bytes) -> None:
        """Raises OSError for a browser that has not taken it in time, which ends its connection and no other."""
        self.wfile.write(content)
        self.wfile.flush()

    def _answer(self, status: int, content: bytes, kind: str, cookie: Optional[str] = None) -> None:
        headers = {"Content-Type": kind, "Content-Length": str(len(content))}
        if cookie is not None:
            headers["Set-Cookie"] = cookie
        self._head(status, headers)
        self._send(content)

    def _answer_json(self, status: int, value: Mapping[str, Any]) -> None:
        self._answer(status, json.dumps(value).encode("ascii"), "application/json")

    def _say(self, status: int, text: str) -> None:
        self._answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8")

    def _head(self, status: int, headers: Dict[str, str]) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: Optional[str] = None, explain: Optional[str] = None) -> None:
        """What the base class says about a request that is none, with our headers and as text."""
        self._say(code, message or self.responses.get(code, ("an error",))[0])


def _part(picture: Picture) -> bytes:
    """One picture with the boundary after it: a browser shows a picture when it sees that the next one begins."""
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.content)}\r\nX-Frame: {picture.number}\r\n\r\n"
    return head.encode() + picture.content + f"\r\n--{_BOUNDARY}\r\n".encode()
