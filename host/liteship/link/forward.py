"""A port of this computer that leads to one of the target: every connection to it is an SSH channel of its own.

A connection has two threads, one for each direction, so that one that stalls holds up no other. What is not read yet is
bounded by the channel's window and the sockets' buffers; a direction that ends is ended on the other side too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from urllib.parse import quote

import paramiko
from paramiko.common import OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
from paramiko.ssh_exception import ChannelException

from liteship.errors import LinkError, UsageError
from liteship.link.conversation import END_SECONDS
from liteship.link.ordered import in_order
from liteship.link.waiting import LOST, lost, within

ADDRESS = "127.0.0.1"
"""The only one, on both sides: nobody else's computer gets in."""

_OPEN_SECONDS = 10.0
_WINDOW_BYTES = 256 << 10
"""Of each channel: what waits for a browser that stalls. A few pictures, so that a slow one is not far behind."""
_PIECE_BYTES = 1 << 15
_TICK_SECONDS = 0.1


class ForwardingError(LinkError):
    """The target opens no connection to the port."""


def listen(port: int = 0) -> socket.socket:
    """A socket that accepts connections from this computer.

    Args:
        port: 0 takes any free one.
    Raises:
        UsageError: the port is taken or may not be used.
    """
    try:
        return socket.create_server((ADDRESS, port))
    except (OSError, OverflowError) as exc:
        reason = os.strerror(exc.errno or 0) if isinstance(exc, OSError) else "no port number"
        raise UsageError(
            f"A free port of {ADDRESS} is required. Received: {port} ({reason}).", "0 takes any free one."
        ) from exc


def page_address(listener: socket.socket, token: str | None = None) -> str:
    """Of a web page that is led to a listening socket, with the token that it requires."""
    query = f"?token={quote(token, safe='')}" if token else ""
    return f"http://{ADDRESS}:{listener.getsockname()[1]}/{query}"


