"""The images of a study in memory, as the board will see them, and on disk, as the board will get them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liteship.data import Dataset, ImageFile
from liteship_agent.manifest import InputContract, ValidationImage, ValidationSet
from liteship_agent.preprocess import decode, resize


@dataclass(frozen=True)
class Images:
    """Decoded and resized images of both splits.

    Args:
        train, validation: uint8, shape (images, height, width, 3).
        train_labels, validation_labels: int64, shape (images,).
        contract: How they become float32 tensors.
        class_count: Number of labels.
    """

    train: np.ndarray
    train_labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray
    contract: InputContract
    class_count: int


def load_images(dataset: Dataset, contract: InputContract, on_progress: Callable[[float], None]) -> Images:
    """Decode and resize every image of a dataset with the code of the board.

    Args:
        dataset: Sound images.
        contract: Size, channel order and resize rule.
        on_progress: Called with 1 after each image.
    """
    return Images(
        train=_pixels(dataset.train, contract, on_progress),
        train_labels=np.array([file.label for file in dataset.train], np.int64),
        validation=_pixels(dataset.validation, contract, on_progress),
        validation_labels=np.array([file.label for file in dataset.validation], np.int64),
        contract=contract,
        class_count=len(dataset.classes),
    )


def _pixels(files: Sequence[ImageFile], contract: InputContract, on_progress: Callable[[float], None]) -> np.ndarray:
    pixels = np.empty((len(files), contract.height, contract.width, 3), np.uint8)

    def load(index: int) -> None:
        path = files[index].path
        pixels[index] = resize(decode(path.read_bytes(), str(path)), contract)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(load, range(len(files))):
            on_progress(1)
    return pixels


def write_validation_archive(dataset: Dataset, path: Path) -> ValidationSet:
    """Write the validation files into one uncompressed tar whose bytes depend on names and contents only.

    Returns:
        Its sha256, size, and where in it every image stands.
    """
    images = []
    temporary = path.with_name(f".{path.name}.tmp")
    with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
        for file in dataset.validation:
            data = file.path.read_bytes()
            member = tarfile.TarInfo(file.relative)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            end = archive.offset
            padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            images.append(ValidationImage(file.relative, file.label, end - padded, len(data)))
    os.replace(temporary, path)
    with open(path, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return ValidationSet(digest, path.stat().st_size, tuple(images))
