"""The smoke inference: does every artefact of a new release give, here, what the host saw? Run before it is activated.

A load failure, NaN, a wrong shape or a top-1 flip that the tolerance cannot explain refuses the release; a difference
beyond the tolerance marks the artefact.
"""

from __future__ import annotations

from typing import Any, Dict

import numpy as np

from liteship_agent.errors import ModelError
from liteship_agent.manifest import ManifestEntry
from liteship_agent.postprocess import to_scores
from liteship_agent.release import InstalledRelease, artefact_path, golden_path
from liteship_agent.runtime import Model


def check_release(release: InstalledRelease) -> Dict[str, Dict[str, Any]]:
    """Run the golden inputs through every artefact of a release.

    Returns:
        Per artefact sha256: `max_difference` of a score, `tolerance`, and `within_tolerance`.
    Raises:
        ModelError: an artefact must not be activated; the message says which and why.
    """
    results = {}
    sent = {file.path for file in release.record().files}
    for entry in release.manifest().entries:
        if artefact_path(entry.variant) not in sent:
            continue  # the host did not send what this runtime cannot load
        with np.load(str(release.path / golden_path(entry.golden.sha256)), allow_pickle=False) as golden:
            inputs, expected = golden["inputs"], golden["scores"]
        model = Model(release.artefact(entry), 1, entry.variant)
        if model.runtime.name not in entry.golden.tolerance:
            raise ModelError(
                f"{entry.variant}: a golden tolerance for {model.runtime.name} is required. Received: none"
            )
        tolerance = float(entry.golden.tolerance[model.runtime.name])
        actual = _run(model, entry, inputs, expected)
        difference = float(np.abs(actual - expected).max())
        _refuse_flips(entry.variant, actual, expected, tolerance)
        results[entry.sha256] = {
            "max_difference": difference,
            "tolerance": tolerance,
            "within_tolerance": difference <= tolerance,
        }
    return results


def _run(model: Model, entry: ManifestEntry, inputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
    if model.input_shape[1:] != inputs.shape[1:]:
        raise ModelError(
            f"{entry.variant}: input shape {inputs.shape[1:]} is required. Received: {model.input_shape[1:]}"
        )
    actual = np.concatenate([to_scores(model.run(inputs[i : i + 1]), entry.output) for i in range(len(inputs))])
    if actual.shape != expected.shape:
        raise ModelError(f"{entry.variant}: scores of shape {expected.shape} are required. Received: {actual.shape}")
    if not np.isfinite(actual).all():
        raise ModelError(f"{entry.variant}: finite scores are required. Received: NaN or infinity")
    return actual


def _refuse_flips(variant: str, actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """A top-1 flip counts only where the host's margin between first and second exceeds twice the tolerance."""
    ranked = np.sort(expected, axis=1)
    decided = ranked[:, -1] - ranked[:, -2] > 2 * tolerance
    flipped = (actual.argmax(axis=1) != expected.argmax(axis=1)) & decided
    if flipped.any():
        index = int(np.flatnonzero(flipped)[0])
        raise ModelError(
            f"{variant}: the host's answer for golden image {index} is required (scores "
            f"{_shown(expected[index])}). Received: {_shown(actual[index])}"
        )


def _shown(scores: np.ndarray) -> str:
    return ", ".join(f"{score:.3f}" for score in scores)
