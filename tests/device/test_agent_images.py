from __future__ import annotations

import errno
import os
import pkgutil
import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_samples import encode, good_artefact, install, pack, photographs, sha

from liteship_agent import images as agent_images
from liteship_agent.errors import ImageError, RecordError, StoreError
from liteship_agent.images import Images, pixels_path, read_image, selected_images
from liteship_agent.manifest import Manifest, ValidationImage, ValidationSet
from liteship_agent.preprocess import decode, resize
from liteship_agent.release import VALIDATION

CONTRACT = good_artefact().input


def manifest_of(*class_sizes: int) -> Manifest:
    """Images sorted by class, as the host writes them."""
    labels = [label for label, size in enumerate(class_sizes) for _ in range(size)]
    images = tuple(ValidationImage(f"{label}/{i}.png", label, 512 * i, 9) for i, label in enumerate(labels))
    validation = ValidationSet(sha("validation"), 512 * len(images), images)
    return Manifest(1, "sample", tuple(map(str, range(len(class_sizes)))), (), (), validation)


@pytest.fixture
def release(tmp_path):
    return install(tmp_path, {"none-none": good_artefact()})


@pytest.mark.parametrize("limit", [None, 12, 1000])
def test_all_images_are_selected_without_a_limit_that_binds(limit):
    manifest = manifest_of(6, 6)

    assert selected_images(manifest, limit) == manifest.validation.images


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(1, 240))
def test_a_limit_selects_that_many_images_in_order_and_meets_every_class_of_that_share(class_sizes, limit):
    manifest = manifest_of(*class_sizes)
    total = sum(class_sizes)

    selected = selected_images(manifest, limit)

    offsets = [image.offset for image in selected]
    assert len(selected) == min(limit, total)
    assert offsets == sorted(set(offsets))
    met = {image.label for image in selected}
    assert met >= {label for label, size in enumerate(class_sizes) if size * limit >= total}


def test_a_limit_takes_equally_many_of_equal_classes():
    labels = [image.label for image in selected_images(manifest_of(100, 100, 100), 12)]

    assert [labels.count(label) for label in range(3)] == [4, 4, 4]


def test_image_is_read_by_its_offset(tmp_path):
    files = photographs()
    content, validation = pack(files)
    (tmp_path / "validation.tar").write_bytes(content)

    with open(tmp_path / "validation.tar", "rb") as archive:
        read = [read_image(archive, image) for image in reversed(validation.images)]

    assert read == [data for _, _, data in reversed(files)]


def of(release, limit=None):
    return Images.of_release(release, release.manifest(), CONTRACT, limit)


def serial_pixels():
    return np.stack([resize(decode(data, path), CONTRACT) for path, _, data in photographs()])


def test_images_are_those_of_the_job_as_files_and_as_pixels(release):
    with of(release, 3) as images:
        assert [image.path for image in images.selected] == ["red/0.png", "green/0.png", "blue/0.png"]
        assert len(images) == 3
        assert images.file(2) == photographs()[8][2]
        assert (images.pixels(2) == serial_pixels()[8]).all()
        assert not images.are_decoded


def test_archive_is_closed_at_the_end(release):
    with of(release) as images:
        pass

    with pytest.raises(ValueError, match="closed"):
        images.file(0)


def test_missing_archive_is_named(release):
    (release.path / VALIDATION).unlink()

    with pytest.raises(RecordError, match=r"validation\.tar: a readable validation set is required"):
        of(release)


def test_broken_image_is_named_and_no_other_is(tmp_path):
    files = photographs()
    files[5] = ("green/1.png", 1, files[5][2][:-30])

    with of(install(tmp_path, {"none-none": good_artefact()}, files)) as images:
        assert (images.pixels(4) == serial_pixels()[4]).all()
        with pytest.raises(ImageError, match=r"green/1\.png"):
            images.pixels(5)


def test_new_pixels_get_their_name_when_they_are_whole_and_are_mapped_from_then_on(release):
    """They may come in any order."""
    with of(release) as images, images.new_pixels() as kept:
        for index in reversed(range(12)):
            kept.put(index, serial_pixels()[index], f"{index:016x}")
        assert not images.path.exists()

    assert [file.name for file in images.path.parent.iterdir()] == ["pixels.npy"]
    assert (np.load(images.path)["pixels"] == serial_pixels()).all()
    with of(release) as images:
        (release.path / VALIDATION).write_bytes(b"")
        assert images.are_decoded
        assert not images.pixels(5).flags.owndata
        assert (np.stack([images.pixels(index) for index in range(12)]) == serial_pixels()).all()
        assert [images.pixels_hash(index) for index in range(12)] == [f"{index:016x}" for index in range(12)]


