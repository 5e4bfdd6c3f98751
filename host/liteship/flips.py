"""Where a target answers otherwise than the host, or than the baseline there, and why.

report + the host's predictions -> flips -> for those against the host: the host's pixels run on the target. Where that
gives the host's answer, the pixels were the cause (resizing rounds differently on ARM), else the kernels.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from liteship.deploy import Deployment, agent_command
from liteship.errors import DataError, LinkError
from liteship.predictions import Predictions
from liteship.remote import Connection
from liteship.report.accuracy import BASELINE, EXPLAINED, HOST, KERNELS, PIXELS
from liteship_agent.accuracy import pixel_hash
from liteship_agent.images import read_image, selected_images
from liteship_agent.manifest import InputContract, Manifest, ValidationImage
from liteship_agent.preprocess import decode, resize
from liteship_agent.release import VALIDATION
from liteship_agent.report import Flip, Report, Scores

_EXPLAIN_SECONDS = 300.0
_COMPARED = 16
"""Images whose pixels differ, without another answer, that are compared for the size of the difference."""

Ask = Callable[[Scores, Mapping[int, str]], Mapping[int, Mapping[str, Any]]]
"""Runs an artefact on the host's pixels on the target: scores, base64 by index -> the agent's result by index."""


def find_flips(manifest: Manifest, report: Report, predictions: Mapping[str, Predictions]) -> tuple[Flip, ...]:
    """All images that an artefact classifies otherwise on the target than on the host, or than the baseline there.

    The baseline is compared in the same runtime, where it ran in that, else in its first.

    Args:
        manifest: Of the study.
        report: Whose scores are looked at.
        predictions: Of the host, by artefact sha256.
    """
    compared = _Compared(manifest, report, predictions)
    flips: list[Flip] = []
    for scores in report.accuracy:
        received = _answers(scores.scores)
        flips += compared.flips(scores, received, compared.host_answers(scores), HOST)
        baseline = compared.baseline(scores)
        if baseline is not None:
            flips += compared.flips(scores, received, _answers(baseline.scores), BASELINE)
    return tuple(flips)


def find_other_pixels(manifest: Manifest, report: Report, predictions: Mapping[str, Predictions]) -> frozenset[int]:
    """Indices into the job's images of those whose resized pixels on the target are not the host's."""
    compared = _Compared(manifest, report, predictions)
    return frozenset(index for scores in report.accuracy for index in compared.other_pixels(scores))


class _Compared:
    """A report beside the host's predictions for the images of its job."""

    def __init__(self, manifest: Manifest, report: Report, predictions: Mapping[str, Predictions]) -> None:
        self.report, self.predictions = report, predictions
        self.images = selected_images(manifest, report.job.limit)
        position = {image.path: index for index, image in enumerate(manifest.validation.images)}
        self.inputs = {entry.sha256: entry.input for entry in manifest.entries}
        self.positions = [position[image.path] for image in self.images]

    def host_answers(self, scores: Scores) -> list[int]:
        answers: list[int] = self.predictions[scores.artefact].scores[self.positions].argmax(axis=1).tolist()
        return answers

    def host_hash(self, scores: Scores, index: int) -> str:
        return self.predictions[scores.artefact].pixel_hashes[self.positions[index]]

    def contract(self, scores: Scores) -> InputContract:
        return self.inputs[scores.artefact]

    def flips_by_index(self, scores: Scores) -> dict[int, Flip]:
        """The report's flips of these scores against the host."""
        of_these = {
            flip.path: flip
            for flip in self.report.flips
            if flip.against == HOST and (flip.artefact, flip.runtime) == (scores.artefact, scores.runtime)
        }
        return {i: of_these[image.path] for i, image in enumerate(self.images) if image.path in of_these}

    def other_pixels(self, scores: Scores) -> list[int]:
        return [i for i, found in enumerate(scores.pixel_hashes) if found != self.host_hash(scores, i)]

    def baseline(self, scores: Scores) -> Scores | None:
        """The baseline's scores to compare with; None where these are the baseline's, or it has none."""
        sha256 = self.report.job.cases[0].artefact
        own = [other for other in self.report.accuracy if other.artefact == sha256]
        same = [other for other in own if other.runtime == scores.runtime]
        return None if scores.artefact == sha256 else next(iter([*same, *own]), None)

    def flips(self, scores: Scores, received: Sequence[int], expected: Sequence[int], against: str) -> Iterator[Flip]:
        for image, answer, other in zip(self.images, received, expected, strict=True):
            if answer != other:
                yield Flip(scores.artefact, scores.runtime, image.path, against, image.label, other, answer)


def _answers(scores: Sequence[Sequence[float]]) -> list[int]:
    """Index of the largest score of each image; of equal ones the first."""
    return [row.index(max(row)) for row in map(list, scores)]


