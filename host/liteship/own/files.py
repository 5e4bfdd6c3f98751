"""Files of Keras 2 and 3 before Keras reads them: who wrote them, and whether they hold nobody's code but Keras' own.

tf_keras imports whatever module a file names, and runs the Python code in a Lambda layer of an .h5 file; so what a file
describes is looked at first.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import tf_keras as keras

from liteship.errors import ConversionError

KINDS_HINT = "A .keras, .h5 or .tflite file or a SavedModel folder is taken."
EXPORT_HINT = "Convert it to a SavedModel where its code is at hand (model.export(FOLDER)) and give that folder."

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,  # encrypted, an unknown compression, endless nesting
)


def read_header(path: Path, start: bytes) -> tuple[int, Any]:
    """Major version of the Keras that wrote a file, and the model as it serialized it.

    Args:
        path: The file.
        start: Its first 8 bytes.

    Raises:
        ConversionError: not a Keras file, a damaged one, or one of weights only.
    """
    try:
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                metadata, config = (json.loads(archive.read(name)) for name in ("metadata.json", "config.json"))
            return _major(metadata["keras_version"]), config
        if start == b"\x89HDF\r\n\x1a\n":
            with h5py.File(path) as file:
                if "model_config" not in file.attrs:
                    raise ConversionError(
                        f"{path}: a whole model is required. Received: an HDF5 file of weights only.",
                        "Save it with model.save(PATH), or name the architecture and give the file as its weights.",
                    )
                # Files of before 2017 have no version.
                return _major(file.attrs.get("keras_version", "2")), json.loads(file.attrs["model_config"])
    except _DAMAGED as exc:
        raise ConversionError(
            f"{path}: a whole Keras file is required. Received: a damaged or foreign one ({exc}).",
            KINDS_HINT,
        ) from exc
    received = f"{path.stat().st_size} bytes that begin with {start!r}" if start else "an empty file"
    raise ConversionError(f"{path}: a model file is required. Received: {received}.", KINDS_HINT)


def _major(version: str) -> int:
    return int(version.split(".")[0])


def require_only_keras(path: Path, serialized: Any) -> None:
    """Refuse what would run or import somebody's code.

    Raises:
        ConversionError: a Lambda layer, or a class from elsewhere; names layer and class.
    """
    for layer, item in _classes(serialized, ""):
        name, module = str(item["class_name"]), item.get("module", "keras")
        if name == "Lambda":
            raise ConversionError(
                f"{path}: layers without Python code of their own are required. Received: Lambda layer {layer}, which "
                "is unsafe to load.",
                EXPORT_HINT,
            )
        is_registered = ">" in f"{name}{item.get('registered_name')}"
        if is_registered or str(module).split(".")[0] not in ("keras", "tf_keras", "builtins"):
            raise _custom_layer(path, layer, name.split(">")[-1])


def _classes(value: Any, layer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything serialized that has a class, with the name of the layer that it belongs to."""
    if isinstance(value, dict):
        if "class_name" in value:
            config = value.get("config")
            own = config.get("name") if isinstance(config, dict) else None
            layer = own if isinstance(own, str) else layer
            yield layer, value
        for key, item in value.items():
            if key not in ("compile_config", "build_config"):  # not read
                yield from _classes(item, layer)
    elif isinstance(value, list):
        for item in value:
            yield from _classes(item, layer)


def _custom_layer(path: Path, layer: str, class_name: str) -> ConversionError:
    return ConversionError(
        f"{path}: layers of Keras are required. Received: layer {layer} of class {class_name}, custom or unknown.",
        EXPORT_HINT,
    )


def load_error(path: Path, serialized: Any, reason: str) -> ConversionError:
    """Of a file that Keras refuses; an .h5 file does not tell which classes are custom, only that message does."""
    for layer, item in _classes(serialized, ""):
        name = str(item["class_name"])
        if f"'{name}'" in reason and not hasattr(keras.layers, name):
            return _custom_layer(path, layer, name)
    return ConversionError(f"{path}: a model that Keras can load is required. Received: {reason[:300]}", EXPORT_HINT)
