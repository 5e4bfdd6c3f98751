"""Quantization-aware training: train on while weights and activations are rounded to int8 as in the file.

With `preserve_zeros` the zeros of a pruned model stay zero (PQAT). Quantization after training needs none of this; it
is here for models that lose too much by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.api.experimental.combine import Default8BitPrunePreserveQuantizeScheme
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantize_configs import (
    Default8BitOutputQuantizeConfig,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer

from liteship.errors import ConversionError
from liteship.images import Images
from liteship.progress import Reporter
from liteship.train import Fit, fit, freeze_batch_norm
from liteship_agent.preprocess import to_tensor

_RANGE_IMAGES, _RANGE_BATCH = 256, 32


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
    _set_ranges(quantized, model, images)
    for layer in quantized.layers:
        layer.trainable = True
    freeze_batch_norm(quantized, freeze_statistics)
    history = fit(quantized, images, plan, folder, say)
    freeze_batch_norm(quantized, False)  # tfmot's wrappers list the weights of a frozen layer twice: .h5 cannot hold it
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

    def annotate(layer: keras.layers.Layer) -> keras.layers.Layer:
        copy = layer.__class__.from_config(layer.get_config())
        if isinstance(layer, keras.layers.InputLayer):
            return copy
        config = Default8BitOutputQuantizeConfig() if isinstance(layer, keras.layers.Rescaling) else None
        return tfmot.quantization.keras.quantize_annotate_layer(copy, config)

    annotated = keras.models.clone_model(model, clone_function=annotate)
    annotated.set_weights(model.get_weights())
    schemes = [Default8BitPrunePreserveQuantizeScheme()] if preserve_zeros else []
    try:
        with tfmot.quantization.keras.quantize_scope():
            return tfmot.quantization.keras.quantize_apply(annotated, *schemes)
    except (RuntimeError, ValueError) as exc:
        reason = " ".join(str(exc).split())[:300]
        raise ConversionError(f"qat: layers that can be quantized are required. Received: {reason}") from exc


def _set_ranges(quantized: keras.Model, model: keras.Model, images: Images) -> None:
    """Begin with the ranges that activations have on training images.

    Training moves them by a thousandth a step from -6 to 6, where most of a linear bottleneck would be cut off.
    """
    wanted: list[tuple[Any, Any]] = []  # a tensor of the model, and the range that it decides
    for layer in quantized.layers:
        if isinstance(layer, QuantizeLayer):
            wanted.append((model.input, layer.quantizer_vars))
        inner = getattr(layer, "layer", None)
        if inner is None or inner.name not in {source.name for source in model.layers}:
            continue  # a layer of tfmot's own
        source = model.get_layer(inner.name)
        if getattr(layer, "_output_quantizers", None):
            wanted.append((source.output, layer._output_quantizer_vars))
        for activation in getattr(layer, "_quantize_activations", ()):
            if activation._should_pre_quantize():
                wanted.append((_before_activation(source), activation._pre_activation_vars))
            elif activation._should_post_quantize():
                wanted.append((source.output, activation._post_activation_vars))
    probe = keras.Model(model.input, [tensor for tensor, _ in wanted])
    ends = []
    count = min(len(images.train), _RANGE_IMAGES)
    spread = [index * len(images.train) // count for index in range(count)]
    for start in range(0, count, _RANGE_BATCH):
        chosen = spread[start : start + _RANGE_BATCH]
        outputs = probe(to_tensor(images.train[chosen], images.contract), training=False)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        ends.append([(float(output.numpy().min()), float(output.numpy().max())) for output in outputs])
    for (_, variables), (least, most) in zip(wanted, np.mean(ends, axis=0), strict=True):
        variables["min_var"].assign(min(least, 0.0))
        variables["max_var"].assign(max(most, 0.0))


def _before_activation(layer: keras.layers.Layer) -> Any:
    """What a layer would give without its own activation."""
    linear = layer.__class__.from_config({**layer.get_config(), "activation": "linear", "name": f"{layer.name}_linear"})
    tensor = linear(layer.input)
    linear.set_weights(layer.get_weights())
    return tensor


def load(path: Path) -> keras.Model:
    """A model that `train_quantized` returned and that was saved as .h5."""
    with tfmot.quantization.keras.quantize_scope():
        return keras.models.load_model(path, compile=False)
