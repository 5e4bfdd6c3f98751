from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import (
    LITERT,
    TFLITE,
    make_block,
    make_case,
    make_flip,
    make_job,
    make_manifest,
    make_report,
    make_scores,
)

from liteship.report.accuracy import build_answers, confusion_matrix
from liteship.stats import mcnemar_exact, paired_difference

MANIFEST = make_manifest(image_count=6)
IMAGES = MANIFEST.validation.images


def answers_of_report(*scores, flips=(), **changes):
    """Answers of a job with one case for each of the scores."""
    cases = [make_case("none-none", artefact=own.artefact, runtime=own.runtime) for own in scores]
    job = make_job(*cases, rounds=1)
    blocks = tuple(make_block(job, index, 0, [5]) for index in range(len(cases)))
    report = make_report(MANIFEST, job=job, blocks=blocks, accuracy=scores, flips=flips, image_count=6, **changes)
    return build_answers(MANIFEST, report, IMAGES)


def scores_of(variant, answers, **changes):
    """Scores that give these answers: 0 or 1 for each image."""
    rows = tuple((0.2, 0.8) if answer else (0.7, 0.3) for answer in answers)
    return make_scores(variant, 0, 6, scores=rows, **changes)


def test_the_confusion_matrix_counts_answers_by_truth():
    # Truth in rows: 0, 1, 0, 1, 0, 1.
    (own,) = answers_of_report(scores_of("none-none", (0, 1, 1, 1, 1, 0)))

    assert own.confusion == ((1, 2), (1, 2))
    assert (own.correct, own.image_count, own.labels) == (3, 6, ("dog", "cat"))
    assert (own.variant, own.runtime, own.runtime_version) == ("none-none", "ai-edge-litert", "2.3.0")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_the_confusion_matrix_holds_every_image_once(pairs):
    matrix = confusion_matrix([label for label, _ in pairs], [answer for _, answer in pairs], 4)

    assert [len(row) for row in matrix] == [4, 4, 4, 4]
    assert sum(map(sum, matrix)) == len(pairs)
    assert sum(matrix[label][label] for label in range(4)) == sum(label == answer for label, answer in pairs)


def test_the_difference_to_the_baseline_is_of_the_same_images():
    baseline, own = answers_of_report(
        scores_of("none-none", (0, 1, 0, 1, 1, 0)), scores_of("none-int8", (0, 1, 1, 0, 0, 0))
    )
    right = [True, True, True, True, False, False], [True, True, False, False, True, False]

    found = (own.difference_ratio, own.difference_low_ratio, own.difference_high_ratio)
    assert found == paired_difference(*right)
    assert own.p == mcnemar_exact(*right)
    assert own.tie is True
    assert (baseline.difference_ratio, baseline.p, baseline.tie) == (None, None, None)


def test_without_scores_of_the_baseline_there_is_no_difference():
    job = make_job("none-none", "none-int8", rounds=1)
    own = scores_of("none-int8", (0, 1, 0, 1, 0, 1))
    report = make_report(MANIFEST, job=job, blocks=(), accuracy=(own,), image_count=6)

    assert build_answers(MANIFEST, report, IMAGES)[0].difference_ratio is None


def test_flips_belong_to_the_artefact_and_the_runtime():
    flips = tuple(make_flip("none-none", i, runtime=runtime) for i, runtime in enumerate((LITERT, TFLITE, LITERT)))
    first, second = answers_of_report(
        *(scores_of("none-none", (0,) * 6, runtime=runtime) for runtime in (LITERT, TFLITE)),
        flips=(*flips, make_flip("none-int8", 4)),
    )

    assert [flip.path for flip in first.flips] == ["dog/0.jpg", "dog/2.jpg"]
    assert [(flip.path, flip.label, flip.expected, flip.received) for flip in second.flips] == [
        ("cat/1.jpg", "cat", "cat", "dog")
    ]
    assert (first.count_flips("host"), first.count_flips("baseline"), first.count_flips("host", "kernels")) == (2, 0, 0)


@pytest.mark.parametrize(("difference", "within"), [(0.0, True), (0.001, True), (0.0011, False)])
def test_goldens_may_differ_by_the_tolerance(difference, within):
    (own,) = answers_of_report(scores_of("none-none", (0,) * 6, golden_difference=difference))

    assert own.golden_within_tolerance is within


def test_labels_are_those_of_the_images_that_the_job_selects():
    images = [replace(image, label=1) for image in IMAGES]
    report = make_report(
        MANIFEST,
        job=make_job("none-none", rounds=1),
        blocks=(),
        accuracy=(scores_of("none-none", (1,) * 6),),
        image_count=6,
    )

    assert build_answers(MANIFEST, report, images)[0].correct == 6
