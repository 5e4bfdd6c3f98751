from __future__ import annotations

import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_samples import encode, photograph

from liteship_agent.errors import ImageError
from liteship_agent.manifest import InputContract
from liteship_agent.preprocess import decode, preprocess, resize, to_tensor

CONTRACT = InputContract(8, 8, "rgb", "crop", "area", (127.5,) * 3, (127.5,) * 3)
NOISE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)


def exif(orientation: int, thumbnail: bytes = b"") -> bytes:
    """An APP1 segment with an orientation and a thumbnail."""
    ifd0 = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0II*\0\x08\0\0\0" + ifd0 + thumbnail
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def with_exif(jpeg: bytes, segment: bytes) -> bytes:
    return jpeg[:2] + segment + jpeg[2:]


JPEG = encode(NOISE, ".jpg")
PROGRESSIVE = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
FILES = {
    "jpeg": JPEG,
    "progressive jpeg": PROGRESSIVE,
    "jpeg with a thumbnail": with_exif(JPEG, exif(1, encode(photograph(0), ".jpg"))),
    "png": encode(NOISE, ".png"),
    "webp": encode(NOISE, ".webp"),
}


@pytest.mark.parametrize("kind", FILES)
def test_decode_gives_the_pixels_of_a_whole_file(kind):
    pixels = decode(FILES[kind], "cat/1")

    assert pixels.shape == (24, 32, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == NOISE).all() == (kind in ("png", "webp"))


@pytest.mark.parametrize("kind", FILES)
def test_decode_refuses_a_file_cut_at_any_length(kind):
    whole = FILES[kind]
    # The last bytes of a PNG are a checksum and may be missing; a JPEG ends with its end marker.
    ends = len(whole) - 8 if kind == "png" else len(whole) - 1
    for length in {*range(0, ends, 13), *range(max(0, ends - 20), ends + 1)}:
        with pytest.raises(ImageError, match=r"^cat/1: "):
            decode(whole[:length], "cat/1")


@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", FILES)
def test_decode_says_that_a_file_is_truncated(kind, ratio):
    with pytest.raises(ImageError, match=r"a whole image is required\. Received: a truncated file of"):
        decode(FILES[kind][: int(len(FILES[kind]) * ratio)], "cat/1")


def test_decode_refuses_a_text_file_named_jpg():
    with pytest.raises(ImageError, match=r"notes\.jpg: a JPEG, PNG or WebP image is required"):
        decode(b"not an image at all\n", "notes.jpg")


def test_decode_refuses_an_empty_file():
    with pytest.raises(ImageError, match=r"cat/1: an image is required\. Received: an empty file"):
        decode(b"", "cat/1")


def test_decode_refuses_a_jpeg_whose_header_is_damaged():
    with pytest.raises(ImageError, match="cat/1"):
        decode(JPEG[:2] + b"\0" * 40 + JPEG[42:], "cat/1")


@given(st.binary(max_size=200))
def test_decode_of_any_bytes_is_pixels_or_an_image_error(data):
    try:
        pixels = decode(data, "any")
    except ImageError:
        return
    assert pixels.ndim == 3


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"trailing text", JPEG])
def test_decode_accepts_bytes_after_the_end_of_a_jpeg(garbage):
    assert (decode(JPEG + garbage, "cat/1") == decode(JPEG, "cat/1")).all()


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_decode_gives_three_channels_of_eight_bits_for_gray_transparent_and_deep_files(shape, dtype):
    pixels = decode(encode(np.full(shape, np.iinfo(dtype).max, dtype)), "cat/1")

    assert pixels.shape == (24, 32, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == 255).all()


def test_decode_turns_a_photograph_upright():
    stripes = np.zeros((16, 48, 3), np.uint8)
    stripes[:, :24] = RED

    pixels = decode(with_exif(encode(stripes, ".jpg"), exif(6)), "cat/1")  # 6: turned by a quarter, clockwise

    assert pixels.shape == (48, 16, 3)
    assert pixels[4, 8, 2] > 200
    assert pixels[-4, 8, 2] < 50


def bands(first, middle, last):
    """Three bands of 12, 10 and 12 rows, 10 columns wide."""
    return np.concatenate([np.full((rows, 10, 3), c, np.uint8) for rows, c in ((12, first), (10, middle), (12, last))])


@pytest.mark.parametrize("upright", [True, False])
def test_crop_takes_the_middle(upright):
    image = bands(RED, GREEN, BLUE)

    pixels = resize(image if upright else image.transpose(1, 0, 2), CONTRACT)

    assert (pixels == GREEN).all()


