"""The networks: backbone without top, global average pooling, one dense layer, as one flat graph.

Flat, because quantization-aware training refuses a model inside a model. Each architecture brings the input contract
that its ImageNet weights were trained with. `mobilenet_v2_sparse` is MobileNetV2 as XNNPACK's sparse kernels want it:
strided convolutions padded by one on every side and a pooled output that keeps four dimensions; the same weights load.
"""

from __future__ import annotations

from pathlib import Path

import tf_keras as keras

from liteship.errors import RecipeError
from liteship.recipe import ModelSettings
from liteship_agent.manifest import InputContract

HEAD_LAYER = "head"
# tf_keras gives MobileNetV2 a momentum of 0.999; with few steps an epoch its statistics then lag behind the weights.
_BATCH_NORM_MOMENTUM = 0.9


def input_contract(settings: ModelSettings) -> InputContract:
    """How images become tensors of this architecture: centre crop, area resampling, the range of its ImageNet weights.

    Source: preprocess_input of keras.applications (MobileNetV2: -1 to 1, RGB; VGG16: BGR minus ImageNet means).
    """
    height, width = settings.input_size
    if settings.architecture == "vgg16":
        return InputContract(height, width, "bgr", "crop", "area", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
    return InputContract(height, width, "rgb", "crop", "area", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


def activation(class_count: int) -> str:
    """One sigmoid unit for two classes, softmax for more."""
    return "sigmoid" if class_count == 2 else "softmax"


def build_model(settings: ModelSettings, class_count: int) -> keras.Model:
    """The untrained classifier with its backbone's weights loaded.

    Args:
        settings: Architecture, input size, width multiplier and weights.
        class_count: Two or more.

    Returns:
        Input (batch, height, width, 3) float32, output (batch, 1) for two classes, else (batch, class_count).

    Raises:
        RecipeError: the weights cannot be loaded into this architecture.
    """
    backbone = _backbone(settings)
    is_sparse = settings.architecture == "mobilenet_v2_sparse"
    if is_sparse:
        backbone = _pad_symmetrically(backbone)
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=is_sparse, name="pool")(backbone.output)
    if is_sparse:
        pooled = keras.layers.Flatten(name="flatten")(pooled)
    units = 1 if class_count == 2 else class_count
    output = keras.layers.Dense(units, activation=activation(class_count), name=HEAD_LAYER)(pooled)
    model = keras.Model(backbone.input, output, name=settings.architecture)
    for layer in batch_norm_layers(model):
        layer.momentum = _BATCH_NORM_MOMENTUM
    return model


def gives_logits(model: keras.Model) -> bool:
    """Whether the last layer gives logits and not probabilities; also inside a pruning or quantizing wrapper."""
    layer = model.outputs[0]._keras_history.layer
    while True:
        inner = getattr(layer, "layer", layer)
        if isinstance(inner, keras.layers.Softmax):
            return False
        if hasattr(inner, "activation"):
            # In a quantizing wrapper the function stands inside another object.
            function = getattr(inner.activation, "activation", inner.activation)
            return function in (None, keras.activations.linear)
        sources = layer.inbound_nodes[0].inbound_layers if layer.inbound_nodes else []
        if isinstance(sources, list):
            return True  # nothing but layers without an activation
        layer = sources


def _pad_symmetrically(model: keras.Model) -> keras.Model:
    """The same network and weights, but every strided convolution is padded by an own layer, by 1 on every side."""
    tensors = {model.input.name: keras.Input(model.input_shape[1:])}
    for layer in model.layers[1:]:
        sources = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [tensors[source.name] for source in sources]
        settings = layer.get_config()
        if isinstance(layer, keras.layers.ZeroPadding2D):
            settings["padding"] = ((1, 1), (1, 1))
        elif getattr(layer, "strides", None) == (2, 2):
            if settings["padding"] == "same":
                inputs = [keras.layers.ZeroPadding2D(1, name=f"{layer.name}_pad")(*inputs)]
            settings["padding"] = "valid"
        tensors[layer.output.name] = layer.__class__.from_config(settings)(*inputs if len(inputs) == 1 else [inputs])
    rebuilt = keras.Model(tensors[model.input.name], tensors[model.output.name], name=model.name)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def batch_norm_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Batch-normalization layers, also those inside a pruning wrapper."""
    layers = [getattr(layer, "layer", layer) for layer in model.layers]
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def _backbone(settings: ModelSettings) -> keras.Model:
    shape = (*settings.input_size, 3)
    source = settings.weights
    keras_weights = "imagenet" if source == "imagenet" else None
    # Keras reports a failed download as a plain Exception.
    expected = Exception if source == "imagenet" else (ValueError, OSError)
    try:
        if settings.architecture == "vgg16":
            backbone = keras.applications.VGG16(include_top=False, weights=keras_weights, input_shape=shape)
        else:
            backbone = keras.applications.MobileNetV2(
                include_top=False, weights=keras_weights, input_shape=shape, alpha=settings.alpha
            )
        if source not in ("none", "imagenet"):
            _load_weights(backbone, Path(source))
    except RecipeError:
        raise
    except expected as exc:
        reason = " ".join(str(exc).split())[:200]
        raise RecipeError(
            f"model.weights: weights of {settings.architecture} without top are required. Received: {source}: {reason}",
            'Give a path with --weights, or weights = "none".',
        ) from exc
    return backbone


def _load_weights(backbone: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise RecipeError(f"model.weights: an existing file is required. Received: {path}")
    backbone.load_weights(str(path))
