"""The smoke inference: does every artefact of a new release give, here, what the host saw? Run before it is activated.

A load failure, NaN, a wrong shape or a top-1 flip that the tolerance cannot explain refuses the release; a difference
beyond the tolerance marks the artefact. The accuracy pass compares by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict

import numpy as np

from liteship_agent.errors import ModelError, RecordError
from liteship_agent.manifest import ManifestEntry
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import to_tensor
from liteship_agent.release import InstalledRelease, artefact_path, golden_path
from liteship_agent.runtime import Model


@dataclass(frozen=True)
class Comparison:
    """Scores of the golden inputs here and on the host.

    Args:
        actual, expected: float32, shape (images, labels).
        tolerance: Largest allowed difference of a score in this runtime.
    """

    actual: np.ndarray
    expected: np.ndarray
    tolerance: float

    @property
    def difference(self) -> float:
        """The largest of any score."""
        return float(np.abs(self.actual - self.expected).max())


def check_release(release: InstalledRelease, runtime: str) -> Dict[str, Dict[str, Any]]:
    """Run the golden inputs through every artefact of a release that one of its runtimes is meant to load.

    Args:
        release: As it is installed.
        runtime: Folder name of the runtime that is on this process's path.
    Returns:
        Per artefact sha256: `max_difference` of a score, `tolerance`, and `within_tolerance`.
    Raises:
        ModelError: an artefact must not be activated; the message says which and why.
        RecordError: the release has no such runtime, or an artefact is damaged.
    """
    record = release.record()
    sent = {file.path for file in record.files}
    refused = release.runtime_record(runtime).refused
    results = {}
    for entry in release.manifest().entries:
        if artefact_path(entry.variant) not in sent or entry.sha256 in refused:
            continue  # no runtime of the release can load it, or this one cannot
        compared = compare_golden(Model(release.artefact(entry), 1, entry.variant), release, entry)
        _refuse_flips(entry.variant, compared)
        results[entry.sha256] = {
            "max_difference": compared.difference,
            "tolerance": compared.tolerance,
            "within_tolerance": compared.difference <= compared.tolerance,
        }
    return results


def compare_golden(model: Model, release: InstalledRelease, entry: ManifestEntry) -> Comparison:
    """Run an artefact's golden inputs.

    Raises:
        ModelError: NaN, another shape, or the manifest has no tolerance for this runtime.
    """
    if model.runtime.name not in entry.golden.tolerance:
        raise ModelError(f"{entry.variant}: a golden tolerance for {model.runtime.name} is required. Received: none")
    pixels = _load(release, entry.golden.pixels_sha256, "pixels")
    expected = _load(release, entry.golden.sha256, "scores")
    actual = _run(model, entry, to_tensor(pixels, entry.input), expected)
    return Comparison(actual, expected, float(entry.golden.tolerance[model.runtime.name]))


def _load(release: InstalledRelease, sha256: str, name: str) -> np.ndarray:
    """One array of a golden file.

    Raises:
        RecordError: the file is not there or has no such array.
    """
    path = release.path / golden_path(sha256)
    try:
        with np.load(str(path), allow_pickle=False) as golden:
            array: np.ndarray = golden[name]
    except (OSError, ValueError, KeyError) as exc:
        raise RecordError(str(path), "", f"a golden file with {name}", str(exc)) from exc
    return array


def require_finite(scores: np.ndarray, variant: str) -> None:
    """Raise ModelError where a score is NaN or infinite."""
    if not np.isfinite(scores).all():
        raise ModelError(f"{variant}: finite scores are required. Received: NaN or infinity")


def _run(model: Model, entry: ManifestEntry, inputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
    if model.input_shape[1:] != inputs.shape[1:]:
        raise ModelError(
            f"{entry.variant}: input shape {inputs.shape[1:]} is required. Received: {model.input_shape[1:]}"
        )
    actual = np.concatenate([to_scores(model.run(inputs[i : i + 1]), entry.output) for i in range(len(inputs))])
    if actual.shape != expected.shape:
        raise ModelError(f"{entry.variant}: scores of shape {expected.shape} are required. Received: {actual.shape}")
    require_finite(actual, entry.variant)
    return actual


def _refuse_flips(variant: str, compared: Comparison) -> None:
    """A top-1 flip counts only where the host's margin between first and second exceeds twice the tolerance."""
    actual, expected = compared.actual, compared.expected
    ranked = np.sort(expected, axis=1)
    decided = ranked[:, -1] - ranked[:, -2] > 2 * compared.tolerance
    flipped = (actual.argmax(axis=1) != expected.argmax(axis=1)) & decided
    if flipped.any():
        index = int(np.flatnonzero(flipped)[0])
        raise ModelError(
            f"{variant}: the host's answer for golden image {index} is required (scores "
            f"{_shown(expected[index])}). Received: {_shown(actual[index])}"
        )


def _shown(scores: np.ndarray) -> str:
    return ", ".join(f"{score:.3f}" for score in scores)
