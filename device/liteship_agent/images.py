"""The validation set on the target: original files in one tar, decoded once into a memory-mapped array.

Decoding and resizing happen once per kind of pixels (size, channel order, resize rule), in a process of its own, so
that the timed processes only map a file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Iterator, Optional, Sequence, Tuple

from liteship_agent.manifest import InputContract, Manifest, ValidationImage

if TYPE_CHECKING:
    import numpy as np


def selected_images(manifest: Manifest, limit: Optional[int]) -> Tuple[ValidationImage, ...]:
    """The validation images of a job: all of them, or `limit` spread evenly over the set, which is sorted by class."""
    images = manifest.validation.images
    if limit is None or limit >= len(images):
        return images
    return tuple(images[index * len(images) // limit] for index in range(limit))


def read_image(archive: BinaryIO, image: ValidationImage) -> bytes:
    """The bytes of one image file, read by its offset."""
    archive.seek(image.offset)
    return archive.read(image.size)


def pixels_path(folder: Path, manifest: Manifest, contract: InputContract, limit: Optional[int]) -> Path:
    """Where the decoded pixels of these validation images and this contract are kept."""
    count = len(selected_images(manifest, limit))
    name = f"{manifest.validation.sha256[:16]}-{contract.pixels_key()[:16]}-{count}"
    return folder / "cache" / name / "pixels.npy"


def decode_all(archive: Path, images: Sequence[ValidationImage], contract: InputContract, path: Path) -> Iterator[int]:
    """Write uint8 pixels, shape (images, height, width, 3), to a .npy file; yields the number done after each.

    The file gets its name only when it is whole. One image is in memory at a time.
    """
    import numpy as np
    from numpy.lib.format import open_memmap

    from liteship_agent.preprocess import decode, resize

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shape = (len(images), contract.height, contract.width, 3)
        pixels = open_memmap(str(temporary), mode="w+", dtype=np.uint8, shape=shape)
        with open(archive, "rb") as file:
            for index, image in enumerate(images):
                pixels[index] = resize(decode(read_image(file, image), image.path), contract)
                yield index + 1
        pixels.flush()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_pixels(path: Path) -> np.ndarray:
    """The decoded pixels, mapped and not read, uint8, shape (images, height, width, 3)."""
    import numpy as np

    pixels: np.ndarray = np.load(str(path), mmap_mode="r")
    return pixels
