"""A TCP proxy in front of a server, which can delay, freeze and cut what passes, as a bad link does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from liteship.targets import Target


class FaultProxy:
    """Passes connections on to a target.

    Args:
        target: Whom to pass them on to.
        cut_after: Bytes of the client after which each of the next connections is cut, one entry each.
        delay_seconds: For every piece, in both directions.
        frozen: Accept, and pass nothing on from the start.
    """

    def __init__(
        self, target: Target, *, cut_after: tuple[int, ...] = (), delay_seconds: float = 0.0, frozen: bool = False
    ) -> None:
        self.connections = 0
        self._address = (target.host, target.port)
        self._limits = list(cut_after)
        self._delay_seconds = delay_seconds
        self._thawed, self._closing = threading.Event(), threading.Event()
        if not frozen:
            self._thawed.set()
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.target = target.model_copy(update={"port": self._server.getsockname()[1]})

    @contextlib.contextmanager
    def running(self) -> Iterator[FaultProxy]:
        """Accept while the body runs."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._closing.set()
            self._thawed.set()
            self._server.close()
            self.cut()

    def freeze(self) -> None:
        """From now on nothing passes; connections stay open and new ones are accepted."""
        self._thawed.clear()

    def cut(self) -> None:
        """End all connections."""
        while self._sockets:
            with contextlib.suppress(OSError):
                self._sockets.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self.connections += 1
                far = socket.create_connection(self._address)
                self._sockets += [near, far]
                limit = self._limits.pop(0) if self._limits else None
                for source, sink, most in ((near, far, limit), (far, near, None)):
                    threading.Thread(target=self._pump, args=(source, sink, most), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, most: int | None) -> None:
        with contextlib.suppress(OSError), source, sink:
            passed = 0
            while most is None or passed < most:
                self._thawed.wait()
                data = source.recv(65536)
                self._thawed.wait()
                if not data or self._closing.is_set():
                    break
                time.sleep(self._delay_seconds)
                sink.sendall(data)
                passed += len(data)
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)
