"""Pictures out of a stream of JPEG files, one after the other, with nothing between them.

A picture goes from its SOI marker to its own EOI: markers inside a segment, such as those of a thumbnail, do not count.
Where a picture begins before the last one ended, that one was cut.

Source: ITU-T T.81, B.1.1: a segment tells its length; compressed data goes on until a marker that is neither a stuffed
zero nor a restart.
"""

from __future__ import annotations

import re
from typing import List, Optional

LONGEST_BYTES = 16 * 2**20
"""Of one picture: 4608 x 2592 pixels of a Camera Module 3 take 2 to 6 MiB."""

_START = re.compile(rb"\xff\xd8\xff")
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_NO_SEGMENT = re.compile(rb"[^\xff]|\xff+[\x00\x01\xd0-\xd7]")
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA


class MjpegParser:
    """Cuts a stream into pictures; how it is chunked makes no difference.

    It never holds more than the longest picture and one chunk.

    Args:
        longest_bytes: Of a picture; a longer one is given up.
    """

    def __init__(self, longest_bytes: int = LONGEST_BYTES) -> None:
        self._longest = longest_bytes
        self._buffer = bytearray()
        self._inside = self._in_data = False
        self._position = 0
        self._broken = 0

    @property
    def broken(self) -> int:
        """Pictures so far that were cut or too long."""
        return self._broken

    @property
    def held_bytes(self) -> int:
        """What it keeps of the stream."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> List[bytes]:
        """The pictures that end in this chunk."""
        self._buffer += chunk
        found = []
        while self._inside or self._enter():
            size = self._walk()
            if size is None:
                break
            if size:
                found.append(bytes(self._buffer[:size]))
                self._leave(size)
        return found

    def _enter(self) -> bool:
        """Drop what comes before the next picture."""
        start = _START.search(self._buffer)
        if start is None:
            # The last two bytes may be the first ones of a start.
            del self._buffer[: max(0, len(self._buffer) - 2)]
            return False
        del self._buffer[: start.start()]
        self._inside, self._in_data, self._position = True, False, 2
        return True

    def _leave(self, size: int) -> None:
        del self._buffer[:size]
        self._inside, self._position = False, 0

    def _give_up(self, size: int) -> int:
        """Count the picture as broken, drop so much of it and look for the next one."""
        self._broken += 1
        self._leave(size)
        return 0

    def _walk(self) -> Optional[int]:
        """Go on from marker to marker.

        Returns:
            Bytes of the picture that the buffer begins with; 0 if it was given up; null if its end is not there yet.
        """
        end = min(len(self._buffer), self._longest)
        while True:
            if not self._in_data and _NO_SEGMENT.match(self._buffer, min(self._position, end), end):
                # Segments adjoin: the length of the last one was that of a picture that was cut in it.
                return self._give_up(2)
            marker = _MARKER.search(self._buffer, min(self._position, end), end)
            if marker is None:
                self._position = max(self._position, end - 1)
                break
            self._position = at = marker.start()
            code = self._buffer[at + 1]
            if code == _EOI:
                return at + 2
            if at + 4 > end:
                break
            if code == _SOI and self._buffer[at + 2] == 0xFF:
                return self._give_up(at)
            self._in_data = self._in_data or code == _SOS
            self._position = at + 2 + int.from_bytes(self._buffer[at + 2 : at + 4], "big")
        return self._give_up(end) if len(self._buffer) >= self._longest else None
