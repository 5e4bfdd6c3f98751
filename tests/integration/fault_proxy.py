"""A TCP proxy in front of a server, which can delay, slow, freeze, damage and cut what passes, as a bad link does."""

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
        damage_at: A byte of the client, counted over each connection, that arrives as another one.
        delay_seconds: For every piece, in both directions.
        bytes_per_second: Of the client, at most.
        frozen: Accept, and pass nothing on from the start.
    """

    def __init__(
        self,
        target: Target,
        *,
        cut_after: tuple[int, ...] = (),
        damage_at: int | None = None,
        delay_seconds: float = 0.0,
        bytes_per_second: float | None = None,
        frozen: bool = False,
    ) -> None:
        self.connections = 0
        self._address = (target.host, target.port)
        self._limits = list(cut_after)
        self._damage_at, self._delay_seconds, self._bytes_per_second = damage_at, delay_seconds, bytes_per_second
        self._thawed, self._closing = threading.Event(), threading.Event()
        self._freezes = [self._thawed]
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
            for thawed in self._freezes:
                thawed.set()
            self.end()

    def freeze(self) -> None:
        """From now on nothing passes; connections stay open and new ones are accepted."""
        self._thawed.clear()

    def freeze_open(self) -> None:
        """From now on nothing passes through what is open now; new connections are as good as ever."""
        self._thawed.clear()
        self._thawed = threading.Event()
        self._thawed.set()
        self._freezes.append(self._thawed)

    def end(self) -> None:
        """As when the server is killed: nobody listens any more, and what is open ends."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes who accepts, which close does not
        self._server.close()
        self.cut()

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
                for ends in ((near, far, limit, self._damage_at, self._bytes_per_second), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        most: int | None = None,
        damage_at: int | None = None,
        bytes_per_second: float | None = None,
    ) -> None:
        thawed = self._thawed
        with contextlib.suppress(OSError):
            passed = 0
            while most is None or passed < most:
                thawed.wait()
                data = source.recv(65536 if most is None else min(65536, most - passed))
                thawed.wait()
                if not data or self._closing.is_set():
                    break
                if damage_at is not None and passed <= damage_at < passed + len(data):
                    place = damage_at - passed
                    data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
                time.sleep(self._delay_seconds + (len(data) / bytes_per_second if bytes_per_second else 0))
                sink.sendall(data)
                passed += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes who reads the other way, which close does not
