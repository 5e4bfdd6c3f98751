"""From a Keras model to .tflite bytes: one SavedModel of a plain tf.Module, then one conversion per quantization.

Exporting once is what makes it quick; `from_keras_model` exports anew for every variant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from liteship.errors import ConversionError
from liteship.flatbuffer import inspect
from liteship.operators import missing_operators
from liteship.recipe import ConvertSettings


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


def convert(
    saved_model: Path,
    quantization: str,
    calibration: Sequence[np.ndarray],
    settings: ConvertSettings,
    *,
    store_sparse: bool = False,
) -> bytes:
    """Convert a SavedModel.

    Args:
        saved_model: As `export` wrote it.
        quantization: "none", "dynamic" (int8 weights), "float16" (weights), "int8" (weights, activations, input and
            output), or "qat" and "pqat" (int8 by the ranges that were trained).
        calibration: float32 input tensors, shape (1, height, width, channels); read for int8 only.
        settings: Choices of the recipe.
        store_sparse: Store weights that are mostly zero in the sparse format; for float only.

    Returns:
        The content of a .tflite file.

    Raises:
        ConversionError: the converter refuses the model, int8 has no calibration (it would take any range), or the
            runtime of the settings cannot load what comes out.
    """
    if quantization == "int8" and not len(calibration):
        raise ConversionError(
            "int8: calibration images are required. Received: none.",
            "Training images that are validation images too do not count.",
        )
    converter = _converter(saved_model, quantization, calibration, settings)
    if store_sparse:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    content = _run(converter, quantization)
    if settings.runtime is None or not _lacking(content, quantization, settings.runtime):
        return content
    if quantization == "dynamic":
        # The older quantizer writes operator versions that runtimes of 2023 know.
        converter = _converter(saved_model, quantization, calibration, settings)
        converter.experimental_new_dynamic_range_quantizer = False
        content = _run(converter, quantization)
    lacking = _lacking(content, quantization, settings.runtime)
    if lacking:
        raise ConversionError(
            f"{quantization}: operators that {settings.runtime} has are required. Received: {'; '.join(lacking)}."
        )
    return content


def _converter(
    saved_model: Path, quantization: str, calibration: Sequence[np.ndarray], settings: ConvertSettings
) -> Any:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
        if settings.float16_accumulation:
            converter.target_spec._experimental_supported_accumulation_type = tf.float16
    if quantization in ("int8", "qat", "pqat"):
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(settings.integer_input)
    if quantization == "int8":

        def representative() -> Iterator[list[np.ndarray]]:
            for tensor in calibration:
                yield [tensor]

        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter


def _run(converter: Any, quantization: str) -> bytes:
    try:
        return bytes(converter.convert())
    except Exception as exc:  # the converter raises its own, MLIR's and plain errors
        reason = " ".join(str(exc).split())[:300]
        raise ConversionError(f"{quantization}: a convertible model is required. Received: {reason}") from exc


def _lacking(content: bytes, name: str, runtime: str) -> list[str]:
    return missing_operators(inspect(content, name).operators, runtime)
