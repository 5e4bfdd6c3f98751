"""From a Keras model to .tflite bytes: one SavedModel of a plain tf.Module, then one conversion per quantization.

Exporting once is what makes it quick; `from_keras_model` exports anew for every variant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from liteship.errors import ConversionError


def export(model: keras.Model, folder: Path) -> None:
    """Save the model as a SavedModel with one function of batch size 1.

    Args:
        model: One input (batch, height, width, channels), one output.
        folder: Made or replaced.
    """
    shape = (1, *model.input_shape[1:])
    module = tf.Module()
    # Only the variables: a Keras model held here would be saved with a function for each of its layers.
    module.weights = model.variables
    module.serve = tf.function(
        lambda image: model(image, training=False), input_signature=[tf.TensorSpec(shape, tf.float32, "image")]
    )
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def convert(saved_model: Path, quantization: str, calibration: Sequence[np.ndarray]) -> bytes:
    """Convert a SavedModel.

    Args:
        saved_model: As `export` wrote it.
        quantization: "none", "dynamic" (int8 weights), "float16" (weights) or "int8" (weights, activations, input and
            output).
        calibration: float32 input tensors, shape (1, height, width, channels); read for int8 only.

    Returns:
        The content of a .tflite file.

    Raises:
        ConversionError: the converter refuses the model, or int8 has no calibration (it would take any range).
    """
    if quantization == "int8" and not len(calibration):
        raise ConversionError(
            "int8: calibration images are required. Received: none.",
            "Training images that are validation images too do not count.",
        )
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int8":

        def representative() -> Iterator[list[np.ndarray]]:
            for tensor in calibration:
                yield [tensor]

        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    try:
        return bytes(converter.convert())
    except Exception as exc:  # the converter raises its own, MLIR's and plain errors
        reason = " ".join(str(exc).split())[:300]
        raise ConversionError(f"{quantization}: a convertible model is required. Received: {reason}") from exc
