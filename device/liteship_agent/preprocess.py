"""From the bytes of an image file to the input tensor: the same code for training, calibration, host and board.

decode -> resize -> to_tensor. Decoding gives uint8 pixels in the contract's channel order, resizing gives the model's
height and width, `to_tensor` the value range and dtype that the model wants.
"""

from __future__ import annotations

import functools
import re
from typing import Optional, Tuple

import cv2
import numpy as np

from liteship_agent.errors import ImageError
from liteship_agent.manifest import InputContract

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""Neither a stuffed zero nor a marker without length (TEM, RST0 to RST7, SOI), nor one of several fill bytes."""
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"


def decode(data: bytes, name: str) -> np.ndarray:
    """Decode a JPEG, PNG or WebP file, turned upright by its EXIF orientation.

    OpenCV fills up what is missing in a truncated file with gray and says nothing, so that the end of the file is
    checked first.

    Args:
        data: The whole file.
        name: For the message.
    Returns:
        uint8, shape (height, width, 3), channels blue, green, red.
    Raises:
        ImageError: empty, truncated or not an image.
    """
    if not data:
        raise ImageError(f"{name}: an image is required. Received: an empty file")
    if _is_truncated(data):
        raise ImageError(f"{name}: a whole image is required. Received: a truncated file of {len(data)} bytes")
    try:
        image: Optional[np.ndarray] = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as exc:
        raise ImageError(f"{name}: an image is required. Received: one that OpenCV refuses ({exc.err})") from exc
    if image is None:
        raise ImageError(f"{name}: a JPEG, PNG or WebP image is required. Received: {len(data)} bytes that are none")
    return image


def _is_truncated(data: bytes) -> bool:
    if data.startswith(_JPEG_START):
        return not _jpeg_ends(data)
    if data.startswith(_PNG_START):
        return _PNG_END not in data
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False


def _jpeg_ends(data: bytes) -> bool:
    """Whether the image's own end marker is there: not that of a thumbnail in a segment, nor one in what follows it.

    Source: ITU-T T.81, B.1.1: a segment tells its length; compressed data goes on until a marker that is neither a
    stuffed zero nor a restart.
    """
    marker = _JPEG_MARKER.search(data, 2)
    while marker is not None and marker.group() != _JPEG_END:
        marker = _JPEG_MARKER.search(data, marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    return marker is not None


def resize(image: np.ndarray, contract: InputContract) -> np.ndarray:
    """Bring decoded pixels to the contract's size and channel order.

    Args:
        image: uint8, shape (height, width, 3), blue, green, red, as `decode` returns it.
        contract: Which part of the image is used and how it is resampled.
    Returns:
        uint8, shape (contract.height, contract.width, 3), contiguous.
    """
    if contract.resize == "crop":
        image = _crop_to_shape(image, contract.height, contract.width)
    shrinks = image.shape[0] > contract.height or image.shape[1] > contract.width
    area = contract.interpolation == "area" and shrinks
    image = cv2.resize(
        image, (contract.width, contract.height), interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR
    )
    if contract.channel_order == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image


def _crop_to_shape(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest centred part with the aspect ratio height : width."""
    rows, columns = image.shape[:2]
    if rows * width > columns * height:
        kept = max(1, columns * height // width)
        top = (rows - kept) // 2
        return image[top : top + kept]
    kept = max(1, rows * width // height)
    left = (columns - kept) // 2
    return image[:, left : left + kept]


def to_tensor(pixels: np.ndarray, contract: InputContract) -> np.ndarray:
    """Scale resized pixels to the model's value range and dtype.

    Args:
        pixels: uint8, shape (..., height, width, 3), as `resize` returns them.
        contract: Range, and scale and zero point of an integer input.
    Returns:
        contract.dtype, the same shape.
    """
    if contract.dtype == "float32":
        return _to_real(pixels, contract)
    steps: np.ndarray = cv2.LUT(pixels.reshape(-1, pixels.shape[-2], 3), _steps(contract))
    return steps.reshape(pixels.shape)


def _to_real(pixels: np.ndarray, contract: InputContract) -> np.ndarray:
    # By whole images: numpy takes ten times as long for an inner dimension of three.
    count = pixels.shape[-3] * pixels.shape[-2]
    flat = pixels.astype(np.float32).reshape(*pixels.shape[:-3], -1)
    flat -= _repeated(contract.mean, count)
    flat /= _repeated(contract.std, count)
    return flat.reshape(pixels.shape)


@functools.lru_cache(maxsize=4)
def _repeated(values: Tuple[float, ...], count: int) -> np.ndarray:
    """The values of a pixel's channels, float32, `count` times one after the other."""
    return np.tile(np.asarray(values, np.float32), count)


@functools.lru_cache(maxsize=4)
def _steps(contract: InputContract) -> np.ndarray:
    """What each value of a pixel becomes in an integer tensor, shape (256, 1, 3)."""
    real = _to_real(np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 1, 3), contract)
    limits = np.iinfo(contract.dtype)
    steps = np.round(real / np.float32(contract.scale)) + np.float32(contract.zero_point)
    return np.clip(steps, limits.min, limits.max).astype(contract.dtype)


def preprocess(image: np.ndarray, contract: InputContract) -> np.ndarray:
    """The input tensor of one decoded image, shape (1, height, width, 3)."""
    return to_tensor(resize(image, contract), contract)[np.newaxis]
