"""Read a model file with Keras 3, in a process of its own: tf_keras cannot, and the two do not mix in one process.

`read` starts `python -I -m liteship.own.keras3 FILE FOLDER [HEIGHT WIDTH]`, which leaves in the folder: `saved_model`
(one function of batch size 1), `facts.json`, `weights.npz` and `probe.npz` (random inputs with the outputs for them).
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# The names of the models that a layer stands in, outermost first, and its own.
LayerPath = tuple[str, ...]
Shape = tuple[int | None, ...]

_SAVED_MODEL, _FACTS, _WEIGHTS, _PROBE = "saved_model", "facts.json", "weights.npz", "probe.npz"
_REFUSED = 3
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class Keras3Error(Exception):
    """Keras 3 cannot load or run a file; the text is its reason in one line."""


@dataclass(frozen=True)
class Keras3Model:
    """What Keras 3 says about a model.

    Args:
        inputs, outputs: Their shapes, batch first, None where a size is not fixed.
        parameters: Weights, trainable or not.
        serialized: Class, config and layers, as Keras 3 writes them.
        weights: The arrays of every layer that has some.
        saved_model: The exported model, None where it has not one image input of known size.
        probe_inputs: float32, shape (images, height, width, 3), values of -1 to 1 and of 0 to 255.
        probe_outputs: float32, what the model gives for them.
    """

    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    parameters: int
    serialized: dict[str, Any]
    weights: dict[LayerPath, list[np.ndarray]]
    saved_model: Path | None
    probe_inputs: np.ndarray
    probe_outputs: np.ndarray


def read(path: Path, folder: Path, size: tuple[int, int] | None) -> Keras3Model:
    """Load and export a Keras 3 file.

    Args:
        path: A .keras or .h5 file of Keras 3.
        folder: For what the process writes; made where it is not there.
        size: Height and width, for a model that leaves them open.

    Raises:
        Keras3Error: Keras 3 cannot load or run it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-I",
        "-m",
        "liteship.own.keras3",
        str(path.absolute()),
        str(folder),
        *map(str, size or ()),
    ]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        lines = (ended.stdout if ended.returncode == _REFUSED else ended.stderr).strip().splitlines()
        raise Keras3Error(lines[-1] if lines else f"Keras 3 ended with {ended.returncode}")
    facts = json.loads((folder / _FACTS).read_text())
    with np.load(folder / _WEIGHTS) as arrays:
        stored = iter([arrays[name] for name in arrays.files])
    weights = {tuple(names): [next(stored) for _ in range(count)] for names, count in facts["layers"]}
    with np.load(folder / _PROBE) as probe:
        inputs, outputs = probe["inputs"], probe["outputs"]
    return Keras3Model(
        inputs=tuple(map(tuple, facts["inputs"])),
        outputs=tuple(map(tuple, facts["outputs"])),
        parameters=facts["parameters"],
        serialized=facts["serialized"],
        weights=weights,
        saved_model=folder / _SAVED_MODEL if facts["exported"] else None,
        probe_inputs=inputs,
        probe_outputs=outputs,
    )


def layer_weights(model: Any, path: LayerPath = ()) -> Iterator[tuple[LayerPath, list[np.ndarray]]]:
    """The arrays of every layer of a Keras model, of whichever Keras, also in the models inside it."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from layer_weights(layer, (*path, layer.name))
        elif layer.weights:
            yield (*path, layer.name), layer.get_weights()


def probe_images(size: tuple[int, int]) -> np.ndarray:
    """Random inputs in the ranges that models take; float32, shape (4, height, width, 3)."""
    random = np.random.default_rng(0)
    shape = (2, *size, 3)
    return np.concatenate([random.uniform(-1, 1, shape), random.uniform(0, 255, shape)]).astype(np.float32)


def _main(file: str, folder: Path, size: Sequence[int]) -> None:
    # Whoever started this may be killed; then nobody wants the answer.
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    keras = importlib.import_module("keras")  # not at the top: whoever reads the facts has tf_keras in memory
    try:
        model = keras.saving.load_model(file, compile=False)
        _write(keras, model, folder, size)
    except Exception as exc:  # a file of anybody's, through all of Keras: any error may come
        print(" ".join(str(exc).split()) or type(exc).__name__)
        sys.exit(_REFUSED)


def _write(keras: Any, model: Any, folder: Path, size: Sequence[int]) -> None:
    layers = list(layer_weights(model))
    np.savez(folder / _WEIGHTS, *(array for _, arrays in layers for array in arrays))
    inputs, outputs = [tuple(x.shape) for x in model.inputs], [tuple(x.shape) for x in model.outputs]
    shape = _image_shape(inputs, outputs, size)
    probe = np.empty((0, 1, 1, 3), np.float32)
    answers = np.empty((0, 1), np.float32)
    if shape is not None:
        _export(model, shape, folder / _SAVED_MODEL)
        probe = probe_images(shape)
        answers = keras.ops.convert_to_numpy(model(probe, training=False)).astype(np.float32)
    np.savez(folder / _PROBE, inputs=probe, outputs=answers)
    facts = {
        "inputs": inputs,
        "outputs": outputs,
        "parameters": model.count_params(),
        "serialized": keras.saving.serialize_keras_object(model),
        "layers": [(path, len(arrays)) for path, arrays in layers],
        "exported": shape is not None,
    }
    (folder / _FACTS).write_text(json.dumps(facts))


def _image_shape(inputs: list[Shape], outputs: list[Shape], size: Sequence[int]) -> tuple[int, int] | None:
    """Height and width of the one image input, or None: then there is nothing that could be exported."""
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]) != 4 or inputs[0][3] != 3:
        return None
    height, width = (own or given for own, given in zip(inputs[0][1:3], size or (None, None), strict=True))
    return (height, width) if height and width else None


def _export(model: Any, size: tuple[int, int], folder: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    image = tf.TensorSpec((1, *size, 3), tf.float32, "image")
    module.serve = tf.function(lambda image: model(image, training=False), input_signature=[image])
    tf.saved_model.save(module, str(folder), signatures=module.serve)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), [int(size) for size in sys.argv[3:]])
