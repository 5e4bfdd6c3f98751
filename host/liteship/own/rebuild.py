"""Make one flat tf_keras graph of a model that has models inside it, or that Keras 3 wrote.

`flatten` reads the serialized model, of either Keras, into a list of layer calls; `build` makes tf_keras layers of them
and gives them their weights. What is not understood is refused by the layer's name, and who calls compares outputs, so
that nothing has to be known about the layers that both libraries share: a difference in meaning shows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tf_keras as keras

from liteship.own.keras3 import LayerPath

IMAGE = 0
_INPUT = "image"
_MODELS = ("Functional", "Sequential", "Model")
_RELATIVE_SHARE = 1e-3
_NO_MEANING = ("training", "mask", "name")
# A number added, subtracted ... in the graph, as `preprocess_input` leaves it: scale and offset of a Rescaling layer.
_ARITHMETIC: dict[str, Callable[[float], tuple[float, float]]] = {
    "TrueDivide": lambda number: (1 / number, 0.0),
    "Divide": lambda number: (1 / number, 0.0),
    "Multiply": lambda number: (number, 0.0),
    "Add": lambda number: (1.0, number),
    "Subtract": lambda number: (1.0, -number),
}
_TF_FUNCTIONS = {
    "math.truediv": "TrueDivide",
    "math.divide": "TrueDivide",
    "math.multiply": "Multiply",
    "math.add": "Add",
    "__operators__.add": "Add",
    "math.subtract": "Subtract",
}


class UnsupportedError(Exception):
    """A model that cannot be rebuilt; the text is one line that names the layer."""


@dataclass(frozen=True)
class Call:
    """One layer called once.

    Args:
        path: Names of the layer and of the models that it stands in; two calls with one path share the layer.
        class_name, config: Of the layer, as serialized.
        inputs: Indices of the calls whose outputs go in; `IMAGE` is the model's input.
    """

    path: LayerPath
    class_name: str
    config: Mapping[str, Any]
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """The calls of a model, each after its inputs; number i stands at `calls[i - 1]`, and `output` is such a number."""

    calls: tuple[Call, ...]
    output: int

    def call(self, index: int) -> Call:
        """The call of an index above `IMAGE`."""
        return self.calls[index - 1]


def flatten(serialized: Mapping[str, Any]) -> Graph:
    """List the layer calls of a serialized model; augmentation, which is nothing at inference, is left out.

    Args:
        serialized: `class_name` and `config`, of Keras 2 or 3.

    Raises:
        UnsupportedError: more than one input or output of a model, or a call that is not plain tensors in, tensor out.
    """
    flattener = _Flattener()
    try:
        output = flattener.model(serialized, (), IMAGE)
    except (KeyError, TypeError, IndexError, AttributeError) as exc:
        raise UnsupportedError(f"its config has a form that is not known ({exc!r})"[:200]) from exc
    return Graph(tuple(flattener.calls), output)


def build(graph: Graph, weights: Mapping[LayerPath, Sequence[np.ndarray]], size: tuple[int, int]) -> keras.Model:
    """The functional tf_keras model of a graph.

    Args:
        graph: Its layers.
        weights: The arrays of every layer that has some.
        size: Height and width of the input.

    Returns:
        Input (batch, height, width, 3); every layer trainable; layers keep their names where these are unique.

    Raises:
        UnsupportedError: a layer that tf_keras does not have, or has with other settings or weights.
    """
    tensors = [keras.Input((*size, 3), name=_INPUT)]
    layers: dict[LayerPath, keras.layers.Layer] = {}
    for call in graph.calls:
        try:
            if call.path not in layers:
                layers[call.path] = _layer(call, {_INPUT, *(layer.name for layer in layers.values())})
            inputs = [tensors[index] for index in call.inputs]
            tensors.append(layers[call.path](inputs if len(inputs) > 1 else inputs[0]))
            if layers[call.path].weights:
                layers[call.path].set_weights(weights.get(call.path, ()))
        except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as exc:
            # What Keras says before this quotes the whole config.
            reason = " ".join(str(exc).split("Exception encountered:")[-1].split())
            raise UnsupportedError(f"{_describe(call)}: {reason[:120]}") from exc
    return keras.Model(tensors[IMAGE], tensors[graph.output])


def largest_difference(outputs: np.ndarray, expected: np.ndarray) -> float:
    """Of any two numbers, in units of the largest expected one where that is above 1 (logits); NaN where one is.

    Random images drive a softmax to its ends, where the difference itself says nothing: of probabilities a thousandth
    of the relative difference counts too.
    """
    difference = np.max(np.abs(outputs - expected)) / max(1.0, np.max(np.abs(expected)))
    if expected.min() < 0 or expected.max() > 1:
        return float(difference)
    relative = np.abs(outputs - expected) / np.maximum(expected, np.finfo(np.float32).tiny)
    return float(np.maximum(difference, np.max(relative) * _RELATIVE_SHARE))


def output_activation(graph: Graph) -> str | None:
    """What the last layer gives: "softmax", "sigmoid" or "logits", or None where its kind does not tell."""
    if graph.output == IMAGE:
        return None
    last = graph.call(graph.output)
    if last.class_name == "Softmax":
        return "softmax"
    known = {"softmax": "softmax", "sigmoid": "sigmoid", "linear": "logits"}
    activation = last.config.get("activation")
    return known.get(activation) if isinstance(activation, str) else None


def scales_raw_pixels(graph: Graph, weights: Mapping[LayerPath, Sequence[np.ndarray]]) -> bool:
    """Whether the first layer brings pixels of 0 to 255 into a model's range, by the size of its numbers."""
    first = next((call for call in graph.calls if IMAGE in call.inputs), None)
    if first is None:
        return False
    try:
        if first.class_name == "Rescaling":
            return bool(np.max(first.config["scale"]) < 0.1 or np.max(np.abs(first.config["offset"])) > 2)
        if first.class_name == "Normalization":
            mean = first.config.get("mean")
            return bool(np.max(weights[first.path][0] if mean is None else mean) > 1)
    except (TypeError, KeyError):  # numbers that Keras serialized as objects: the ranges are tried
        return False
    return False


