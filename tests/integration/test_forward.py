"""A port that leads through the SSH connection: whole bytes both ways, stalls, refusals, lost links, nothing left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import paramiko
import pytest
from fault_proxy import FaultProxy
from paramiko.common import cMSG_CHANNEL_DATA, cMSG_CHANNEL_WINDOW_ADJUST
from paramiko.ssh_exception import ChannelException
from ssh_server import free_port

from liteship.errors import LostLinkError, UsageError
from liteship.link.forward import ForwardingError, listen
from liteship.remote import Connection
from liteship.targets import Target

MIB = 1 << 20
ANSWER = 'print(\'\\x1eliteship \' + \'{"event": "done", "value": 1}\')'
PATIENCE_SECONDS = 30.0

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(serve: Serve) -> Iterator[int]:
    """A server of 127.0.0.1 with a thread for each connection; yields its port."""
    acceptor = socket.create_server(("127.0.0.1", 0), backlog=128)

    def answer(near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            serve(near)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(acceptor.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield acceptor.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            acceptor.shutdown(socket.SHUT_RDWR)
        acceptor.close()


def receive_all(end: socket.socket) -> bytes:
    return b"".join(iter(lambda: end.recv(65536), b""))


def echo(near: socket.socket) -> None:
    while data := near.recv(65536):
        near.sendall(data)


def digest_after_end(near: socket.socket) -> None:
    """Answers only once the other side has ended its direction."""
    near.sendall(hashlib.sha256(receive_all(near)).digest())


def pour(near: socket.socket) -> None:
    """Sends without end."""
    while True:
        near.sendall(bytes(65536))


@contextlib.contextmanager
def forwarded(connection: Connection, port: int) -> Iterator[int]:
    with listen() as listener, connection.forward(port, listener):
        yield listener.getsockname()[1]


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def command(code: str) -> str:
    return f"{shlex.quote(sys.executable)} -I -c {shlex.quote(code)}"


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something comes true while we wait; the limit is only there for what never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def forward_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("liteship-forward")]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread and no open file outlives a test."""
    yield
    assert not forward_threads()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_arrive_whole_over_many_connections_at_once(target: Target, seed: int) -> None:
    draw = random.Random(seed)
    contents = [draw.randbytes(draw.choice([0, 1, draw.randrange(2000), draw.randrange(3 * MIB)])) for _ in range(12)]

    def exchange(content: bytes, sizes: random.Random) -> bytes:
        with dial(local) as end:

            def send() -> None:
                rest = memoryview(content)
                while rest:
                    size = sizes.choice([1, 100, 5000, 200_000])
                    end.sendall(rest[:size])
                    rest = rest[size:] if size > 1 else rest[1:]
                end.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            received = receive_all(end)
            sender.join()
            return received

    with (
        server(echo) as port,
        Connection.open(target) as connection,
        forwarded(connection, port) as local,
        ThreadPoolExecutor(len(contents)) as pool,
    ):
        answers = list(pool.map(exchange, contents, [random.Random(index) for index in range(len(contents))]))
        assert answers == contents
        assert eventually(lambda: len(forward_threads()) == 1), "what is over has no thread any more"


def test_end_of_one_direction_is_passed_on_and_the_other_goes_on(target: Target) -> None:
    content = os.urandom(100_000)
    with (
        server(digest_after_end) as port,
        Connection.open(target) as connection,
        forwarded(connection, port) as local,
        dial(local) as end,
    ):
        end.sendall(content)
        end.shutdown(socket.SHUT_WR)
        assert receive_all(end) == hashlib.sha256(content).digest()


def test_end_of_the_far_side_is_passed_on(target: Target) -> None:
    with (
        server(lambda near: near.sendall(b"bye")) as port,
        Connection.open(target) as connection,
        forwarded(connection, port) as local,
        dial(local) as end,
    ):
        assert receive_all(end) == b"bye"


def test_browser_that_goes_away_ends_what_is_sent_to_it(target: Target) -> None:
    ended = threading.Event()

    def pour_until_cut(near: socket.socket) -> None:
        try:
            pour(near)
        finally:
            ended.set()

    with server(pour_until_cut) as port, Connection.open(target) as connection, forwarded(connection, port) as local:
        with dial(local) as end:
            assert end.recv(1)
        assert ended.wait(PATIENCE_SECONDS)
        assert eventually(lambda: len(forward_threads()) == 1)


def test_stalled_browsers_hold_up_neither_others_nor_the_command(target: Target) -> None:
    def serve(near: socket.socket) -> None:
        (pour if near.recv(1) == b"p" else echo)(near)

    with (
        server(serve) as port,
        Connection.open(target) as connection,
        forwarded(connection, port) as local,
        contextlib.ExitStack() as stalled,
    ):
        for _ in range(5):
            end = stalled.enter_context(dial(local))
            end.sendall(b"p")
            assert end.recv(1)  # it pours, and nobody reads it any more
        content = os.urandom(2 * MIB)
        with dial(local) as end:
            threading.Thread(target=lambda: (end.sendall(b"e" + content), end.shutdown(socket.SHUT_WR))).start()
            assert receive_all(end) == content
        assert connection.call(command(ANSWER), [bytes(MIB)])["value"] == 1


def test_what_waits_for_a_stalled_browser_is_bounded(target: Target) -> None:
    poured = [0]

    def count(near: socket.socket) -> None:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        while True:
            poured[0] += near.send(bytes(65536))

    with (
        server(count) as port,
        Connection.open(target) as connection,
        forwarded(connection, port) as local,
        dial(local) as end,
    ):
        assert end.recv(1)
        before = -1
        while before != poured[0]:  # until nothing more is taken
            before = poured[0]
            time.sleep(0.5)
        assert poured[0] < 32 * MIB, "sockets' buffers and one window"


