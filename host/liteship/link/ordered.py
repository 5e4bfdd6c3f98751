"""Nothing is sent for a channel after its CLOSE: the other side would end the whole connection for it.

paramiko decides under a channel's lock what to send, and sends it after the lock is given back. When the other side
closes the channel in that moment, the thread of the transport answers with a CLOSE first, and what comes after it names
a channel that is no more.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import paramiko
from paramiko.common import cMSG_CHANNEL_CLOSE

from liteship.link.waiting import LOST


def in_order(channel: paramiko.Channel) -> paramiko.Channel:
    """Let a new channel send nothing after its CLOSE; returns it."""
    channel._set_transport(_Ordered(channel.get_transport()))  # type: ignore[attr-defined]
    return channel


class _Ordered:
    """A transport as one channel sees it; only what the channel sends goes through it."""

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._is_closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send_user_message(self, message: paramiko.Message) -> None:
        if threading.current_thread() is self._transport:
            # It must not wait for a thread that waits for it, as during an exchange of keys.
            threading.Thread(target=self._send_aside, args=(message,), daemon=True).start()
        else:
            self._send(message)

    def _send_aside(self, message: paramiko.Message) -> None:
        with contextlib.suppress(*LOST):
            self._send(message)

    def _send(self, message: paramiko.Message) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = message.asbytes().startswith(cMSG_CHANNEL_CLOSE)
            self._transport._send_user_message(message)  # type: ignore[attr-defined]
