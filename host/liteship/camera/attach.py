"""A camera that runs on a target by itself, looked at from here: its page is led here, and it goes on afterwards."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable

from liteship.camera.follow import interrupts_to
from liteship.camera.log import Event
from liteship.errors import LostLinkError
from liteship.link.forward import ADDRESS, page_address
from liteship.link.waiting import lost
from liteship.remote import Connection

SILENT_SECONDS = 20.0
"""Without an answer of the page: the link is lost, or the camera has ended."""

_LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 5.0


def show_running(
    connection: Connection,
    camera: Event,
    listener: socket.socket,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Lead the page of a running camera here, until Ctrl-C ends that.

    Args:
        connection: To the target.
        camera: `camera` of the probe: the port of its page there.
        listener: Of the page here.
        tell: Takes the address, once it can be opened.
        clock: Seconds.
    Raises:
        LostLinkError: the page does not answer any more.
        ForwardingError: the target does not let its port through.
    """
    stop = threading.Event()
    with interrupts_to(stop), connection.forward(camera["port"], listener):
        tell(page_address(listener))
        heard_at = clock()
        while not stop.wait(_LOOK_SECONDS):
            if _answers(listener.getsockname()[1]):
                heard_at = clock()
                connection.events += 1  # so that this link counts as one that was good
            elif not connection.is_open:
                raise lost(connection.target.name, "connection closed")
            elif clock() - heard_at > SILENT_SECONDS:
                raise lost(connection.target.name, f"no answer of the page for {SILENT_SECONDS:g} s")


def _answers(port: int) -> bool:
    """Whether the page answers anything; it may have as many viewers as it can serve."""
    page = http.client.HTTPConnection(ADDRESS, port, timeout=_ANSWER_SECONDS)
    try:
        page.request("GET", "/health")
        page.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        page.close()
    return True


def has_ended(target: str) -> LostLinkError:
    """The error where a camera that was looked at is not there any more; it may be starting again."""
    return LostLinkError(
        f"{target}: a running camera of the service is required. Received: none.",
        "liteship service status tells how it is; liteship service logs camera tells why.",
        "no camera runs there now",
    )
