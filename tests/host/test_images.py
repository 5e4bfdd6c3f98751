from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from liteship.data import Dataset, find_images
from liteship.images import load_images, write_validation_archive
from liteship_agent.images import Images, read_image
from liteship_agent.manifest import InputContract

CONTRACT = InputContract(24, 20, "rgb", "crop", "area", (127.5,) * 3, (127.5,) * 3)


def test_images_are_resized_and_labelled_in_the_order_of_the_files(dataset: Dataset) -> None:
    steps: list[float] = []
    images = load_images(dataset, CONTRACT, steps.append)
    assert images.train.shape == (30, 24, 20, 3)
    assert images.train.dtype == np.uint8
    assert images.validation.shape == (13, 24, 20, 3)
    assert images.validation_labels.tolist() == [file.label for file in dataset.validation]
    assert images.class_count == 3
    assert sum(steps) == 43
    twin = next(index for index, file in enumerate(dataset.validation) if file.path.name == "twin.png")
    np.testing.assert_array_equal(images.validation[twin], images.train[3])


def test_validation_archive_depends_on_names_and_contents_only(dataset: Dataset, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(Path(dataset.source), copied)
    for index, path in enumerate(sorted(copied.rglob("*.png"))):
        os.utime(path, (index, index))
        path.chmod(0o600)
    again = find_images(str(copied), split=0.2, seed=9, cache=Path("unused"))
    first = write_validation_archive(dataset, tmp_path / "one.tar")
    assert write_validation_archive(again, tmp_path / "two.tar") == first
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert first.sha256 == hashlib.sha256((tmp_path / "one.tar").read_bytes()).hexdigest()
    assert first.size_bytes == (tmp_path / "one.tar").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "one.tar", "two.tar"]


def test_offsets_lead_to_the_exact_bytes(dataset: Dataset, tmp_path: Path) -> None:
    long_name = tmp_path / f"{'ü' * 120}.png"  # needs a header of its own in the archive
    shutil.copy(dataset.validation[0].path, long_name)
    odd = replace(dataset.validation[0], path=long_name, relative=f"ape/{long_name.name}")
    archive = tmp_path / "validation.tar"
    files = (odd, *dataset.validation)
    validation = write_validation_archive(replace(dataset, validation=files), archive)
    with open(archive, "rb") as content:
        for image, file in zip(validation.images, files, strict=True):
            assert read_image(content, image) == file.path.read_bytes()
            assert (image.path, image.label) == (file.relative, file.label)
    with tarfile.open(archive) as tar:
        assert tar.getnames() == [file.relative for file in files]


def test_board_decodes_the_archive_to_the_pixels_of_the_host(dataset: Dataset, tmp_path: Path) -> None:
    validation = write_validation_archive(dataset, tmp_path / "validation.tar")
    host = load_images(dataset, CONTRACT, lambda amount: None).validation
    with Images(tmp_path / "validation.tar", validation.images, CONTRACT, tmp_path / "pixels.npy") as board:
        np.testing.assert_array_equal(np.stack([board.pixels(index) for index in range(len(board))]), host)
