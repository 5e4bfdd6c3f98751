"""The stream of a deploy: a header, then the bytes of every blob that the target lacks, from where they ended before.

A blob grows in blobs/.partial/<sha256> and stays there, verified, until the deploy gives it its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Iterator, Optional

from liteship_agent.store.disk import begin_writing
from liteship_agent.store.events import MIB, Emit, Event, StoreError
from liteship_agent.store.inventory import FOLDER_NAME, SHA256

IDLE_SECONDS = 30
"""A deploy that gets no byte for so long ends: its host has gone, and the next one must not wait for it."""

HEADER_SECONDS = 1800
"""How long a host may think before it sends the header: it may have to fetch and pack a runtime. Nothing is locked."""

_MOST_HEADER_BYTES = 64 * MIB
_WRITE_AHEAD_BYTES = 8 * MIB
_PIECE_BYTES = MIB // 4
_LENGTH = re.compile(rb"[0-9]{1,9}\n")


def read_header(stream: BinaryIO) -> Optional[Event]:
    """The header: its packed length on a line, then zlib-packed JSON.

    Returns:
        `blobs` [{"sha256", "size", "offset"}] in the order of the stream; `texts` {sha256: text} of small blobs that
        came with the header; `release_bytes` and, parsed from it, `release`; `time` of the host; `unpacked_bytes` of
        new runtimes; `keep`, how many releases stay. None where the stream is at its end.
    Raises:
        StoreError: no header came, or a name in it could lead out of the folder.
    """
    try:
        packed = _packed(stream)
        if packed is None:
            return None
        header: Event = json.loads(_unpacked(packed))
        release = json.loads(header["release_bytes"])
        header["release"] = {"runtimes": release["runtimes"], "files": release["files"]}
        valid = _is_valid(header)
    except (ValueError, KeyError, TypeError, zlib.error) as exc:
        raise StoreError("protocol", f"A deploy header is required. Received: {exc!r}") from exc
    if not valid:
        raise StoreError("protocol", "Names inside the folder and sizes are required. Received: a header with others")
    return header


def _packed(stream: BinaryIO) -> Optional[bytes]:
    with deadline(HEADER_SECONDS):
        line = stream.readline(16)
    if not line:
        return None
    with deadline():
        packed = stream.read(int(line)) if _LENGTH.fullmatch(line) else b""
    if not packed or len(packed) != int(line):
        raise StoreError("link", "A deploy header is required. Received: end of the stream")
    return packed


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(packed, _MOST_HEADER_BYTES)
    if not unpacker.eof:
        raise ValueError("a header that does not end")
    return text


def _is_valid(header: Event) -> bool:
    release, texts = header["release"], header.setdefault("texts", {})
    named = [*header["blobs"], *release["runtimes"], *release["files"]]
    return (
        isinstance(header["time"], str)
        and _is_count(header.setdefault("unpacked_bytes", 0))
        and _is_count(header.setdefault("keep", 3))
        and all(SHA256.fullmatch(name) and isinstance(text, str) for name, text in texts.items())
        and all(SHA256.fullmatch(item["sha256"]) for item in named)
        and all(_is_count(blob["size"]) and _is_count(blob["offset"]) for blob in header["blobs"])
        and all(blob["offset"] <= blob["size"] for blob in header["blobs"])
        and all(FOLDER_NAME.fullmatch(runtime["folder"]) for runtime in release["runtimes"])
        and all(is_safe(file["path"]) for file in release["files"])
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def is_safe(path: str) -> bool:
    """Is it a plain relative path that does not climb and is not release.json itself?"""
    pure = PurePosixPath(path)
    return str(pure) == path and not pure.is_absolute() and ".." not in pure.parts and path not in (".", "release.json")


def receive(folder: Path, header: Event, stream: BinaryIO, report: Emit) -> None:
    """Read the blobs into blobs/.partial and verify each; they are not flushed and have no name yet.

    Raises:
        StoreError: the stream ended, or a blob is not what its sha256 says.
    """
    partial = folder / "blobs" / ".partial"
    partial.mkdir(parents=True, exist_ok=True)
    for sha256, text in header["texts"].items():
        data = text.encode()
        _require_hash(hashlib.sha256(data).hexdigest(), sha256)
        (partial / sha256).write_bytes(data)
    received = reported = 0
    for blob in header["blobs"]:
        for count in _receive_blob(partial / blob["sha256"], blob, stream):
            received += count
            if received - reported >= MIB:
                reported = received
                report({"event": "progress", "stage": "receive", "received": received})


def _receive_blob(path: Path, blob: Event, stream: BinaryIO) -> Iterator[int]:
    """Append one blob to its partial file, yielding the size of each piece, then verify it."""
    digest = hashlib.sha256()
    with open(path, "a+b", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        if length < blob["offset"]:
            # It was there when the host asked; asked again, the host sends what is missing.
            raise StoreError("link", f"{path} of {blob['offset']} bytes is required. Received: {length} bytes")
        # A command whose link was cut may have written what was still under way after the host asked.
        length = file.truncate(blob["offset"])
        file.seek(0)
        for piece in iter(lambda: file.read(MIB), b""):
            digest.update(piece)
        remaining = begun = blob["size"] - length
        buffer = memoryview(bytearray(min(remaining, _PIECE_BYTES)))
        while remaining:
            with deadline():
                count = stream.readinto(buffer[: min(remaining, _PIECE_BYTES)])  # type: ignore[attr-defined]
            piece = buffer[:count]
            if not piece:
                raise StoreError("link", f"{remaining} more bytes are required. Received: end of the stream")
            _write_all(file, piece)
            digest.update(piece)
            remaining -= len(piece)
            if begun - remaining >= _WRITE_AHEAD_BYTES:
                begun = remaining
                begin_writing(file.fileno())
            yield len(piece)
    try:
        _require_hash(digest.hexdigest(), blob["sha256"])
    except StoreError:
        path.unlink()
        raise


def _write_all(file: Any, piece: memoryview) -> None:
    while piece:
        piece = piece[file.write(piece) :]


def _require_hash(actual: str, required: str) -> None:
    if actual != required:
        raise StoreError("hash", f"sha256 {required} is required. Received: {actual}")


@contextlib.contextmanager
def deadline(seconds: int = IDLE_SECONDS) -> Iterator[None]:
    """Raise a StoreError of kind link where the body takes longer."""
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _too_late(number: int, frame: Any) -> None:
    raise StoreError("link", "A byte in time is required. Received: nothing (time-out)")