def test_crop_keeps_the_aspect_ratio():
    image = np.zeros((40, 120, 3), np.uint8)
    cv2.circle(image, (60, 20), 15, (255, 255, 255), -1)
    contract = replace(CONTRACT, height=20, width=20)

    cropped, stretched = (resize(image, replace(contract, resize=rule)) for rule in ("crop", "stretch"))

    assert (cropped == cropped.transpose(1, 0, 2)).all()
    assert (stretched != stretched.transpose(1, 0, 2)).any()


def test_stretch_uses_the_whole_image():
    pixels = resize(bands(RED, GREEN, BLUE), replace(CONTRACT, resize="stretch", channel_order="bgr"))

    assert (pixels[0] == RED).all()
    assert (pixels[-1] == BLUE).all()


def test_channel_order_decides_which_channel_is_first():
    image = np.full((8, 8, 3), (10, 20, 30), np.uint8)  # blue, green, red

    assert resize(image, replace(CONTRACT, channel_order="bgr"))[0, 0].tolist() == [10, 20, 30]
    assert resize(image, replace(CONTRACT, channel_order="rgb"))[0, 0].tolist() == [30, 20, 10]


def test_area_averages_when_shrinking_and_linear_picks_neighbors():
    board = np.zeros((64, 64, 3), np.uint8)
    board[::8] = 255

    averaged, sampled = (resize(board, replace(CONTRACT, interpolation=rule)) for rule in ("area", "linear"))

    assert set(averaged.ravel().tolist()) == {32}
    assert set(sampled.ravel().tolist()) == {0}


def test_area_is_linear_when_growing():
    small = NOISE[:4, :4]

    assert (resize(small, CONTRACT) == resize(small, replace(CONTRACT, interpolation="linear"))).all()


sizes = st.integers(1, 40)


@given(sizes, sizes, sizes, sizes, st.sampled_from(["crop", "stretch"]), st.sampled_from(["rgb", "bgr"]))
def test_resize_gives_the_shape_of_the_contract(rows, columns, height, width, rule, order):
    contract = replace(CONTRACT, height=height, width=width, resize=rule, channel_order=order)

    pixels = resize(np.full((rows, columns, 3), 7, np.uint8), contract)

    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert (pixels == 7).all()


def test_float_tensor_is_scaled_per_channel():
    contract = replace(CONTRACT, mean=(0.0, 100.0, 200.0), std=(1.0, 2.0, 50.0))

    tensor = to_tensor(np.full((1, 1, 3), 150, np.uint8), contract)

    assert tensor.dtype == np.float32
    assert tensor.ravel().tolist() == [150.0, 25.0, -1.0]


@given(
    st.integers(0, 255),
    st.sampled_from(["int8", "uint8"]),
    st.floats(2**-10, 1.0, width=32),
    st.integers(-128, 255),
    st.floats(0.0, 255.0, width=32),
    st.floats(1.0, 255.0, width=32),
)
def test_integer_tensor_is_within_half_a_step_of_the_real_value_or_clipped(pixel, dtype, scale, zero, mean, std):
    contract = replace(CONTRACT, mean=(mean,) * 3, std=(std,) * 3, dtype=dtype, scale=scale, zero_point=zero)
    limits = np.iinfo(dtype)

    tensor = to_tensor(np.full((2, 2, 3), pixel, np.uint8), contract)

    exact = min(max((pixel - mean) / std / scale + zero, limits.min), limits.max)
    assert tensor.dtype == dtype
    assert np.abs(tensor.astype(float) - exact).max() <= 0.5 + 1e-4 * max(1.0, abs(exact))


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "expected"),
    [("int8", 1 / 127.5, 0, [-128, 0, 127]), ("int8", 0.5, -100, [-102, -100, -98]), ("uint8", 0.01, 50, [0, 50, 150])],
)
def test_integer_tensor_is_clipped_to_its_dtype(dtype, scale, zero_point, expected):
    contract = replace(CONTRACT, mean=(128.0,) * 3, std=(127.0,) * 3, dtype=dtype, scale=scale, zero_point=zero_point)

    tensor = to_tensor(np.array([[[0, 128, 255]]], np.uint8), contract)

    assert tensor.ravel().tolist() == expected


def test_preprocess_adds_the_batch():
    tensor = preprocess(NOISE, replace(CONTRACT, height=6, width=9))

    assert tensor.shape == (1, 6, 9, 3)
    assert tensor.dtype == np.float32
    assert np.abs(tensor).max() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_decode_accepts_whatever_follows_a_whole_jpeg(seed):
    trailer = np.random.default_rng(seed).bytes(200_000)

    assert (decode(JPEG + trailer, "motion.jpg") == decode(JPEG, "still.jpg")).all()


def test_decode_is_not_deceived_by_an_end_marker_that_follows_a_cut():
    with pytest.raises(ImageError, match="truncated"):
        decode(with_exif(JPEG[: len(JPEG) // 2], exif(1, JPEG)), "cut.jpg")