def test_target_without_a_server_on_that_port_is_told_before_any_browser_comes(target: Target) -> None:
    port = free_port()
    with Connection.open(target) as connection, listen() as listener:
        with pytest.raises(ForwardingError, match=rf"127\.0\.0\.1:{port} is required\. Received: ") as caught:
            connection.forward(port, listener).__enter__()
        assert caught.value.exit_code == 5
        assert connection.call(command(ANSWER))["value"] == 1, "the link is still good"


def test_server_that_ends_later_closes_browsers_and_takes_new_ones_when_it_is_back(target: Target) -> None:
    with contextlib.ExitStack() as stack:
        running = contextlib.ExitStack()
        port = running.enter_context(server(echo))
        connection = stack.enter_context(Connection.open(target))
        local = stack.enter_context(forwarded(connection, port))
        running.close()
        with dial(local) as end, contextlib.suppress(ConnectionResetError):
            assert receive_all(end) == b""
        again = socket.create_server(("127.0.0.1", port))
        with again, dial(local) as end:
            near, _ = again.accept()
            with near:
                near.sendall(b"back")
                assert end.recv(4) == b"back"


@pytest.mark.parametrize("setting", ["AllowTcpForwarding no", "DisableForwarding yes", "PermitOpen 127.0.0.1:1"])
def test_forwarding_that_is_prohibited_names_the_setting(setting: str, sshd_with: Callable[..., Target]) -> None:
    with server(echo) as port, Connection.open(sshd_with(setting)) as connection, listen() as listener:
        with pytest.raises(ForwardingError, match="administratively prohibited") as caught:
            connection.forward(port, listener).__enter__()
        assert "AllowTcpForwarding" in caught.value.hint
        assert connection.call(command(ANSWER))["value"] == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1", "192.0.2.1"])
def test_loopback_forwards_to_its_own_address_only(host: str, loopback: Target) -> None:
    with (
        server(echo) as port,
        Connection.open(loopback) as connection,
        pytest.raises(ChannelException, match="Administratively prohibited"),
    ):
        connection._transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0))


def test_lost_link_ends_every_connection_and_thread(target: Target) -> None:
    with (
        server(echo) as port,
        FaultProxy(target).running() as proxy,
        Connection.open(proxy.target) as connection,
        forwarded(connection, port) as local,
        dial(local) as end,
    ):
        end.sendall(b"x")
        assert end.recv(1) == b"x"
        proxy.cut()
        assert end.recv(1) == b""
        assert eventually(lambda: not forward_threads()), "also the one that accepts"


def test_link_that_is_lost_before_is_a_lost_link(target: Target) -> None:
    with FaultProxy(target).running() as proxy, Connection.open(proxy.target) as connection, listen() as listener:
        proxy.cut()
        with pytest.raises(LostLinkError):
            connection.forward(free_port(), listener).__enter__()


def test_end_over_a_frozen_link_waits_for_nothing(target: Target) -> None:
    with (
        server(pour) as port,
        FaultProxy(target).running() as proxy,
        Connection.open(proxy.target) as connection,
        forwarded(connection, port) as local,
        dial(local) as end,
    ):
        assert end.recv(1)
        proxy.freeze()


def test_next_connection_goes_on_with_the_same_port(target: Target) -> None:
    with server(echo) as port, listen() as listener:
        local = listener.getsockname()[1]
        with Connection.open(target) as connection, connection.forward(port, listener):
            pass
        with dial(local) as end:  # while there is no connection: it waits
            end.sendall(b"early")
            with Connection.open(target) as connection, connection.forward(port, listener):
                assert end.recv(5) == b"early"


def test_end_leaves_no_socket_and_no_thread(target: Target) -> None:
    with server(pour) as port, Connection.open(target) as connection:
        before = open_files()
        with forwarded(connection, port) as local, contextlib.ExitStack() as ends:
            for _ in range(8):
                assert ends.enter_context(dial(local)).recv(1)
        assert not forward_threads()
        assert eventually(lambda: open_files() <= before), "the server's ends may take a moment"
        assert connection.call(command(ANSWER))["value"] == 1, "the link itself goes on"


def test_port_that_is_taken_is_a_usage_error() -> None:
    with listen() as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=rf"Received: {port} \(Address already in use\)"):
            listen(port)
    with pytest.raises(UsageError, match="no port number"):
        listen(70_000)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_far_side_that_closes_in_the_middle_never_costs_the_link(
    direction: str, loopback: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message for a channel that is closed would: between paramiko's look and its message there is a moment."""
    send = paramiko.Transport._send_user_message
    kind = {"down": cMSG_CHANNEL_WINDOW_ADJUST, "up": cMSG_CHANNEL_DATA}[direction]
    held = []

    def send_late(transport: paramiko.Transport, message: paramiko.Message) -> None:
        if message.asbytes().startswith(kind) and threading.current_thread().name.startswith("liteship-forward"):
            held.append(message)
            time.sleep(0.3)  # until the far side has closed, as a busy computer would
        send(transport, message)

    def answer_and_close(near: socket.socket) -> None:
        near.recv(1)
        near.sendall(bytes(50_000))

    with server(answer_and_close) as port, Connection.open(loopback) as connection:
        with forwarded(connection, port) as local:
            monkeypatch.setattr(paramiko.Transport, "_send_user_message", send_late)
            for _ in range(20):  # now and then the far side has closed before there is anything to be sent late
                with dial(local) as end, contextlib.suppress(OSError):
                    end.sendall(b"x" if direction == "down" else bytes(300_000))
                    receive_all(end)
                if held:
                    break
        monkeypatch.undo()
        assert held
        assert connection.call(command(ANSWER))["value"] == 1, "the link is still good"
