"""The validation set on the target: original files in one tar, and their decoded pixels in a memory-mapped array, each
beside its hash.

Decoding and resizing happen once per kind of pixels (size, channel order, resize rule), in the first accuracy pass
that wants them; every later process only maps a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pkgutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Iterator, Optional, Sequence, Tuple, Type

from liteship_agent.errors import RecordError, StoreError
from liteship_agent.manifest import InputContract, Manifest, ValidationImage
from liteship_agent.release import VALIDATION, InstalledRelease

if TYPE_CHECKING:
    import numpy as np

_KEPT_FREE_BYTES = 64 * 2**20
"""What the decoded pixels must leave on the disk, so that the journal can still grow."""


def selected_images(manifest: Manifest, limit: Optional[int]) -> Tuple[ValidationImage, ...]:
    """The validation images of a job: all of them, or `limit` spread evenly over the set, which is sorted by class."""
    images = manifest.validation.images
    if limit is None or limit >= len(images):
        return images
    return tuple(images[index * len(images) // limit] for index in range(limit))


def read_image(archive: BinaryIO, image: ValidationImage) -> bytes:
    """The bytes of one image file, read by its offset; threads may read the same archive."""
    return os.pread(archive.fileno(), image.size, image.offset)


def pixels_path(folder: Path, manifest: Manifest, contract: InputContract, limit: Optional[int]) -> Path:
    """Where the decoded pixels of these validation images and this contract are kept.

    The name changes with the code that decodes: this agent's, and the OpenCV that came with the runtime.
    """
    import cv2

    source = pkgutil.get_data("liteship_agent", "preprocess.py") or b""
    kind = hashlib.sha256(f"{contract.pixels_key()} {cv2.__version__} ".encode() + source).hexdigest()
    count = len(selected_images(manifest, limit))
    return folder / "cache" / f"{manifest.validation.sha256[:16]}-{kind[:16]}-{count}" / "pixels.npy"


_HASH_BYTES = 16


class Images:
    """The validation images of one job, as files and as the pixels that one contract wants.

    Args:
        archive: The files, one after the other.
        selected: Those of the job.
        contract: Size, channel order and resize rule.
        path: Where their decoded pixels are, or will be.
    Raises:
        RecordError: the archive cannot be opened.
    """

    def __init__(self, archive: Path, selected: Sequence[ValidationImage], contract: InputContract, path: Path) -> None:
        self.selected, self.contract, self.path = selected, contract, path
        self._decoded = _map(path) if path.exists() else None
        try:
            self._archive = open(archive, "rb")  # noqa: SIM115 (closed by __exit__)
        except OSError as exc:
            raise RecordError(str(archive), "", "a readable validation set", exc.strerror or str(exc)) from exc

    @classmethod
    def of_release(
        cls, release: InstalledRelease, manifest: Manifest, contract: InputContract, limit: Optional[int]
    ) -> Images:
        """Those of a release's validation set, at most `limit`."""
        path = pixels_path(release.folder, manifest, contract, limit)
        return cls(release.path / VALIDATION, selected_images(manifest, limit), contract, path)

    def __enter__(self) -> Images:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._archive.close()

    def __len__(self) -> int:
        return len(self.selected)

    @property
    def are_decoded(self) -> bool:
        """Whether an earlier pass left the pixels of all of them."""
        return self._decoded is not None

    def file(self, index: int) -> bytes:
        """The bytes of one image file."""
        return read_image(self._archive, self.selected[index])

    def pixels(self, index: int) -> np.ndarray:
        """Resized pixels of one image, uint8, shape (height, width, 3), contiguous: mapped, or decoded now.

        Raises:
            ImageError: the file is not a whole image; the message names it.
        """
        if self._decoded is not None:
            return self._decoded["pixels"][index]  # type: ignore[no-any-return]
        from liteship_agent.preprocess import decode, resize

        return resize(decode(self.file(index), self.selected[index].path), self.contract)

    def pixels_hash(self, index: int) -> str:
        """The hash that an earlier pass kept beside the pixels of one image; empty where none did."""
        return "" if self._decoded is None else self._decoded["hash"][index].decode()

    @contextlib.contextmanager
    def new_pixels(self) -> Iterator[Optional[NewPixels]]:
        """A file for the decoded pixels of all of them.

        It gets its name when the body has filled it, and none where the body fails. None where they are decoded
        already, or where the disk has no room: then every pass decodes, and says so.
        """
        shape = (self.contract.height, self.contract.width, 3)
        if self.are_decoded or not _has_room(self.path, len(self) * (math.prod(shape) + _HASH_BYTES)):
            yield None
            return
        # One job runs at a time, so that what a killed one left under this name is overwritten.
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        try:
            with open(temporary, "wb") as file:
                yield NewPixels(file, len(self), shape)
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)


class NewPixels:
    """A .npy file that is filled in any order; threads may do it together.

    Args:
        file: Empty.
        count: Of images.
        shape: Of the pixels of one, uint8: (height, width, 3).
    """

    def __init__(self, file: BinaryIO, count: int, shape: Tuple[int, int, int]) -> None:
        from numpy.lib.format import write_array_header_1_0

        element = [("pixels", "|u1", shape), ("hash", f"|S{_HASH_BYTES}")]
        write_array_header_1_0(file, {"descr": element, "fortran_order": False, "shape": (count,)})
        file.flush()
        self._file, self._start, self._image_bytes = file, file.tell(), math.prod(shape) + _HASH_BYTES

    def put(self, index: int, pixels: np.ndarray, pixels_hash: str) -> None:
        """Write the pixels of one image, uint8, shape (height, width, 3), and their hash.

        Raises:
            StoreError: the disk is full.
        """
        data, start = (pixels.data, pixels_hash.encode()), self._start + index * self._image_bytes
        try:
            written = os.pwritev(self._file.fileno(), data, start)
        except OSError as exc:
            raise self._full(exc.strerror or str(exc)) from exc
        if written < self._image_bytes:
            raise self._full(f"room for {written}")

    def _full(self, received: str) -> StoreError:
        size = self._image_bytes
        return StoreError(f"{self._file.name}: {size} bytes are required. Received: {received}; free some of the disk")


def load_pixels(path: Path) -> np.ndarray:
    """The decoded pixels, mapped and not read, uint8, shape (images, height, width, 3)."""
    return _map(path)["pixels"]


def _map(path: Path) -> np.ndarray:
    """What a `NewPixels` wrote, mapped and not read: a plain array, because numpy is slow with its subclass."""
    import numpy as np

    return np.asarray(np.load(str(path), mmap_mode="r"))


def _has_room(path: Path, size: int) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize >= size + _KEPT_FREE_BYTES
