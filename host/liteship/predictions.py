"""What the host answers to every validation image, per artefact: what a target's answers are compared with later.

They lie beside the artefacts as `predictions/<sha256 of the artefact>.npz`.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liteship.errors import DataError
from liteship_agent.accuracy import pixel_hash
from liteship_agent.records import write_atomic


@dataclass(frozen=True)
class Predictions:
    """Of one artefact on the host.

    Args:
        scores: float32, shape (images, labels), in the order of the validation set.
        pixel_hashes: Per image the `pixel_hash` of its resized pixels.
    """

    scores: np.ndarray
    pixel_hashes: tuple[str, ...]

    @classmethod
    def of(cls, scores: np.ndarray, pixels: np.ndarray) -> Predictions:
        """From the scores and the pixels they were made from, uint8, shape (images, height, width, 3)."""
        return cls(scores.astype(np.float32), tuple(pixel_hash(image) for image in pixels))


def write_predictions(study: Path, sha256: str, predictions: Predictions) -> None:
    """Write the predictions of an artefact into the folder of its study."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, scores=predictions.scores, pixel_hashes=np.array(predictions.pixel_hashes))
    write_atomic(_path(study, sha256), buffer.getvalue())


def read_predictions(study: Path, sha256: str, shape: tuple[int, int] | None = None) -> Predictions:
    """Read the predictions of an artefact.

    Args:
        study: Folder of the study.
        sha256: Of the artefact.
        shape: Images of the validation set, and labels; None takes any.

    Raises:
        DataError: there are none, the file is damaged, or they are of other images or labels.
    """
    path = _path(study, sha256)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = Predictions(file["scores"], tuple(np.atleast_1d(file["pixel_hashes"]).tolist()))
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as exc:
        raise DataError(
            f"{path}: predictions of the host are required. Received: {exc}.", "Run the recipe again."
        ) from exc
    if shape is not None and (found.scores.shape, len(found.pixel_hashes)) != (shape, shape[0]):
        raise DataError(
            f"{path}: scores of shape {shape} and {shape[0]} hashes are required. "
            f"Received: {found.scores.shape} and {len(found.pixel_hashes)}.",
            "Run the recipe again.",
        )
    return found


def _path(study: Path, sha256: str) -> Path:
    return study / "predictions" / f"{sha256}.npz"
