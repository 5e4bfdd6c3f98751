"""The built-in target `loopback`: an SSH server of our own on 127.0.0.1, so that the whole real path runs anywhere.

Keys are made when it starts and thrown away when it stops. Commands run like under any SSH server: by the shell, in a
session of their own, with binary streams that wait for each other. Ports of 127.0.0.1 can be forwarded, no others. It
figures as "this computer, not a board".
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import signal
import sys
import tempfile
import threading
from asyncio.subprocess import Process, SubprocessStreamProtocol
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from liteship.built_in import LOOPBACK
from liteship.targets import Target

_ADDRESS = "127.0.0.1"
_PIECE_BYTES = 1 << 16
_END_SECONDS = 3.0

Result = TypeVar("Result")


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Target]:
    """Run the server in a background thread for as long as the body runs.

    Args:
        folder: The liteship folder of this target on this computer.
    Yields:
        The target with its port, key file, pinned host key and this interpreter as `python`.
    """
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key = asyncssh.generate_private_key("ssh-ed25519")
    server = _Server(host_key, client_key)
    with tempfile.TemporaryDirectory(prefix="liteship-") as keys, server.running() as port:
        identity = Path(keys) / "id_ed25519"
        identity.touch(mode=0o600)
        identity.write_bytes(client_key.export_private_key())
        yield Target(
            name=LOOPBACK,
            host=_ADDRESS,
            port=port,
            user=getpass.getuser(),
            identity_file=str(identity),
            host_key_sha256=host_key.get_fingerprint(),
            folder=str(folder.absolute()),
            python=sys.executable,
        )


class _Server:
    """The server, its event loop in a thread, and its commands."""

    def __init__(self, host_key: asyncssh.SSHKey, client_key: asyncssh.SSHKey) -> None:
        self._host_key = host_key
        self._client_keys = asyncssh.import_authorized_keys(client_key.export_public_key().decode())
        self._loop = asyncio.new_event_loop()
        self._connections: list[asyncssh.SSHServerConnection] = []
        self._commands: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Listen while the body runs; yields the port."""
        thread = threading.Thread(target=self._loop.run_forever, name="liteship-loopback", daemon=True)
        thread.start()
        acceptor = None
        try:
            acceptor = self._run(self._listen())
            yield acceptor.get_port()
        finally:
            if acceptor is not None:
                self._run(self._stop(acceptor))
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            _ADDRESS,
            0,
            server_factory=_Forwarding,
            server_host_keys=[self._host_key],
            authorized_client_keys=self._client_keys,
            acceptor=self._connections.append,
            process_factory=self._execute,
            encoding=None,
            allow_scp=False,
            compression_algs=None,
        )

    async def _stop(self, acceptor: asyncssh.SSHAcceptor) -> None:
        acceptor.close()
        for connection in self._connections:
            connection.abort()
            await connection.wait_closed()
        for task in self._commands:
            task.cancel()
        await asyncio.gather(*self._commands, return_exceptions=True)

    async def _execute(self, channel: asyncssh.SSHServerProcess[bytes]) -> None:
        task = asyncio.create_task(_run_command(channel))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        await task


class _Forwarding(asyncssh.SSHServer):
    """Forwards connections to this computer's own ports, and nowhere else."""

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        if dest_host != _ADDRESS:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, f"{_ADDRESS} is required. Received: {dest_host}"
            )
        return True


async def _run_command(channel: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run the requested command by the shell until it ends; a closed channel ends its process group."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_shell(
        lambda: SubprocessStreamProtocol(limit=_PIECE_BYTES, loop=loop),
        channel.command or "exit 0",
        start_new_session=True,
        cwd="/",
    )
    process = Process(transport, protocol, loop)
    tasks = [asyncio.create_task(part) for part in (_answer(channel, process), channel.wait_closed())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _end(process)
        transport.close()


async def _answer(channel: asyncssh.SSHServerProcess[bytes], process: Process) -> None:
    """Move bytes between a channel and its process until both outputs have ended, then tell the exit status."""
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise RuntimeError("A process with three pipes is required.")
    feeding = asyncio.create_task(_feed(channel.stdin, process.stdin))
    try:
        await asyncio.gather(_copy(process.stdout, channel.stdout), _copy(process.stderr, channel.stderr))
        channel.exit(await process.wait())
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def _feed(source: asyncssh.SSHReader[bytes], stdin: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncssh.Error):
        while piece := await source.read(_PIECE_BYTES):
            stdin.write(piece)
            await stdin.drain()
    stdin.close()


async def _copy(source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes]) -> None:
    with contextlib.suppress(OSError, asyncssh.Error):
        while piece := await source.read(_PIECE_BYTES):
            sink.write(piece)
            await sink.drain()


async def _end(process: Process) -> None:
    """End the process group of a command that is still running; one that called setsid is no longer part of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_SECONDS)