def test_new_pixels_are_on_the_disk_before_they_have_their_name(release, monkeypatch):
    steps = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (steps.append(name), real(*a))[1])

    with of(release) as images, images.new_pixels() as kept:
        kept.put(0, serial_pixels()[0], "0" * 16)

    assert steps == ["fsync", "replace"]


def test_new_pixels_of_a_body_that_fails_are_gone(release):
    def fail():
        with of(release) as images, images.new_pixels():
            raise ImageError("green/1.png")

    with pytest.raises(ImageError):
        fail()

    assert list((release.folder / "cache").rglob("*.npy*")) == []


def full(descriptor, data, offset):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("write", "received"), [(full, "No space left"), (lambda descriptor, data, offset: 7, "room for 7")]
)
def test_disk_that_is_full_before_all_pixels_are_written_is_said_in_one_line(release, monkeypatch, write, received):
    monkeypatch.setattr(os, "pwritev", write)

    with of(release) as images, pytest.raises(StoreError, match=rf"208 bytes are required\. Received: {received}"):
        keep_all(images)

    assert list((release.folder / "cache").rglob("*.npy*")) == []


def keep_all(images):
    with images.new_pixels() as kept:
        for index, pixels in enumerate(serial_pixels()):
            kept.put(index, pixels, f"{index:016x}")


def test_there_are_no_new_pixels_where_they_are_decoded_already(release):
    with of(release) as images:
        keep_all(images)

    with of(release) as images, images.new_pixels() as kept:
        assert kept is None


def test_there_are_no_new_pixels_that_would_fill_the_disk(release, monkeypatch):
    """192 bytes of pixels and 16 of a hash an image: one byte too few is free."""
    free = 12 * (192 + 16) + agent_images._KEPT_FREE_BYTES
    for available, room in ((free, True), (free - 1, False)):
        monkeypatch.setattr(os, "statvfs", lambda path, n=available: SimpleNamespace(f_bavail=n, f_frsize=1))
        with of(release) as images, images.new_pixels() as kept:
            assert (kept is not None) == room
        shutil.rmtree(release.folder / "cache")


def test_float_and_integer_contracts_share_their_pixels(tmp_path):
    manifest = manifest_of(6, 6)

    float_path = pixels_path(tmp_path, manifest, CONTRACT, None)

    assert float_path == pixels_path(tmp_path, manifest, good_artefact("int8").input, None)


@pytest.mark.parametrize(
    "changes",
    [{"height": 9}, {"width": 9}, {"channel_order": "bgr"}, {"resize": "stretch"}, {"interpolation": "linear"}],
)
def test_other_pixels_have_another_path(tmp_path, changes):
    manifest = manifest_of(6, 6)

    assert pixels_path(tmp_path, manifest, replace(CONTRACT, **changes), None) != pixels_path(
        tmp_path, manifest, CONTRACT, None
    )


def test_another_limit_or_validation_set_has_another_path(tmp_path):
    manifest = manifest_of(6, 6)
    other = replace(manifest, validation=replace(manifest.validation, sha256=sha("other")))

    paths = {pixels_path(tmp_path, m, CONTRACT, limit) for m, limit in ((manifest, None), (manifest, 5), (other, None))}

    assert len(paths) == 3
    assert pixels_path(tmp_path, manifest, CONTRACT, 12) == pixels_path(tmp_path, manifest, CONTRACT, None)


def test_another_opencv_or_another_agent_has_another_path(tmp_path, monkeypatch):
    """They may decode the same file to other pixels."""
    manifest = manifest_of(6, 6)
    paths = {pixels_path(tmp_path, manifest, CONTRACT, None)}

    with monkeypatch.context() as patch:
        patch.setattr(cv2, "__version__", "4.11.0")
        paths.add(pixels_path(tmp_path, manifest, CONTRACT, None))
    with monkeypatch.context() as patch:
        patch.setattr(pkgutil, "get_data", lambda package, name: b"def decode(): ...")
        paths.add(pixels_path(tmp_path, manifest, CONTRACT, None))

    assert len(paths) == 3
    assert pixels_path(tmp_path, manifest, CONTRACT, None) in paths


def test_encode_of_the_samples_is_lossless():
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)

    assert (decode(encode(image), "sample") == image).all()
