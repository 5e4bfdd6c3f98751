from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from deploy_samples import make_deployment
from report_samples import LITERT, make_case, make_entry, make_job, make_manifest, make_report, make_scores, sha

from liteship.data import Dataset, ImageFile
from liteship.errors import DataError, LinkError
from liteship.flips import ask_target, explain_flips, find_flips, find_other_pixels
from liteship.images import write_validation_archive
from liteship.predictions import Predictions
from liteship_agent.accuracy import pixel_hash
from liteship_agent.images import selected_images
from liteship_agent.manifest import InputContract, Manifest
from liteship_agent.preprocess import resize
from liteship_agent.report import Flip, Report, Scores

TFLITE = "tflite-runtime-2.14.0-cp311-aarch64-0123456789ab"
CONTRACT = InputContract(8, 8, "rgb", "stretch", "linear", (0.0,) * 3, (1.0,) * 3)
IMAGES = 6
FLOAT, INT8 = sha("none-none"), sha("none-int8")
DOG, CAT = 0, 1
ROWS = {DOG: (0.9, 0.1), CAT: (0.1, 0.9)}
LABELS = [index % 2 for index in range(IMAGES)]
PATHS = [f"{'cat' if label else 'dog'}/{index}.png" for index, label in enumerate(LABELS)]


def photograph(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (9, 10, 3), np.uint8)


