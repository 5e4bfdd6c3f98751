"""Accuracy, parity and golden outputs of an artefact on the host, through the agent's own runtime and processing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import numpy as np

from liteship.images import Images
from liteship_agent.errors import ModelError
from liteship_agent.manifest import InputContract, OutputContract, Parity
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import to_tensor
from liteship_agent.runtime import Model

_GOLDEN_COUNT = 4


class HostModel:
    """One artefact in the host's runtime.

    Args:
        content: The bytes of the .tflite file.
        name: For messages.
        input_contract, output_contract: How images go in and scores come out.

    Raises:
        ModelError: the runtime cannot load it.
    """

    def __init__(
        self, content: bytes, name: str, input_contract: InputContract, output_contract: OutputContract
    ) -> None:
        self.model = Model(content, os.cpu_count() or 1, name)
        self.input, self.output = input_contract, output_contract

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities per image.

        Args:
            pixels: uint8, shape (images, height, width, 3).

        Returns:
            float32, shape (images, labels).

        Raises:
            ModelError: a score is NaN or infinite.
        """
        rows = [
            to_scores(self.model.run(to_tensor(pixels[index : index + 1], self.input)), self.output)
            for index in range(len(pixels))
        ]
        scores = np.concatenate(rows)
        if not np.isfinite(scores).all():
            raise ModelError(f"{self.model.name}: finite scores are required. Received: NaN or infinity")
        return scores


def golden_files(pixels: np.ndarray, scores: np.ndarray) -> tuple[bytes, bytes]:
    """Two npz files, see `liteship_agent.manifest.Golden`, of a few images spread over all of them.

    Args:
        pixels: uint8, shape (images, height, width, 3).
        scores: What they gave here, float32, shape (images, labels).

    Returns:
        The file with `pixels` and the one with `scores`.
    """
    count = min(_GOLDEN_COUNT, len(pixels))
    chosen = [index * len(pixels) // count for index in range(count)]
    return _npz(pixels=pixels[chosen]), _npz(scores=scores[chosen])


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def keras_scores(predict: Callable[[np.ndarray], np.ndarray], images: Images, output: OutputContract) -> np.ndarray:
    """Probabilities of the validation images by the model before its conversion.

    Args:
        predict: float32 tensors (images, height, width, 3) to raw outputs (images, units).
        images: Whose validation half is run.
        output: How to read the outputs.

    Returns:
        float32, shape (images, labels).
    """
    parts = []
    for start in range(0, len(images.validation), 64):
        tensor = to_tensor(images.validation[start : start + 64], images.contract)
        parts.append(to_scores(np.asarray(predict(tensor)), output))
    return np.concatenate(parts)


def compare(scores: np.ndarray, reference: np.ndarray, labels: np.ndarray, max_drop: float) -> Parity:
    """An artefact's scores against those of the model it was converted from.

    Args:
        scores: float32, shape (images, labels).
        reference: The same of that model.
        labels: int64, shape (images,).
        max_drop: Largest accepted loss of accuracy, 0 to 1.
    """
    found, wanted = scores.argmax(axis=1), reference.argmax(axis=1)
    correct, reference_correct = int((found == labels).sum()), int((wanted == labels).sum())
    return Parity(
        reference_correct=reference_correct,
        equal_top1=int((found == wanted).sum()),
        total=len(labels),
        largest_difference=float(np.abs(scores - reference).max()),
        max_drop=max_drop,
        passed=(reference_correct - correct) / len(labels) <= max_drop,
    )


def golden_tolerance(quantization: str, output: OutputContract) -> dict[str, float]:
    """Largest allowed difference of a score by runtime, between the host and any board (measured, x86 and ARM).

    Args:
        quantization: As found in the file, see `flatbuffer.Inspection`.
        output: Two steps of an integer output are allowed; a step of a logit moves a probability by a quarter at most.
    """
    if output.scale is not None or quantization in ("full integer", "mixed"):
        step = output.scale or 1 / 256
        step = step / 4 if output.activation == "logits" else step
        return {"ai-edge-litert": 2 * step, "tflite-runtime": 0.2}
    tolerance = 5e-2 if quantization == "dynamic range" else 1e-3
    return {"ai-edge-litert": tolerance, "tflite-runtime": tolerance}