@dataclass
class _Flattener:
    calls: list[Call] = field(default_factory=list)

    def model(self, serialized: Mapping[str, Any], path: LayerPath, image: int) -> int:
        """Append the calls of a model that gets the output of one call; the index of the call that it gives."""
        config = serialized["config"]
        if serialized["class_name"] == "Sequential":
            for layer in config["layers"]:
                if layer["class_name"] != "InputLayer":
                    image = self.layer(layer, path, [image], [])
            return image
        return self.functional(config, path, image)

    def functional(self, config: Mapping[str, Any], path: LayerPath, image: int) -> int:
        (name, *_), output = (self.only(config, key, path) for key in ("input_layers", "output_layers"))
        known = {(name, 0, 0): image}
        pending = [
            (layer, number, node) for layer in config["layers"] for number, node in enumerate(layer["inbound_nodes"])
        ]
        while pending:
            waiting = []
            for layer, number, node in pending:
                keys, numbers = _arguments(node, "/".join((*path, layer["name"])))
                if not all(key in known for key in keys):
                    waiting.append((layer, number, node))
                    continue
                index = self.layer(layer, path, [known[key] for key in keys], numbers)
                known[layer["name"], number + _own_nodes(layer, node), 0] = index
            if len(waiting) == len(pending):
                raise UnsupportedError(f"layer {'/'.join((*path, waiting[0][0]['name']))}: its input is not known")
            pending = waiting
        return known[output]

    def layer(self, layer: Mapping[str, Any], path: LayerPath, inputs: list[int], numbers: list[float]) -> int:
        class_name, config = layer["class_name"], layer["config"]
        path = (*path, config["name"])
        if class_name == "TFOpLambda":
            class_name = _TF_FUNCTIONS.get(config["function"], class_name)
        if numbers:
            if len(inputs) != 1 or len(numbers) != 1 or class_name not in _ARITHMETIC:
                raise UnsupportedError(f"layer {'/'.join(path)} ({class_name}): a call with numbers")
            scale, offset = _ARITHMETIC[class_name](numbers[0])
            class_name, config = "Rescaling", {"name": config["name"], "scale": scale, "offset": offset}
        if class_name in _MODELS:
            if len(inputs) != 1:
                raise UnsupportedError(f"layer {'/'.join(path)} ({class_name}): {len(inputs)} inputs")
            return self.model(layer, path, inputs[0])
        if class_name.startswith("Random"):
            return inputs[0]
        self.calls.append(Call(path, class_name, config, tuple(inputs)))
        return len(self.calls)

    @staticmethod
    def only(config: Mapping[str, Any], key: str, path: LayerPath) -> tuple[str, int, int]:
        """The one input or output of a model: Keras 3 writes it bare, Keras 2 in a list."""
        value = config[key]
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if not (isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)):
            raise UnsupportedError(f"model {'/'.join(path) or config['name']}: not one of its {key}")
        return value[0], value[1], value[2]


