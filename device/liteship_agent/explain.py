"""Why does the target answer otherwise than the host: because it sees other pixels, or because it computes otherwise?

The host sends the pixels that it decoded; the artefact runs here on those, and they are compared with what this
machine decodes from the same file.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np

from liteship_agent.errors import RecordError
from liteship_agent.images import Images
from liteship_agent.manifest import InputContract
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import to_tensor
from liteship_agent.records import from_json
from liteship_agent.release import InstalledRelease
from liteship_agent.runtime import Model

_SOURCE = "explain request"


@dataclass(frozen=True)
class HostImage:
    """One image as the host saw it.

    Args:
        index: Into the validation images of the job.
        pixels: Base64 of its resized uint8 pixels, shape (height, width, 3).
    """

    index: int
    pixels: str


@dataclass(frozen=True)
class Request:
    """What is to be explained.

    Args:
        folder, release_id: Where the artefact is.
        artefact: Its sha256.
        runtime: Folder name of the runtime, which is on this process's path.
        threads: Interpreter threads.
        limit: Most validation images of the job, null for all.
        images: Those to run.
    """

    folder: str
    release_id: str
    artefact: str
    runtime: str
    threads: int
    limit: Optional[int]
    images: Tuple[HostImage, ...]


def explain(request: Dict[str, Any]) -> Dict[str, Any]:
    """Run an artefact on the host's pixels.

    Args:
        request: The JSON object of a `Request`.
    Returns:
        `results`: per image its `index`, the `scores`, and the `largest_pixel_difference` (0 to 255) between the
        host's pixels and those that this machine decodes.
    Raises:
        RecordError: the request names what is not there, or its pixels have another size.
        ImageError, ModelError: the image or the artefact cannot be used.
    """
    asked = from_json(Request, request, _SOURCE)
    release = InstalledRelease(Path(asked.folder), asked.release_id)
    manifest, entry = release.manifest_entry(asked.artefact)
    model = Model(release.artefact(entry), asked.threads, entry.variant)
    results = []
    with Images.of_release(release, manifest, entry.input, asked.limit) as images:
        for position, image in enumerate(asked.images):
            if not 0 <= image.index < len(images):
                where = f"images[{position}].index"
                raise RecordError(_SOURCE, where, f"an index below {len(images)}", str(image.index))
            host = _pixels(image, entry.input, f"images[{position}].pixels")
            own = images.pixels(image.index)
            scores = to_scores(model.run(to_tensor(host[np.newaxis], entry.input)), entry.output)
            difference = int(np.abs(host.astype(np.int16) - own).max())
            results.append({"index": image.index, "scores": scores[0].tolist(), "largest_pixel_difference": difference})
    return {"results": results}


def _pixels(image: HostImage, contract: InputContract, field: str) -> np.ndarray:
    shape = (contract.height, contract.width, 3)
    try:
        content = base64.b64decode(image.pixels, validate=True)
    except (ValueError, binascii.Error) as exc:
        raise RecordError(_SOURCE, field, "base64", f"something else ({exc})") from exc
    if len(content) != int(np.prod(shape)):
        raise RecordError(_SOURCE, field, f"{int(np.prod(shape))} bytes", str(len(content)))
    return np.frombuffer(content, np.uint8).reshape(shape)
