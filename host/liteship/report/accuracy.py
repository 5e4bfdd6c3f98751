"""What each artefact answered on the target, image by image: how often it was right, what it took for what, and where
its answers are not those of the host or of the baseline.

An answer belongs to bytes and a runtime; threads and CPUs do not change it. Pure functions of manifest and report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from liteship.stats import is_tie, mcnemar_exact, paired_difference, wilson_interval
from liteship_agent.manifest import Manifest, ValidationImage
from liteship_agent.report import Flip, Report, Scores

HOST, BASELINE = "host", "baseline"
PIXELS, KERNELS = "pixels", "kernels"
EXPLAINED = 64
"""Flips of one artefact in one runtime whose cause is looked for."""

Confusion = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class FlippedImage:
    """An image that is classified otherwise than by the host, or by the baseline on the target.

    Args:
        path: `<class>/<file name>`.
        against: "host" or "baseline".
        label, expected, received: Names of the labels: the truth, the other's answer, the artefact's.
        cause: "pixels" or "kernels", None where it was not looked for.
        largest_pixel_difference: Between host and target, 0 to 255.
    """

    path: str
    against: str
    label: str
    expected: str
    received: str
    cause: str | None
    largest_pixel_difference: int | None


@dataclass(frozen=True)
class Answers:
    """The answers of one artefact in one runtime; None is a figure that does not exist.

    Args:
        variant, sha256: The artefact.
        runtime, runtime_version: What ran it.
        correct, image_count: Images classified correctly, of all.
        low_ratio, high_ratio: 95 % Wilson interval of their share.
        labels: Names of the rows and columns of the confusion matrix.
        wrong: Which of the images are classified wrongly, from 0, ascending.
        confusion: Images by true label (row) and answer (column).
        difference_ratio, difference_low_ratio, difference_high_ratio: Accuracy less that of the baseline on the same
            images, in the same runtime where it ran there, with its 95 % interval; None for the baseline.
        p: Two-sided exact McNemar test that both are equally good.
        golden_difference, golden_tolerance: Largest difference to the host's golden outputs, and the largest allowed.
        flips: Against host and baseline, in the order of the report.
    """

    variant: str
    sha256: str
    runtime: str
    runtime_version: str
    correct: int
    image_count: int
    low_ratio: float
    high_ratio: float
    labels: tuple[str, ...]
    wrong: tuple[int, ...]
    confusion: Confusion
    golden_difference: float
    golden_tolerance: float
    flips: tuple[FlippedImage, ...]
    difference_ratio: float | None = None
    difference_low_ratio: float | None = None
    difference_high_ratio: float | None = None
    p: float | None = None

    @property
    def tie(self) -> bool | None:
        """Whether the interval of the difference holds 0; None for the baseline."""
        if self.difference_low_ratio is None or self.difference_high_ratio is None:
            return None
        return is_tie(self.difference_low_ratio, self.difference_high_ratio, 0.0)

    @property
    def golden_within_tolerance(self) -> bool:
        """Whether the scores of the golden images are near enough to the host's."""
        return self.golden_difference <= self.golden_tolerance

    def count_flips(self, against: str, *causes: str | None) -> int:
        """Flips against the host or the baseline; with causes only those."""
        return sum(flip.against == against and (not causes or flip.cause in causes) for flip in self.flips)


def build_answers(manifest: Manifest, report: Report, images: Sequence[ValidationImage]) -> list[Answers]:
    """The answers of every artefact and runtime that has scores, in the order of the report.

    Args:
        manifest: Of the study.
        report: On it; checked by `checks.check_report`.
        images: Those that the job selects.
    """
    labels = [image.label for image in images]
    given = {(scores.artefact, scores.runtime): answers_of(scores) for scores in report.accuracy}

    def expected(scores: Scores) -> list[bool] | None:
        baseline = _baseline(report, scores)
        return None if baseline is None else _are_right(given[baseline.artefact, baseline.runtime], labels)

    return [
        _build(manifest, report, scores, given[scores.artefact, scores.runtime], labels, expected(scores))
        for scores in report.accuracy
    ]


def answers_of(scores: Scores) -> list[int]:
    """The label with the largest score of each image; of equal scores the first counts, as in numpy's argmax."""
    return [row.index(max(row)) for row in scores.scores]


def _are_right(answers: Sequence[int], labels: Sequence[int]) -> list[bool]:
    """Whether each image is classified correctly."""
    return [answer == label for answer, label in zip(answers, labels, strict=True)]


def confusion_matrix(labels: Sequence[int], answers: Sequence[int], label_count: int) -> Confusion:
    """How many images of each true label (row) got each answer (column); shape (label_count, label_count)."""
    counts = Counter(zip(labels, answers, strict=True))
    return tuple(tuple(counts[label, answer] for answer in range(label_count)) for label in range(label_count))


def _build(
    manifest: Manifest,
    report: Report,
    scores: Scores,
    given: Sequence[int],
    labels: Sequence[int],
    expected: Sequence[bool] | None,
) -> Answers:
    """The answers of one artefact in one runtime; `expected` is where its baseline is right, None without one."""
    entry = manifest.entry(scores.artefact)
    runtime, _, version = report.job.runtimes[scores.runtime].partition("==")
    right = _are_right(given, labels)
    low, high = wilson_interval(sum(right), len(right))
    answers = Answers(
        variant="" if entry is None else entry.variant,
        sha256=scores.artefact,
        runtime=runtime,
        runtime_version=version,
        correct=sum(right),
        image_count=len(right),
        low_ratio=low,
        high_ratio=high,
        labels=manifest.labels,
        wrong=tuple(index for index, is_right in enumerate(right) if not is_right),
        confusion=confusion_matrix(labels, given, len(manifest.labels)),
        golden_difference=scores.golden_difference,
        golden_tolerance=scores.golden_tolerance,
        flips=tuple(
            _flipped(manifest.labels, flip)
            for flip in report.flips
            if (flip.artefact, flip.runtime) == (scores.artefact, scores.runtime)
        ),
    )
    if expected is None:
        return answers
    difference, difference_low, difference_high = paired_difference(expected, right)
    return replace(
        answers,
        difference_ratio=difference,
        difference_low_ratio=difference_low,
        difference_high_ratio=difference_high,
        p=mcnemar_exact(expected, right),
    )


def _baseline(report: Report, scores: Scores) -> Scores | None:
    """The baseline's scores in the same runtime, else in its first; None for the baseline itself."""
    sha256 = report.job.cases[0].artefact
    found = [other for other in report.accuracy if other.artefact == sha256]
    same = [other for other in found if other.runtime == scores.runtime]
    return None if scores.artefact == sha256 else next(iter(same + found), None)


def _flipped(labels: Sequence[str], flip: Flip) -> FlippedImage:
    return FlippedImage(
        path=flip.path,
        against=flip.against,
        label=labels[flip.label],
        expected=labels[flip.expected],
        received=labels[flip.received],
        cause=flip.cause,
        largest_pixel_difference=flip.largest_pixel_difference,
    )