def _own_nodes(layer: Mapping[str, Any], node: Any) -> int:
    """Keras 2 counts the calls of a model inside a model from 1: 0 is the one that it was made with."""
    if isinstance(node, Mapping) or layer["class_name"] not in _MODELS:
        return 0
    return int(layer["config"]["layers"][0]["class_name"] == "InputLayer")


def _arguments(node: Any, where: str) -> tuple[list[tuple[str, int, int]], list[float]]:
    """Tensors and numbers that one call gets, in order.

    Keras 3: {"args": [...], "kwargs": {...}} with tensors as {"class_name": "__keras_tensor__", ...}. Keras 2: a list
    of [layer, call, output, kwargs], or one of these bare.
    """
    if isinstance(node, Mapping):
        tensors = [tuple(value) for value in _leaves(node["args"]) if isinstance(value, list)]
        plain = [value for value in _leaves(node["args"]) if not isinstance(value, list)]
        keywords = node["kwargs"]
    else:
        entries = [node] if isinstance(node[0], str) else node
        tensors = [tuple(entry[:3]) for entry in entries]
        plain, keywords = [], entries[0][3]
    plain += [value for key, value in keywords.items() if key not in _NO_MEANING and value is not None]
    if not tensors or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in plain):
        raise UnsupportedError(f"layer {where}: called with more than tensors and numbers")
    return tensors, plain


def _leaves(argument: Any) -> Iterator[Any]:
    """Tensors as [layer, call, output], and everything else as it is."""
    if isinstance(argument, Mapping) and argument.get("class_name") == "__keras_tensor__":
        yield argument["config"]["keras_history"]
    elif isinstance(argument, list):
        for item in argument:
            yield from _leaves(item)
    else:
        yield argument


def _layer(call: Call, taken: set[str]) -> keras.layers.Layer:
    kind = getattr(keras.layers, call.class_name, None)
    if kind is None:
        raise UnsupportedError(f"{_describe(call)}: no such layer in tf_keras")
    known = {name for base in kind.__mro__ for name in inspect.signature(base.__init__).parameters} | {"name"}
    # Initial values are of no use where weights are given, and Keras 3 has some that tf_keras has not.
    config = {
        key: value
        for key, value in call.config.items()
        if key in known - {"dtype", "trainable"} and not key.endswith("_initializer")
    }
    config["name"] = call.path[-1] if call.path[-1] not in taken else f"{'_'.join(call.path)}_{len(taken)}"
    if call.class_name == "LeakyReLU":
        config["alpha"] = call.config.get("negative_slope", call.config.get("alpha"))
    return kind.from_config(config)


def _describe(call: Call) -> str:
    return f"layer {'/'.join(call.path)} ({call.class_name})"
