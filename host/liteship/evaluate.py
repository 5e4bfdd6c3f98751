"""Accuracy and golden outputs of an artefact on the host, through the agent's own runtime and processing modules."""

from __future__ import annotations

import io
import os

import numpy as np

from liteship_agent.errors import ModelError
from liteship_agent.manifest import InputContract, OutputContract
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

    def golden(self, pixels: np.ndarray, scores: np.ndarray) -> bytes:
        """An npz file with a few input tensors, spread over the images, and the scores they gave here."""
        count = min(_GOLDEN_COUNT, len(pixels))
        chosen = [index * len(pixels) // count for index in range(count)]
        buffer = io.BytesIO()
        np.savez_compressed(buffer, inputs=to_tensor(pixels[chosen], self.input), scores=scores[chosen])
        return buffer.getvalue()


def golden_tolerance(quantization: str, output: OutputContract) -> dict[str, float]:
    """Largest allowed difference of a score by runtime, between the host and any board (measured, x86 and ARM)."""
    if quantization == "int8":
        return {"ai-edge-litert": 2 * (output.scale or 1 / 256), "tflite-runtime": 0.2}
    tolerance = 5e-2 if quantization == "dynamic" else 1e-3
    return {"ai-edge-litert": tolerance, "tflite-runtime": tolerance}
