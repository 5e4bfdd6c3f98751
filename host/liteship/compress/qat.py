"""Quantization-aware training: train on while weights and activations are rounded to int8 as in the file.

With `preserve_zeros` the zeros of a pruned model stay zero (PQAT). Quantization after training needs none of this; it
is here for models that lose too much by it.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.api.experimental.combine import Default8BitPrunePreserveQuantizeScheme

from liteship.errors import ConversionError
from liteship.images import Images
from liteship.progress import Reporter
from liteship.train import Fit, fit, freeze_batch_norm


def train_quantized(
    model: keras.Model,
    images: Images,
    preserve_zeros: bool,
    freeze_statistics: bool,
    plan: Fit,
    folder: Path,
    say: Reporter,
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Quantize a trained model and train it on.

    Args:
        model: One flat graph of layers that tfmot can quantize; not changed.
        images: Both splits.
        preserve_zeros: Keep zero weights zero.
        freeze_statistics: Keep batch normalization as it is.
        plan: Epochs, batch size and learning rate.
        folder: For the state of an unfinished run.
        say: Progress.

    Returns:
        A model whose conversion needs no calibration, and the history.

    Raises:
        ConversionError: a nested model, or a layer that cannot be quantized; names it.

    Source: Jacob et al. 2018, as implemented by tfmot's default 8-bit schemes.
    """
    quantized = quantize(model, preserve_zeros)
    for layer in quantized.layers:
        layer.trainable = True
    freeze_batch_norm(quantized, freeze_statistics)
    history = fit(quantized, images, plan, folder, say)
    return quantized, history


def quantize(model: keras.Model, preserve_zeros: bool) -> keras.Model:
    """A copy of the model that rounds as an int8 file does.

    Raises:
        ConversionError: a nested model, or a layer that cannot be quantized; names it.
    """
    nested = next((layer.name for layer in model.layers if isinstance(layer, keras.Model)), None)
    if nested is not None:
        raise ConversionError(
            f"qat: one flat graph is required. Received: a model inside the model, {nested}.",
            "Build the network from the inner model's own input and output.",
        )
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    try:
        annotated = tfmot.quantization.keras.quantize_annotate_model(copy)
        if preserve_zeros:
            return tfmot.quantization.keras.quantize_apply(annotated, Default8BitPrunePreserveQuantizeScheme())
        return tfmot.quantization.keras.quantize_apply(annotated)
    except (RuntimeError, ValueError) as exc:
        reason = " ".join(str(exc).split())[:300]
        raise ConversionError(f"qat: layers that can be quantized are required. Received: {reason}") from exc


def load(path: Path) -> keras.Model:
    """A model that `train_quantized` returned and that was saved as .h5."""
    with tfmot.quantization.keras.quantize_scope():
        return keras.models.load_model(path, compile=False)