class Forward:
    """Leads connections to a listening socket to a port of 127.0.0.1 on the target, while its block runs.

    Args:
        name: Of the target.
        transport: After login.
        port: On the target.
        listener: From `listen`; it stays open, and who connects to it later waits for the next forward of it.
        give_up: Ends the whole connection, where its channels cannot be closed any more.
    """

    def __init__(
        self,
        name: str,
        transport: paramiko.Transport,
        port: int,
        listener: socket.socket,
        give_up: Callable[[], None],
    ) -> None:
        self._name, self._transport, self._port, self._listener = name, transport, port, listener
        self._give_up = give_up
        self._closing = threading.Event()
        self._passages: set[_Passage] = set()
        self._lock = threading.Lock()
        self._acceptor = threading.Thread(target=self._accept, name="liteship-forward", daemon=True)

    def __enter__(self) -> Forward:
        """Begin.

        Raises:
            ForwardingError: the target allows no forwarding, or nothing listens on that port there.
            LostLinkError: the link was lost.
        """
        self._try_out()
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all connections and threads; if the link does not even take that, it is ended as a whole."""
        self._closing.set()
        self._acceptor.join()
        with self._lock:
            passages = list(self._passages)

        def close_all() -> None:
            for passage in passages:
                passage.close()

        try:
            within(END_SECONDS, close_all)
        except LOST:
            self._give_up()
        deadline = time.monotonic() + END_SECONDS
        for passage in passages:
            passage.thread.join(max(0.0, deadline - time.monotonic()))
        if any(passage.thread.is_alive() for passage in passages):
            self._give_up()

    def _try_out(self) -> None:
        """Open one channel, so that a refusal is told here and not by a browser."""
        try:
            channel = within(_OPEN_SECONDS, lambda: self.open_channel((ADDRESS, 0)))
            within(END_SECONDS, channel.close)
        except ChannelException as exc:
            prohibited = exc.code == OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
            reason = "administratively prohibited" if prohibited else exc.text or "refused"
            hint = "Set AllowTcpForwarding to yes in its sshd_config, and look at PermitOpen." if prohibited else ""
            raise ForwardingError(
                f"{self._name}: a forwarded connection to {ADDRESS}:{self._port} is required. Received: {reason}.", hint
            ) from exc
        except LOST as exc:
            self._give_up()
            raise lost(self._name, exc) from exc

    def open_channel(self, source: tuple[str, int]) -> paramiko.Channel:
        """A new channel to the port, for who comes from `source`."""
        channel = self._transport.open_channel(
            "direct-tcpip", (ADDRESS, self._port), source, window_size=_WINDOW_BYTES, timeout=2 * _OPEN_SECONDS
        )
        return in_order(channel)

    def _accept(self) -> None:
        self._listener.settimeout(_TICK_SECONDS)
        while not self._closing.is_set() and self._transport.is_active():
            try:
                near, address = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # who connected is gone again, or there are too many open files
                self._closing.wait(_TICK_SECONDS)
                continue
            near.setblocking(True)
            passage = _Passage(near, lambda source=address: self.open_channel(source), self._forget)  # type: ignore[misc]
            with self._lock:
                self._passages.add(passage)
            passage.thread.start()

    def _forget(self, passage: _Passage) -> None:
        with self._lock:
            self._passages.discard(passage)


class _Passage:
    """One connection and its channel; ends, with both threads, when both directions or one of its ends are over.

    Args:
        near: The connection that was accepted.
        open_channel: Makes the channel; in this one's thread, because it waits for the target.
        on_end: Called last.
    """

    def __init__(
        self, near: socket.socket, open_channel: Callable[[], paramiko.Channel], on_end: Callable[[_Passage], None]
    ) -> None:
        self.thread = threading.Thread(target=self._run, name="liteship-forward-down", daemon=True)
        self._near, self._open_channel, self._on_end = near, open_channel, on_end
        self._channel: paramiko.Channel | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._ended: list[str] = []

    def close(self) -> None:
        """End it now, whatever is still under way."""
        with self._lock:
            self._is_closed = True
        self._hang_up()
        if self._channel is not None:
            self._channel.close()

    def _run(self) -> None:
        try:
            with self._near, contextlib.suppress(*LOST):
                self._near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                channel = self._open_channel()
                with self._lock:
                    self._channel = channel
                    is_late = self._is_closed
                if is_late:
                    channel.close()
                else:
                    self._pass_both_ways(channel)
        finally:
            self._on_end(self)

    def _pass_both_ways(self, channel: paramiko.Channel) -> None:
        upward = threading.Thread(target=self._pass_up, args=(channel,), name="liteship-forward-up", daemon=True)
        upward.start()
        try:
            self._pass_down(channel)
            channel.status_event.wait()  # set when the channel is closed
        finally:
            self._hang_up()  # wakes the other thread, which closing the socket would not
            upward.join()

    def _pass_down(self, channel: paramiko.Channel) -> None:
        try:
            while data := channel.recv(_PIECE_BYTES):
                self._near.sendall(data)
            with contextlib.suppress(OSError):
                self._near.shutdown(socket.SHUT_WR)
            self._end_direction("down", channel)
        except LOST:
            _close(channel)

    def _pass_up(self, channel: paramiko.Channel) -> None:
        try:
            while data := self._near.recv(_PIECE_BYTES):
                channel.sendall(data)
            channel.shutdown_write()
            self._end_direction("up", channel)
        except LOST:
            _close(channel)

    def _end_direction(self, which: str, channel: paramiko.Channel) -> None:
        """Note that one direction is over; the channel is closed by whoever finds the other one over too."""
        self._ended.append(which)
        if len(self._ended) > 1:
            _close(channel)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):  # closed already, on either side
            self._near.shutdown(socket.SHUT_RDWR)


def _close(channel: paramiko.Channel) -> None:
    with contextlib.suppress(*LOST):
        channel.close()
