"""Public image sets, downloaded and unpacked into a folder that a recipe can name.

download to `<name>.zip.partial` (gone on with where an earlier one stopped) -> sha256 -> unpack beside -> rename. What
has its final name is whole. `<name>.zip.partial.json` remembers which version of the file the partial one belongs to.
"""

from __future__ import annotations

import hashlib
import http
import http.client
import json
import os
import re
import stat
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from liteship.errors import DataError, LinkError, UsageError

TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 256 * 1024
_AGAIN = "Run the same command again: it goes on from there."
_REMOVED = "What was downloaded was removed: run the command again, or name a mirror with --url."

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Source:
    """A public zip file.

    Args:
        url: Where it is.
        folder: The folder inside it that holds train/ and validation/.
        sha256: Of the zip file, or None where no trusted sum is known.
    """

    url: str
    folder: str
    sha256: str | None = None


DATASETS = {
    "cats_and_dogs_filtered": Source(
        "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip", "cats_and_dogs_filtered"
    ),
}


@dataclass(frozen=True)
class Fetched:
    """What `fetch` left.

    Args:
        folder: With train/ and validation/, to be named in a recipe.
        already_there: Nothing was downloaded; the sum and the size are then unknown.
        sha256: Of the zip file.
        size_bytes: Of the zip file.
        checked: Whether the sum was compared with an expected one.
    """

    folder: Path
    already_there: bool
    sha256: str | None = None
    size_bytes: int | None = None
    checked: bool = False


@dataclass(frozen=True)
class _Version:
    """Which file a partial download belongs to: its address, HTTP validator and size in bytes."""

    url: str
    validator: str | None
    total: int | None


def fetch(
    name: str, folder: Path, *, url: str | None = None, sha256: str | None = None, on_progress: Progress | None = None
) -> Fetched:
    """Download and unpack one of `DATASETS` to `folder/name`, unless it is there.

    Args:
        name: A key of `DATASETS`.
        folder: Where the result goes; made if missing.
        url: A mirror to take instead of the public address.
        sha256: The expected sum of the zip file, instead of the pinned one.
        on_progress: Called with the bytes that are there and of all, None where the server does not say.

    Raises:
        UsageError: a sum that is not one, or an address that is not HTTP.
        DataError: unknown name, wrong sum, not such a zip file, or the folder cannot be written.
        LinkError: the server cannot be reached, refuses, or ended early.
    """
    if name not in DATASETS:
        raise DataError(f"One of {', '.join(DATASETS)} is required. Received: {name}.")
    source, destination = DATASETS[name], folder / name
    expected, address = _check_sum(sha256) or source.sha256, _check_url(url or source.url)
    if destination.exists():
        _require_halves(destination, f"Move {destination} away to fetch it anew.")
        return Fetched(destination, already_there=True)
    partial = folder / f"{name}.zip.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(address, partial, on_progress or (lambda done, total: None))
        size_bytes, actual = partial.stat().st_size, _hash_file(partial)
        try:
            if expected not in (None, actual):
                raise DataError(f"{address}: sha256 {expected} is required. Received: {actual}.", _REMOVED)
            _unpack(partial, source.folder, destination)
        except DataError:
            _discard(partial)  # or the same command would meet the same bytes again
            raise
        _discard(partial)
    except OSError as exc:
        raise DataError(
            f"{folder}: a folder with space to write is required. Received: {exc.strerror or exc}.",
            "What was downloaded is kept: make room, or choose another folder with --folder.",
        ) from exc
    return Fetched(destination, False, actual, size_bytes, checked=expected is not None)


def _check_sum(sha256: str | None) -> str | None:
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"--sha256: 64 hex digits are required. Received: {sha256}.")
    return sha256.lower() if sha256 else None


def _check_url(url: str) -> str:
    if not url.startswith(("http://", "https://")) or not urllib.parse.urlsplit(url).hostname:
        raise UsageError(f"--url: an http or https address is required. Received: {url}.")
    return url


def _download(url: str, partial: Path, on_progress: Progress) -> None:
    """Bring the partial file to its whole length, from where it is if the file on the server is still the same."""
    version = _read_version(partial)
    start = partial.stat().st_size if version and version.url == url and partial.exists() else 0
    if version and start and start == version.total:
        return
    response = _open_rest(url, version, start) if version and version.validator and start else _open(url, {})
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start, version = 0, _Version(url, _validator(response), _length(response))
            partial.write_bytes(b"")
            _version_path(partial).write_text(json.dumps(asdict(version)))
        _receive(response, partial, start, version.total if version else None, on_progress)


def _open_rest(url: str, version: _Version, start: int) -> http.client.HTTPResponse:
    """The rest of the file from `start`, or all of it where it has changed or the server cannot give a part."""
    response = _open(url, {"Range": f"bytes={start}-", "If-Range": version.validator or ""})
    wanted = f"bytes {start}-{(version.total or 0) - 1}/{version.total}"
    if response.status != http.HTTPStatus.PARTIAL_CONTENT or response.headers.get("Content-Range") == wanted:
        return response
    response.close()
    return _open(url, {})


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was checked
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as exc:
        if exc.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and headers:
            return _open(url, {})
        raise LinkError(f"{url}: a file is required. Received: status {exc.code} {exc.reason}.") from exc
    except (OSError, http.client.HTTPException) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise LinkError(
            f"{url}: a server that answers is required. Received: {reason}.",
            "Check the network, or name a mirror with --url.",
        ) from exc
    return response


def _receive(
    response: http.client.HTTPResponse, partial: Path, start: int, total: int | None, on_progress: Progress
) -> None:
    done = start
    on_progress(done, total)
    with open(partial, "ab") as file:
        for chunk in _chunks(response, partial):
            file.write(chunk)
            done += len(chunk)
            on_progress(done, total)
    if total is not None and done != total:
        raise LinkError(f"{response.url}: {total} bytes are required. Received: {done}, then the end.", _AGAIN)


def _chunks(response: http.client.HTTPResponse, partial: Path) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as exc:
        raise LinkError(f"{response.url}: the whole file is required. Received: a part, then {exc}.", _AGAIN) from exc


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What If-Range may be asked with: a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _version_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _read_version(partial: Path) -> _Version | None:
    try:
        return _Version(**json.loads(_version_path(partial).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # the download then starts anew


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _version_path(partial).unlink(missing_ok=True)


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(archive: Path, folder: str, destination: Path) -> None:
    """Unpack one folder of a zip file; the destination has its name only when it is whole."""
    try:
        with (
            tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as temporary,
            zipfile.ZipFile(archive) as file,
        ):
            for member in file.infolist():
                _require_inside(member)
                if PurePosixPath(member.filename).parts[:1] == (folder,):
                    file.extract(member, temporary)
            unpacked = Path(temporary, folder)
            _require_halves(unpacked, f"The zip file at the address is not {destination.name}.")
            os.rename(unpacked, destination)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as exc:
        raise DataError(f"{archive}: a sound zip file is required. Received: {exc}.", _REMOVED) from exc


def _require_inside(member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or is_link:
        raise DataError(f"A zip file without links and with names inside it is required. Received: {member.filename}.")


def _require_halves(folder: Path, hint: str) -> None:
    missing = [name for name in ("train", "validation") if not (folder / name).is_dir()]
    if missing:
        raise DataError(f"{folder}: folders train and validation are required. Received: no {missing[0]}.", hint)