@dataclass(frozen=True)
class Explanation:
    """What the attribution found.

    Args:
        flips: All, with the cause where it was found.
        largest_difference: Of any pixel that was compared, 0 where all pixels are the host's; None where it is unknown.
        interruption: Why not everything was looked at, None where it was.
    """

    flips: tuple[Flip, ...]
    largest_difference: int | None
    interruption: str | None = None


def explain_flips(
    manifest: Manifest, report: Report, predictions: Mapping[str, Predictions], study: Path, ask: Ask
) -> Explanation:
    """Find the causes of the flips against the host, and how far the target's pixels are from the host's.

    An image with the very pixels of the host was flipped by the kernels; only the others are sent.

    Args:
        manifest: Of the study.
        report: With its flips.
        predictions: Of the host, by artefact sha256.
        study: Folder of the study, with its validation images.
        ask: Runs an artefact on the target. What it raises as LinkError ends the search; what was found stays.
    """
    compared = _Compared(manifest, report, predictions)
    explained: dict[Flip, Flip] = {}
    differences: list[int] = []
    interruption = None
    seen_runtimes: set[str] = set()
    try:
        for scores in report.accuracy:
            flips = compared.flips_by_index(scores)
            other = compared.other_pixels(scores)
            for index, flip in flips.items():
                if index not in other:
                    explained[flip] = replace(flip, cause=KERNELS, largest_pixel_difference=0)
            asked = [index for index in flips if index in other][:EXPLAINED]
            if scores.runtime not in seen_runtimes:  # its other artefacts see the same pixels
                asked += [index for index in other if index not in flips][:_COMPARED]
            seen_runtimes.add(scores.runtime)
            for index, result in _ask(compared, study, scores, asked, ask).items():
                differences.append(result["largest_pixel_difference"])
                if index in flips:
                    explained[flips[index]] = _attributed(flips[index], result)
    except LinkError as exc:
        interruption = str(exc)
    has_other = bool(find_other_pixels(manifest, report, predictions))
    return Explanation(
        flips=tuple(explained.get(flip, flip) for flip in report.flips),
        largest_difference=max(differences, default=None) if has_other else 0,
        interruption=interruption,
    )


def _attributed(flip: Flip, result: Mapping[str, Any]) -> Flip:
    """A flip with its cause, from the target's result on the host's pixels."""
    (answer,) = _answers([result["scores"]])
    cause = PIXELS if answer == flip.expected else KERNELS
    return replace(flip, cause=cause, largest_pixel_difference=result["largest_pixel_difference"])


def _ask(
    compared: _Compared, study: Path, scores: Scores, indices: Sequence[int], ask: Ask
) -> Mapping[int, Mapping[str, Any]]:
    """The target's results by index; images that the host resizes otherwise today are left out."""
    images = {index: compared.images[index] for index in indices}
    pixels = dict(zip(images, _host_pixels(study, images.values(), compared.contract(scores)), strict=True))
    same = {i: image for i, image in pixels.items() if pixel_hash(image) == compared.host_hash(scores, i)}
    return ask(scores, {i: base64.b64encode(image.tobytes()).decode() for i, image in same.items()}) if same else {}


def _host_pixels(study: Path, images: Iterable[ValidationImage], contract: InputContract) -> list[np.ndarray]:
    """Resized pixels of validation images, uint8, shape (height, width, 3) each.

    Raises:
        DataError: the study's validation set cannot be read.
    """
    path = study / VALIDATION
    try:
        with open(path, "rb") as archive:
            return [resize(decode(read_image(archive, image), image.path), contract) for image in images]
    except OSError as exc:
        raise DataError(
            f"{path}: a readable file is required. Received: {exc.strerror}.", "Run the recipe again."
        ) from exc


def ask_target(connection: Connection, deployment: Deployment, report: Report) -> Ask:
    """What runs an artefact of a release on the host's pixels, over the link."""

    def ask(scores: Scores, pixels: Mapping[int, str]) -> Mapping[int, Mapping[str, Any]]:
        cases = report.job.cases
        case = next(case for case in cases if (case.artefact, case.runtime) == (scores.artefact, scores.runtime))
        request = {
            "folder": deployment.folder,
            "release_id": deployment.release,
            "artefact": scores.artefact,
            "runtime": scores.runtime,
            "threads": case.threads,
            "limit": report.job.limit,
            "images": [{"index": index, "pixels": text} for index, text in pixels.items()],
        }
        command = agent_command(connection, deployment, "explain", runtime=scores.runtime)
        answer = connection.call(command, [json.dumps(request).encode()], idle_seconds=_EXPLAIN_SECONDS)
        return {result["index"]: result for result in answer["results"]}

    return ask
