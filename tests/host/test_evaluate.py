from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from liteship.data import Dataset
from liteship.evaluate import HostModel, compare, golden_files, golden_tolerance, keras_scores
from liteship.images import Images, load_images
from liteship_agent.errors import ModelError
from liteship_agent.manifest import Manifest, OutputContract
from liteship_agent.preprocess import to_tensor


@pytest.mark.parametrize("variant", ["none-none", "none-int8"])
def test_scores_are_probabilities_and_golden_ones_are_some_of_them(
    variant: str, built: tuple[Path, Manifest], dataset: Dataset
) -> None:
    folder, manifest = built
    entry = next(entry for entry in manifest.entries if entry.variant == variant)
    content = (folder / f"artefacts/{variant}.tflite").read_bytes()
    model = HostModel(content, variant, entry.input, entry.output)
    pixels = load_images(dataset, entry.input, lambda amount: None).validation
    scores = model.scores(pixels)
    assert (scores.shape, scores.dtype) == ((13, 3), np.float32)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=0.02)
    np.testing.assert_array_equal(model.scores(pixels[5:6]), scores[5:6])
    shown, answered = (np.load(io.BytesIO(file)) for file in golden_files(pixels, scores))
    np.testing.assert_array_equal(shown["pixels"], pixels[[0, 3, 6, 9]])
    np.testing.assert_array_equal(answered["scores"], scores[[0, 3, 6, 9]])


def test_golden_is_the_same_every_time(built: tuple[Path, Manifest], dataset: Dataset) -> None:
    folder, manifest = built
    entry = manifest.entries[0]
    model = HostModel((folder / "artefacts/none-none.tflite").read_bytes(), "x", entry.input, entry.output)
    pixels = load_images(dataset, entry.input, lambda amount: None).validation[:2]
    scores = model.scores(pixels)
    assert golden_files(pixels, scores) == golden_files(pixels, scores)


def test_file_that_the_runtime_cannot_load_is_named(built: tuple[Path, Manifest]) -> None:
    entry = built[1].entries[0]
    with pytest.raises(ModelError, match=r"^broken: ai-edge-litert .* cannot load it"):
        HostModel(b"\x1c\0\0\0TFL3" + b"\0" * 99, "broken", entry.input, entry.output)


@pytest.mark.parametrize(
    ("quantization", "scale", "litert", "tflite"),
    [
        ("float32", None, 1e-3, 1e-3),
        ("float16 weights", None, 1e-3, 1e-3),
        ("dynamic range", None, 5e-2, 5e-2),
        ("full integer", 0.01, 0.02, 0.2),
        ("full integer", None, 2 / 256, 0.2),
        ("mixed", None, 2 / 256, 0.2),
        ("float32", 0.01, 0.02, 0.2),
    ],
)
def test_tolerance_is_by_format_and_runtime(
    quantization: str, scale: float | None, litert: float, tflite: float
) -> None:
    tolerance = golden_tolerance(quantization, OutputContract("softmax", "float32", scale, None))
    assert tolerance == {"ai-edge-litert": litert, "tflite-runtime": tflite}


def test_step_of_a_logit_moves_a_probability_by_a_quarter() -> None:
    tolerance = golden_tolerance("full integer", OutputContract("logits", "int8", 0.1, 0))
    assert tolerance == {"ai-edge-litert": pytest.approx(0.05), "tflite-runtime": 0.2}


# --- parity ---


def scores_of(labels: list[int], confidence: float = 0.8) -> np.ndarray:
    """float32, shape (images, 3), whose highest score is that of the label."""
    scores = np.full((len(labels), 3), (1 - confidence) / 2, np.float32)
    scores[np.arange(len(labels)), labels] = confidence
    return scores


def test_parity_counts_right_and_equal_answers() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    reference, found = scores_of([0, 1, 2, 1, 2, 0]), scores_of([0, 1, 1, 1, 1, 0], 0.5)
    parity = compare(found, reference, labels, 0.02)
    assert (parity.reference_correct, parity.equal_top1, parity.total) == (3, 4, 6)
    assert parity.largest_difference == pytest.approx(0.8 - 0.25)  # the label that only the reference gives
    assert (parity.max_drop, parity.passed) == (0.02, True)  # one is lost and another one gained


@pytest.mark.parametrize(
    ("lost", "max_drop", "passed"),
    [(0, 0.0, True), (1, 0.0, False), (2, 0.02, True), (3, 0.02, False), (-5, 0.0, True), (100, 1.0, True)],
)
def test_parity_is_passed_up_to_and_at_the_largest_drop(lost: int, max_drop: float, passed: bool) -> None:
    labels = np.zeros(100, np.int64)
    right = 98 if lost < 100 else 100
    reference = scores_of([0] * right + [1] * (100 - right))
    found = scores_of([0] * min(100, right - lost) + [1] * max(0, 100 - right + lost))
    assert compare(found, reference, labels, max_drop).passed is passed


def test_scores_before_conversion_are_those_of_all_validation_images(two_classes: Images) -> None:
    repeated = Images(
        two_classes.train,
        two_classes.train_labels,
        np.concatenate([two_classes.validation] * 6),
        np.concatenate([two_classes.validation_labels] * 6),
        two_classes.contract,
        2,
    )
    seen: list[np.ndarray] = []

    def predict(tensor: np.ndarray) -> np.ndarray:
        seen.append(tensor)
        return tensor[:, 0, :1, 1] * 0.25 + 0.5  # one sigmoid unit

    scores = keras_scores(predict, repeated, OutputContract("sigmoid"))
    everything = to_tensor(repeated.validation, repeated.contract)
    np.testing.assert_array_equal(np.concatenate(seen), everything)
    assert len(seen) > 1
    second = everything[:, 0, 0, 1] * 0.25 + 0.5
    np.testing.assert_allclose(scores, np.stack([1 - second, second], axis=1), atol=1e-6)


def test_logits_before_conversion_become_probabilities(two_classes: Images) -> None:
    scores = keras_scores(
        lambda tensor: np.tile([[0.0, np.log(3)]], (len(tensor), 1)), two_classes, OutputContract("logits")
    )
    np.testing.assert_allclose(scores, np.tile([[0.25, 0.75]], (12, 1)), atol=1e-6)
