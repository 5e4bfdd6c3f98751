"""A model that the user brings: a Keras file of either Keras, a SavedModel folder, or a .tflite file.

`open_model` finds out which by content, loads it, checks that it is an image classifier, and where it can makes a flat
tf_keras model of it, with which everything is possible. What stays something else is converted (`saved_model`) or, a
.tflite file, taken as it is; `predictor` runs any of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras as keras

from liteship import convert, flatbuffer
from liteship.errors import ConversionError, RecipeError
from liteship.own import files, keras3, rebuild
from liteship.own.files import KINDS_HINT
from liteship.own.keras3 import LayerPath
from liteship_agent.errors import ModelError
from liteship_agent.runtime import Model

Size = tuple[int, int]
Predictor = Callable[[np.ndarray], np.ndarray]

_REBUILD_TOLERANCE = 1e-5
_BATCH = 32


@dataclass(frozen=True)
class OwnModel:
    """An opened model.

    Args:
        kind: What was given.
        path: Where it is.
        input_shape: Height and width in pixels; three channels are the last axis.
        units: Of the output.
        keras: The flat tf_keras model, with which everything is possible, else None.
        cannot_compress: Why pruning, filters and QAT are refused, one line; empty where `keras` is there.
        parameters: Weights, trainable or not; None for a .tflite file.
        activation: "softmax", "sigmoid" or "logits", None where the file does not tell.
        scales_raw_pixels: Whether its first layer takes pixels of 0 to 255.
        tensor: The input of a .tflite file.
        exported: SavedModel of batch size 1 where there is no tf_keras model to export.
    """

    kind: Literal["tf_keras", "keras3", "saved_model", "tflite"]
    path: Path
    input_shape: Size
    units: int
    keras: keras.Model | None = None
    cannot_compress: str = ""
    parameters: int | None = None
    activation: str | None = None
    scales_raw_pixels: bool = False
    tensor: flatbuffer.Tensor | None = None
    exported: Path | None = None


def open_model(path: Path, work: Path, size: Size | None = None) -> OwnModel:
    """Load a model and check that it takes one image and gives one row of numbers.

    Args:
        path: File or folder.
        work: Folder for exported models; they stay in use.
        size: Height and width, for a model that leaves them open.

    Raises:
        RecipeError: no such file, or a size is missing or not that of the model.
        ConversionError: not a model, damaged, with layers that are not Keras' own, or not an image classifier.
    """
    if not path.exists():
        raise RecipeError(f"model.path: an existing file or folder is required. Received: {path}", KINDS_HINT)
    if path.is_dir():
        return _open_saved_model(path, work, size)
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as exc:
        raise RecipeError(f"model.path: a readable file is required. Received: {path}: {exc.strerror}") from exc
    if start[4:] == b"TFL3":
        return _open_tflite(path, size)
    version, serialized = files.read_header(path, start)
    files.require_only_keras(path, serialized)
    opener = _open_keras3 if version >= 3 else _open_tf_keras
    return opener(path, serialized, work, size)


def saved_model(model: OwnModel, work: Path) -> Path:
    """The folder of its SavedModel with one function of batch size 1; not for a .tflite file.

    Args:
        model: Opened.
        work: Where one is written when there is none yet.
    """
    if model.keras is None:
        if model.exported is None:
            raise ConversionError(f"{model.path}: a model before its conversion is required. Received: a .tflite file")
        return model.exported
    folder = work / "saved_model"
    convert.export(model.keras, folder)
    return folder


def predictor(model: OwnModel) -> Predictor:
    """What runs the model: float32 inputs (images, height, width, 3), scaled, to float32 outputs (images, units).

    Outputs of an integer .tflite are dequantized; its inputs are quantized here.
    """
    if model.keras is not None:
        return lambda images: _in_batches(model.keras, images)
    if model.tensor is not None:
        return _tflite_predictor(model.path)
    serve = tf.saved_model.load(str(model.exported)).signatures["serving_default"]

    def predict(images: np.ndarray) -> np.ndarray:
        rows = [next(iter(serve(tf.constant(image[None])).values())).numpy().reshape(-1) for image in images]
        return np.stack(rows).astype(np.float32)

    return predict


# --- Keras files ---


def _open_tf_keras(path: Path, serialized: Any, work: Path, size: Size | None) -> OwnModel:
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as exc:  # a file of anybody's, through all of Keras: any error may come
        raise files.load_error(path, serialized, _one_line(exc)) from exc
    inputs, outputs = ([tuple(tensor.shape) for tensor in tensors] for tensors in (model.inputs, model.outputs))
    shape, units = _require_classifier(path, inputs, outputs, size)
    flat = _flatten(json.loads(model.to_json()), dict(keras3.layer_weights(model)))
    exported = None
    if _is_plain(model):
        flat = replace(flat, model=model, reason="")
    else:
        probe = keras3.probe_images(shape)
        flat = flat.rebuilt(shape, probe, _in_batches(model, probe))
    if flat.model is None:
        exported = work / "saved_model"
        _export(lambda image: model(image, training=False), model.variables, shape, exported)
    parameters = int(model.count_params())
    return _own_keras(OwnModel("tf_keras", path, shape, units, parameters=parameters, exported=exported), flat)


def _is_plain(model: keras.Model) -> bool:
    """Whether it is one flat graph of fixed size already, without augmentation."""
    return (
        type(model).__name__ == "Functional"
        and None not in model.input_shape[1:]
        and not any(isinstance(layer, keras.Model) for layer in model.layers)
        and not any(type(layer).__name__.startswith("Random") for layer in model.layers)
    )


def _open_keras3(path: Path, serialized: Any, work: Path, size: Size | None) -> OwnModel:
    try:
        read = keras3.read(path, work, size)
    except keras3.Keras3Error as exc:
        raise files.load_error(path, serialized, str(exc)) from exc
    shape, units = _require_classifier(path, read.inputs, read.outputs, size)
    flat = _flatten(read.serialized, read.weights).rebuilt(shape, read.probe_inputs, read.probe_outputs)
    model = OwnModel("keras3", path, shape, units, parameters=read.parameters, exported=read.saved_model)
    return _own_keras(model, flat)


@dataclass(frozen=True)
class _Flat:
    """A model as one graph, as far as that goes: `reason` says why there is no `model`."""

    graph: rebuild.Graph | None
    weights: Mapping[LayerPath, Sequence[np.ndarray]]
    reason: str
    model: keras.Model | None = None

    def rebuilt(self, size: Size, inputs: np.ndarray, outputs: np.ndarray) -> _Flat:
        """With the tf_keras model, where it gives the same outputs for the same inputs."""
        if self.graph is None:
            return self
        try:
            model = rebuild.build(self.graph, self.weights, size)
        except rebuild.UnsupportedError as exc:
            return replace(self, reason=str(exc))
        difference = rebuild.largest_difference(_in_batches(model, inputs), outputs.reshape(len(inputs), -1))
        if not difference <= _REBUILD_TOLERANCE:
            return replace(self, reason=f"rebuilt for tf_keras its outputs differ by {difference:.2g}")
        return replace(self, model=model)


def _flatten(serialized: Mapping[str, Any], weights: Mapping[LayerPath, Sequence[np.ndarray]]) -> _Flat:
    try:
        return _Flat(rebuild.flatten(serialized), weights, "")
    except rebuild.UnsupportedError as exc:
        return _Flat(None, weights, str(exc))


def _own_keras(model: OwnModel, flat: _Flat) -> OwnModel:
    if flat.graph is not None:
        model = replace(
            model,
            activation=rebuild.output_activation(flat.graph),
            scales_raw_pixels=rebuild.scales_raw_pixels(flat.graph, flat.weights),
        )
    what = "pruning, filter pruning and QAT need one flat graph of layers that tf_keras has"
    return replace(model, keras=flat.model, cannot_compress=f"{what}: {flat.reason}" if flat.model is None else "")


# --- SavedModel and .tflite ---


def _open_saved_model(path: Path, work: Path, size: Size | None) -> OwnModel:
    if not (path / "saved_model.pb").is_file():
        held = ", ".join(sorted(child.name for child in path.iterdir())[:5]) or "nothing"
        raise ConversionError(
            f"{path}: a folder with saved_model.pb is required. Received: one with {held}.", KINDS_HINT
        )
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as exc:  # missing variables, unknown operators, foreign bytes: each its own class
        raise ConversionError(f"{path}: a whole SavedModel is required. Received: {_one_line(exc)}") from exc
    names = sorted(loaded.signatures)
    name = "serving_default" if "serving_default" in names else (names[0] if len(names) == 1 else None)
    if name is None:
        received = ", ".join(names) or "none"
        raise ConversionError(
            f"{path}: a serving_default signature is required. Received: {received}.",
            "Keras writes one with model.export(FOLDER).",
        )
    signature = loaded.signatures[name]
    specs = signature.structured_input_signature[1]
    inputs, outputs = ([_shape(x) for x in each.values()] for each in (specs, signature.structured_outputs))
    shape, units = _require_classifier(path, inputs, outputs, size)
    ((argument, spec),) = specs.items()
    if spec.dtype != tf.float32 or spec.shape[0] not in (None, 1):
        raise ConversionError(
            f"{path}: a float32 input of any batch size is required. Received: {spec.dtype.name} of {spec.shape}."
        )
    exported = work / "saved_model"
    try:
        _export(lambda image: next(iter(signature(**{argument: image}).values())), loaded, shape, exported)
    except (ValueError, tf.errors.OpError) as exc:
        raise ConversionError(f"{path}: an input of {shape} pixels is required. Received: {_one_line(exc)}") from exc
    parameters = sum(int(np.prod(variable.shape)) for variable in signature.variables)
    reason = "pruning, filter pruning and QAT need a Keras file: a SavedModel has no layers"
    return OwnModel("saved_model", path, shape, units, None, reason, parameters, exported=exported)


def _shape(spec: tf.TensorSpec) -> keras3.Shape:
    return tuple(spec.shape.as_list()) if spec.shape.rank is not None else ()


def _open_tflite(path: Path, size: Size | None) -> OwnModel:
    content = path.read_bytes()
    inspection = flatbuffer.inspect(content, str(path))
    inputs, outputs = ([tensor.shape for tensor in tensors] for tensors in (inspection.inputs, inspection.outputs))
    shape, units = _require_classifier(path, inputs, outputs, size)
    for tensor in (*inspection.inputs, *inspection.outputs):
        has_scale = tensor.scale is not None and tensor.zero_point is not None
        if tensor.dtype != "float32" and not (tensor.dtype in ("int8", "uint8") and has_scale):
            raise ConversionError(
                f"{path}: float32, or int8 or uint8 with a scale, is required of input and output. "
                f"Received: {tensor.name}: {tensor.dtype}{'' if has_scale else ' without a scale'}."
            )
    try:
        Model(content, 1, str(path))
    except ModelError as exc:
        raise ConversionError(str(exc)) from exc
    reason = "pruning, filter pruning and QAT need a Keras file: a .tflite file is deployed as it is"
    return OwnModel("tflite", path, shape, units, None, reason, tensor=inspection.inputs[0])


def _tflite_predictor(path: Path) -> Predictor:
    content = path.read_bytes()
    inspection = flatbuffer.inspect(content, str(path))
    (tensor_in,), (tensor_out,) = inspection.inputs, inspection.outputs
    model = Model(content, os.cpu_count() or 1, str(path))

    def predict(images: np.ndarray) -> np.ndarray:
        rows = [model.run(_quantize(images[index : index + 1], tensor_in)).reshape(-1) for index in range(len(images))]
        output = np.stack(rows).astype(np.float32)
        if tensor_out.scale is None or tensor_out.zero_point is None:
            return output
        return (output - np.float32(tensor_out.zero_point)) * np.float32(tensor_out.scale)

    return predict


def _quantize(images: np.ndarray, tensor: flatbuffer.Tensor) -> np.ndarray:
    if tensor.scale is None or tensor.zero_point is None:
        return images
    limits = np.iinfo(tensor.dtype)
    steps = np.round(images / np.float32(tensor.scale)) + np.float32(tensor.zero_point)
    return np.clip(steps, limits.min, limits.max).astype(tensor.dtype)


# --- what every kind has to be ---


def _require_classifier(
    path: Path, inputs: Sequence[keras3.Shape], outputs: Sequence[keras3.Shape], size: Size | None
) -> tuple[Size, int]:
    """Height and width of the one image input, and units of the one output."""
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConversionError(
            f"{path}: one input and one output are required. Received: {len(inputs)} and {len(outputs)}."
        )
    (image,), (row,) = inputs, outputs
    if len(image) != 4 or image[3] != 3:
        raise ConversionError(f"{path}: an input of (batch, height, width, 3) is required. Received: {_show(image)}.")
    if len(row) < 2 or row[-1] is None or any(axis != 1 for axis in row[1:-1]):
        raise ConversionError(f"{path}: an output of (batch, units) is required. Received: {_show(row)}.")
    own = image[1:3]
    if size is not None and any(have not in (None, want) for have, want in zip(own, size, strict=True)):
        raise RecipeError(f"{path}: input = {_show(own)} is required. Received: {_show(size)}.")
    height, width = size or own
    if not height or not width:
        raise RecipeError(f"{path}: a size is required. Received: {_show(image)}.", "Give input = [height, width].")
    return (height, width), row[-1]


def _show(shape: Sequence[int | None]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _in_batches(model: keras.Model, images: np.ndarray) -> np.ndarray:
    starts = range(0, len(images), _BATCH)
    rows = [model(images[start : start + _BATCH], training=False).numpy() for start in starts]
    return np.concatenate(rows).reshape(len(images), -1).astype(np.float32)


def _export(serve: Callable[[tf.Tensor], tf.Tensor], held: Any, size: Size, folder: Path) -> None:
    """Save one function of batch size 1 as a SavedModel, with what it refers to."""
    module = tf.Module()
    module.held = held
    module.serve = tf.function(serve, input_signature=[tf.TensorSpec((1, *size, 3), tf.float32, "image")])
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300] or type(exc).__name__
