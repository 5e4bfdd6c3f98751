from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_samples import LABELS, encode, good_artefact, install, pack, photographs, sha

from liteship_agent.errors import ImageError
from liteship_agent.images import decode_all, load_pixels, pixels_path, read_image, selected_images
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


def test_image_is_read_by_its_offset():
    files = photographs()
    content, validation = pack(files)

    read = [read_image(io.BytesIO(content), image) for image in reversed(validation.images)]

    assert read == [data for _, _, data in reversed(files)]


def test_decode_all_writes_the_resized_pixels_of_every_image(release, tmp_path):
    images = release.manifest().validation.images
    path = tmp_path / "cache" / "set" / "pixels.npy"

    counts = list(decode_all(release.path / VALIDATION, images, CONTRACT, path))

    pixels = load_pixels(path)
    expected = np.stack([resize(decode(data, name), CONTRACT) for name, _, data in photographs()])
    assert counts == list(range(1, 13))
    assert pixels.dtype == np.uint8
    assert (pixels == expected).all()
    assert isinstance(pixels, np.memmap)
    assert [file.name for file in path.parent.iterdir()] == ["pixels.npy"]


def test_decode_all_names_the_broken_image_and_leaves_no_file(tmp_path):
    files = photographs()
    files[5] = ("green/1.png", 1, files[5][2][:-30])
    content, validation = pack(files)
    (tmp_path / "validation.tar").write_bytes(content)
    path = tmp_path / "cache" / "pixels.npy"

    with pytest.raises(ImageError, match=r"green/1\.png"):
        list(decode_all(tmp_path / "validation.tar", validation.images, CONTRACT, path))

    assert list(path.parent.iterdir()) == []


def test_decode_all_that_is_left_half_way_leaves_no_file(release, tmp_path):
    path = tmp_path / "cache" / "pixels.npy"
    decoding = decode_all(release.path / VALIDATION, release.manifest().validation.images, CONTRACT, path)

    assert next(decoding) == 1
    decoding.close()

    assert list(path.parent.iterdir()) == []


def test_decode_all_reads_only_the_selected_images(tmp_path):
    files = photographs()
    files[1] = ("red/1.png", 0, b"broken")
    content, validation = pack(files)
    (tmp_path / "validation.tar").write_bytes(content)
    images = selected_images(Manifest(1, "sample", LABELS, (), (), validation), 3)

    list(decode_all(tmp_path / "validation.tar", images, CONTRACT, tmp_path / "pixels.npy"))

    assert [image.path for image in images] == ["red/0.png", "green/0.png", "blue/0.png"]
    assert len(load_pixels(tmp_path / "pixels.npy")) == 3


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


def test_encode_of_the_samples_is_lossless():
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)

    assert (decode(encode(image), "sample") == image).all()