def host_pixels(index: int) -> np.ndarray:
    return resize(photograph(index), CONTRACT)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Float and int8 on six images, whose archive is in `tmp_path`."""
    files = []
    for index, (path, label) in enumerate(zip(PATHS, LABELS)):
        files.append(ImageFile(tmp_path / f"{index}.png", label, path))
        files[-1].path.write_bytes(cv2.imencode(".png", photograph(index))[1].tobytes())
    dataset = Dataset(("dog", "cat"), (), tuple(files), "sample")
    validation = write_validation_archive(dataset, tmp_path / "validation.tar")
    entries = (make_entry("none-none", input=CONTRACT), make_entry("none-int8", input=CONTRACT))
    return make_manifest(entries=entries, failures=(), validation=validation)


@pytest.fixture
def predictions() -> dict[str, Predictions]:
    """The host is right about every image."""
    hashes = tuple(pixel_hash(host_pixels(index)) for index in range(IMAGES))
    right = np.array([ROWS[label] for label in LABELS], np.float32)
    return {sha256: Predictions(right.copy(), hashes) for sha256 in (FLOAT, INT8)}


def scores_of(
    variant: str,
    *wrong: int,
    other_pixels: tuple[int, ...] = (),
    images: tuple[int, ...] = tuple(range(IMAGES)),
    **more: Any,
) -> Scores:
    """A target that is wrong about some images, and sees other pixels than the host in some."""
    rows = tuple(ROWS[1 - LABELS[index] if index in wrong else LABELS[index]] for index in images)
    hashes = tuple("f" * 16 if i in other_pixels else pixel_hash(host_pixels(i)) for i in images)
    return make_scores(variant, 0, len(images), **{"scores": rows, "pixel_hashes": hashes, **more})


def report_of(manifest: Manifest, *accuracy: Scores, limit: int | None = None) -> Report:
    cases = [make_case(name, runtime=runtime) for name in ("none-none", "none-int8") for runtime in (LITERT, TFLITE)]
    job = make_job(*cases, limit=limit, runtimes={LITERT: "ai-edge-litert==2.3.0", TFLITE: "tflite-runtime==2.14.0"})
    count = len(selected_images(manifest, limit))
    return make_report(manifest, job=job, blocks=(), summaries=(), refused=(), accuracy=accuracy, image_count=count)


class Target:
    """Answers what a target would to the host's pixels.

    Args:
        answers: By image, where they are not the truth.
        lost_at: How many questions it answers before the link is lost.
    """

    def __init__(self, answers: Mapping[int, int] | None = None, lost_at: int | None = None) -> None:
        self.answers, self.lost_at = answers or {}, lost_at
        self.asked: list[tuple[str, str, list[int]]] = []

    def __call__(self, scores: Scores, pixels: Mapping[int, str]) -> Mapping[int, dict[str, Any]]:
        if len(self.asked) == self.lost_at:
            raise LinkError("pi: an answer is required. Received: connection closed.")
        self.asked.append((scores.artefact, scores.runtime, sorted(pixels)))
        for index, text in pixels.items():
            np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), np.uint8), host_pixels(index).ravel())
        return {
            index: {
                "index": index,
                "scores": ROWS[self.answers.get(index, LABELS[index])],
                "largest_pixel_difference": 1 + index,
            }
            for index in pixels
        }


def explained(
    manifest: Manifest, predictions: Mapping[str, Predictions], study: Path, target: Target, *accuracy: Scores
) -> tuple[list[Flip], Any]:
    """The flips against the host with their causes, and the whole explanation."""
    report = report_of(manifest, *accuracy)
    report = replace(report, flips=find_flips(manifest, report, predictions))
    found = explain_flips(manifest, report, predictions, study, target)
    assert [replace(f, cause=None, largest_pixel_difference=None) for f in found.flips] == list(report.flips)
    return [flip for flip in found.flips if flip.against == "host"], found


# --- which images ---


def test_equal_answers_are_no_flips(manifest: Manifest, predictions: dict[str, Predictions]) -> None:
    report = report_of(manifest, scores_of("none-none"), scores_of("none-int8", other_pixels=(1,)))
    assert find_flips(manifest, report, predictions) == ()


def test_flip_names_image_truth_and_both_answers(manifest: Manifest, predictions: dict[str, Predictions]) -> None:
    report = report_of(manifest, scores_of("none-none"), scores_of("none-int8", 3))
    against_host = Flip(INT8, LITERT, "cat/3.png", "host", CAT, CAT, DOG)
    assert find_flips(manifest, report, predictions) == (against_host, replace(against_host, against="baseline"))


def test_answer_that_host_and_target_share_is_a_flip_against_the_baseline_only(
    manifest: Manifest, predictions: dict[str, Predictions]
) -> None:
    predictions[INT8].scores[2] = ROWS[CAT]
    report = report_of(manifest, scores_of("none-none"), scores_of("none-int8", 2))
    assert find_flips(manifest, report, predictions) == (Flip(INT8, LITERT, "dog/2.png", "baseline", DOG, DOG, CAT),)


def test_baseline_is_that_of_the_same_runtime(manifest: Manifest, predictions: dict[str, Predictions]) -> None:
    baselines = scores_of("none-none"), scores_of("none-none", 1, runtime=TFLITE)
    report = report_of(manifest, *baselines, scores_of("none-int8", 1, runtime=TFLITE))
    flips = find_flips(manifest, report, predictions)
    assert [(flip.artefact, flip.runtime, flip.against) for flip in flips] == [
        (FLOAT, TFLITE, "host"),
        (INT8, TFLITE, "host"),
    ]


def test_baseline_that_did_not_run_in_that_runtime_is_taken_from_its_first(
    manifest: Manifest, predictions: dict[str, Predictions]
) -> None:
    report = report_of(manifest, scores_of("none-none"), scores_of("none-int8", 5, runtime=TFLITE))
    flips = find_flips(manifest, report, predictions)
    assert [(flip.against, flip.path) for flip in flips] == [("host", "cat/5.png"), ("baseline", "cat/5.png")]


def test_limited_job_is_compared_with_the_same_images_of_the_host(
    manifest: Manifest, predictions: dict[str, Predictions]
) -> None:
    scores = scores_of("none-int8", 4, images=(0, 2, 4), other_pixels=(2,))
    report = report_of(manifest, scores, limit=3)
    assert [flip.path for flip in find_flips(manifest, report, predictions)] == ["dog/4.png"]
    assert find_other_pixels(manifest, report, predictions) == {1}


def test_images_with_other_pixels_are_counted_once(manifest: Manifest, predictions: dict[str, Predictions]) -> None:
    report = report_of(
        manifest, scores_of("none-none", other_pixels=(1, 2)), scores_of("none-int8", other_pixels=(2, 4))
    )
    assert find_other_pixels(manifest, report, predictions) == {1, 2, 4}


# --- why ---


def test_flip_with_the_very_pixels_of_the_host_is_of_the_kernels_and_nothing_is_asked(
    manifest: Manifest, predictions: dict[str, Predictions], tmp_path: Path
) -> None:
    target = Target()
    (flip,), found = explained(manifest, predictions, tmp_path, target, scores_of("none-int8", 3))
    assert (flip.cause, flip.largest_pixel_difference) == ("kernels", 0)
    assert (target.asked, found.largest_difference, found.interruption) == ([], 0, None)


@pytest.mark.parametrize(("answer", "cause"), [(CAT, "pixels"), (DOG, "kernels")])
def test_answer_to_the_pixels_of_the_host_tells_the_cause(
    answer: int, cause: str, manifest: Manifest, predictions: dict[str, Predictions], tmp_path: Path
) -> None:
    target = Target({3: answer})
    (flip,), found = explained(manifest, predictions, tmp_path, target, scores_of("none-int8", 3, other_pixels=(3,)))
    assert (flip.path, flip.cause, flip.largest_pixel_difference) == ("cat/3.png", cause, 4)
    assert (target.asked, found.largest_difference) == ([(INT8, LITERT, [3])], 4)


def test_flip_against_the_baseline_has_no_cause(
    manifest: Manifest, predictions: dict[str, Predictions], tmp_path: Path
) -> None:
    accuracy = scores_of("none-none"), scores_of("none-int8", 3)
    _, found = explained(manifest, predictions, tmp_path, Target(), *accuracy)
    assert [(flip.against, flip.cause) for flip in found.flips] == [("host", "kernels"), ("baseline", None)]


def test_images_that_look_otherwise_are_compared_once_a_runtime(
    manifest: Manifest, predictions: dict[str, Predictions], tmp_path: Path
) -> None:
    target = Target()
    accuracy = [
        scores_of(name, other_pixels=(2, 4), runtime=runtime)
        for name in ("none-none", "none-int8")
        for runtime in (LITERT, TFLITE)
    ]
    _, found = explained(manifest, predictions, tmp_path, target, *accuracy)
    assert target.asked == [(FLOAT, LITERT, [2, 4]), (FLOAT, TFLITE, [2, 4])]
    assert found.largest_difference == 5


def test_no_more_than_64_flips_and_16_other_images_are_asked_for(tmp_path: Path) -> None:
    count = 200
    files = [ImageFile(tmp_path / "one.png", DOG, f"dog/{index}.png") for index in range(count)]
    (tmp_path / "one.png").write_bytes(cv2.imencode(".png", photograph(0))[1].tobytes())
    validation = write_validation_archive(Dataset(("dog", "cat"), (), tuple(files), ""), tmp_path / "validation.tar")
    manifest = make_manifest(entries=(make_entry("none-none", input=CONTRACT),), failures=(), validation=validation)
    hashes = (pixel_hash(host_pixels(0)),) * count
    predictions = {FLOAT: Predictions(np.array([ROWS[DOG]] * count), hashes)}
    rows = tuple(ROWS[CAT if index < 100 else DOG] for index in range(count))
    scores = make_scores("none-none", 0, count, scores=rows, pixel_hashes=("f" * 16,) * count)
    report = report_of(manifest, scores)
    report = replace(report, flips=find_flips(manifest, report, predictions))
    asked: list[int] = []

    def ask(scores: Scores, pixels: Mapping[int, str]) -> Mapping[int, dict[str, Any]]:
        asked.extend(pixels)
        return {index: {"scores": ROWS[DOG], "largest_pixel_difference": 1} for index in pixels}

    found = explain_flips(manifest, report, predictions, tmp_path, ask)
    assert asked == [*range(64), *range(100, 116)]
    assert [flip.cause for flip in found.flips] == ["pixels"] * 64 + [None] * 36


def test_lost_link_keeps_what_was_found(
    manifest: Manifest, predictions: dict[str, Predictions], tmp_path: Path
) -> None:
    accuracy = scores_of("none-none", 1, other_pixels=(1,)), scores_of("none-int8", 0, 3, other_pixels=(0,))
    flips, found = explained(manifest, predictions, tmp_path, Target(lost_at=1), *accuracy)
    assert [(flip.path, flip.cause) for flip in flips] == [
        ("cat/1.png", "pixels"),
        ("dog/0.png", None),
        ("cat/3.png", "kernels"),
    ]
    assert found.interruption == "pi: an answer is required. Received: connection closed."
    assert found.largest_difference == 2


def test_lost_link_before_any_answer_leaves_the_difference_unknown(
    manifest: Manifest, predictions: dict[str, Predictions], tmp_path: Path
) -> None:
    accuracy = scores_of("none-none", other_pixels=(1,))
    _, found = explained(manifest, predictions, tmp_path, Target(lost_at=0), accuracy)
    assert found.largest_difference is None


def test_image_that_the_host_resizes_otherwise_today_is_not_asked_for(
    manifest: Manifest, predictions: dict[str, Predictions], tmp_path: Path
) -> None:
    hashes = list(predictions[INT8].pixel_hashes)
    hashes[3] = "0" * 16
    predictions[INT8] = replace(predictions[INT8], pixel_hashes=tuple(hashes))
    target = Target()
    (flip,), _ = explained(manifest, predictions, tmp_path, target, scores_of("none-int8", 3))
    assert (flip.cause, target.asked) == (None, [])


def test_study_without_its_images_is_named(
    manifest: Manifest, predictions: dict[str, Predictions], tmp_path: Path
) -> None:
    (tmp_path / "validation.tar").unlink()
    with pytest.raises(DataError, match=r"validation\.tar: a readable file is required"):
        explained(manifest, predictions, tmp_path, Target(), scores_of("none-int8", 3, other_pixels=(3,)))


def test_target_is_asked_in_the_runtime_and_with_the_threads_of_the_scores(manifest: Manifest) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def call(command: str, source: list[bytes], *, idle_seconds: float) -> dict[str, Any]:
        calls.append((command, json.loads(b"".join(source))))
        return {"results": [{"index": 2, "scores": [0.9, 0.1], "largest_pixel_difference": 1}]}

    connection: Any = SimpleNamespace(call=call, python="python3")
    job = make_job(make_case("none-none"), make_case("none-int8", threads=4), make_case("none-int8"), limit=3)
    report = make_report(manifest, job=job, blocks=(), summaries=())
    deployment = make_deployment(manifest, release="0123456789ab")
    answer = ask_target(connection, deployment, report)(scores_of("none-int8"), {2: "AAAA"})
    assert answer == {2: {"index": 2, "scores": [0.9, 0.1], "largest_pixel_difference": 1}}
    folder = "/home/pi/liteship"
    assert calls == [
        (
            f"python3 -I -S -B {folder}/releases/0123456789ab/liteship_agent.zip "
            f"--runtime {folder}/runtimes/{LITERT} explain",
            {
                "folder": folder,
                "release_id": "0123456789ab",
                "artefact": INT8,
                "runtime": LITERT,
                "threads": 4,
                "limit": 3,
                "images": [{"index": 2, "pixels": "AAAA"}],
            },
        )
    ]
