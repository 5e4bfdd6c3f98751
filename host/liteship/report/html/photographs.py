"""The images whose answer flipped, small, with what was taken for what and why."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from liteship.report.accuracy import Answers, FlippedImage
from liteship.report.text import count, plain
from liteship_agent.errors import AgentError
from liteship_agent.images import read_image
from liteship_agent.manifest import Manifest

MOST_IMAGES = 60
LONGEST_SIDE = 96
_QUALITY = 80
_MOST_FLIPS = 6


@dataclass(frozen=True)
class FlippedAnswer:
    """One artefact's answer.

    Args:
        name: Of the artefact, with its runtime where several ran.
        against: "host" or "baseline".
        expected, received: Labels.
        cause: In words, may be empty.
    """

    name: str
    against: str
    expected: str
    received: str
    cause: str


@dataclass(frozen=True)
class Photograph:
    """An image that at least one artefact classifies otherwise.

    Args:
        path: `<class>/<file name>`.
        label: The truth.
        source: A data URI, empty where the image cannot be shown.
        flips: Of it, the first few.
        more: Flips beyond them.
    """

    path: str
    label: str
    source: str
    flips: tuple[FlippedAnswer, ...]
    more: int


@dataclass(frozen=True)
class Photographs:
    """All of them.

    Args:
        shown: The first `MOST_IMAGES`, those that flipped most often before others.
        sentences: What is not shown, and why.
    """

    shown: tuple[Photograph, ...]
    sentences: tuple[str, ...]


def photographs(manifest: Manifest, answers: Sequence[Answers], archive: Path) -> Photographs:
    """The flipped images.

    Args:
        manifest: Says where in the archive they are.
        answers: With their flips.
        archive: The validation images as one tar.
    """
    several = len({(own.runtime, own.runtime_version) for own in answers}) > 1
    by_path: dict[str, list[FlippedAnswer]] = {}
    labels: dict[str, str] = {}
    for own in answers:
        runtime = f", {own.runtime} {own.runtime_version}" if several else ""
        for flip in own.flips:
            by_path.setdefault(flip.path, []).append(_answer(plain(f"{own.variant}{runtime}"), flip))
            labels[flip.path] = plain(flip.label)
    if not by_path:
        return Photographs((), ("No answer differs from the host's or the baseline's.",))
    paths = sorted(by_path, key=lambda path: (-len(by_path[path]), path))
    sources, problem = _thumbnails(manifest, paths[:MOST_IMAGES], archive)
    shown = tuple(
        Photograph(
            path=plain(path),
            label=labels[path],
            source=sources.get(path, ""),
            flips=tuple(by_path[path][:_MOST_FLIPS]),
            more=max(len(by_path[path]) - _MOST_FLIPS, 0),
        )
        for path in paths[:MOST_IMAGES]
    )
    sentences = [f"The answer to {count(len(paths), 'image')} differs from the host's or the baseline's."]
    if len(paths) > MOST_IMAGES:
        sentences.append(f"The {MOST_IMAGES} that differ most often are shown; {len(paths) - MOST_IMAGES} are not.")
    return Photographs(shown, (*sentences, *problem))


def _answer(name: str, flip: FlippedImage) -> FlippedAnswer:
    cause = ""
    if flip.cause is not None:
        steps = flip.largest_pixel_difference
        cause = f"{flip.cause}, {steps} of 255 at most" if steps else flip.cause
    return FlippedAnswer(name, flip.against, plain(flip.expected), plain(flip.received), cause)


def _thumbnails(manifest: Manifest, paths: Sequence[str], archive: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Data URIs by path, and what could not be read."""
    by_path = {image.path: image for image in manifest.validation.images}
    sources: dict[str, str] = {}
    unreadable = 0
    try:
        with open(archive, "rb") as file:
            if archive.stat().st_size != manifest.validation.size_bytes:
                return {}, (f"The images are not shown: {archive.name} is no longer the one that was measured.",)
            for path in paths:
                try:
                    sources[path] = _thumbnail(read_image(file, by_path[path]))
                except (AgentError, KeyError, ValueError):
                    unreadable += 1
    except OSError as exc:
        return {}, (f"The images are not shown: {archive.name} cannot be read ({exc.strerror}).",)
    return sources, ((f"{count(unreadable, 'image')} could not be read.",) if unreadable else ())


def _thumbnail(content: bytes) -> str:
    """A small JPEG of an image file as a data URI.

    Raises:
        ValueError: it is not an image.
    """
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise ValueError("An image file is required.")
    scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
    if scale < 1:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
