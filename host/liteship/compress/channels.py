"""Which channels of a network belong together, what they cost, and the network without some of them.

Every layer makes channels (convolution, dense), hands on those that it gets (depthwise convolution, batch
normalization, activation, pooling) or ties those of its inputs together (addition). Channels that are tied form a
group, and only a group as a whole can lose one. `ChannelGraph` reads the groups from a model; `without` builds the
smaller model: the same layers by name and configuration, with fewer filters and the weights that are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tf_keras as keras
from scipy.cluster.hierarchy import DisjointSet

from liteship.errors import ConversionError

_LAYERS = keras.layers
_MAKERS = (_LAYERS.Conv2D, _LAYERS.SeparableConv2D, _LAYERS.Dense)
_ELEMENTWISE = (
    _LAYERS.BatchNormalization,
    _LAYERS.Activation,
    _LAYERS.ReLU,
    _LAYERS.LeakyReLU,
    _LAYERS.Softmax,
    _LAYERS.Dropout,
    _LAYERS.SpatialDropout2D,
)
_FOLLOWED = (
    *_MAKERS,
    *_ELEMENTWISE,
    _LAYERS.InputLayer,
    _LAYERS.DepthwiseConv2D,
    _LAYERS.Add,
    _LAYERS.MaxPooling2D,
    _LAYERS.AveragePooling2D,
    _LAYERS.GlobalAveragePooling2D,
    _LAYERS.GlobalMaxPooling2D,
    _LAYERS.ZeroPadding2D,
    _LAYERS.Flatten,
    _LAYERS.Rescaling,
)
# Settings that a followed layer must have, where it has them at all.
_REQUIRED_SETTINGS = {"groups": 1, "depth_multiplier": 1, "data_format": "channels_last"}
# Axes of a weight that hold the channels that come in and those that go out; all other weights have one entry per
# channel that goes out.
_WEIGHT_AXES = {"kernel": (-2, -1), "pointwise_kernel": (-2, -1), "depthwise_kernel": (-2, None)}
_HINT = "Prune it by magnitude, or build the model as one flat graph of convolutions, dense layers and additions."


@dataclass(frozen=True)
class Channels:
    """What the last axis of a tensor holds.

    Args:
        group: Number of the group.
        tiles: How often its channels are repeated: height times width after a Flatten, else 1.
    """

    group: int
    tiles: int = 1


@dataclass(frozen=True)
class Node:
    """One layer of the graph.

    Args:
        layer: The Keras layer.
        inputs: Names of the layers whose outputs it gets.
        before, after: Channels of its (first) input and of its output; the same for the input layer.
    """

    layer: Any
    inputs: tuple[str, ...]
    before: Channels
    after: Channels

    @property
    def makes_channels(self) -> bool:
        """Whether its filters or units are channels of their own."""
        return type(self.layer) in _MAKERS

    @property
    def kernel(self) -> Any:
        """The weight whose last axis are its filters."""
        return next(v for v in self.layer.weights if _weight_name(v) in ("kernel", "pointwise_kernel"))


@dataclass(frozen=True)
class Price:
    """What a network with some number of channels in each group costs: n Q n + l n.

    Args:
        quadratic: Q, shape (groups, groups): cost of every pair of an incoming and an outgoing channel.
        linear: l, shape (groups,): cost of every channel.
    """

    quadratic: np.ndarray
    linear: np.ndarray

    def of(self, counts: np.ndarray) -> float:
        """Price of a network with this many channels in each group."""
        return float(counts @ self.quadratic @ counts + self.linear @ counts)

    def saved(self, counts: np.ndarray, fewer: np.ndarray) -> np.ndarray:
        """What each group saves by having fewer channels while all other groups keep theirs, shape (groups,)."""
        per_channel = (self.quadratic + self.quadratic.T) @ counts + self.linear
        return np.asarray(fewer * per_channel - fewer**2 * np.diag(self.quadratic))


class ChannelGraph:
    """The layers of a model in the order of computation, and the groups of their channels.

    Args:
        model: Functional or sequential tf_keras model with one input of fixed size and one output.

    Raises:
        ConversionError: something in the graph cannot be followed; the message names the layer.
    """

    def __init__(self, model: keras.Model) -> None:
        config = _config(model)
        layers = {layer.name: layer for layer in model.layers}
        layers.setdefault(config["input_layers"][0][0], None)  # a sequential model does not list it
        self._ties = DisjointSet()
        origins: dict[str, tuple[str, int]] = {}  # of an output: the layer that made its channels, and the tiles
        inputs: dict[str, tuple[str, ...]] = {}
        for entry in config["layers"]:
            name = entry["name"]
            inputs[name] = _inputs(entry)
            origins[name] = self._origin(name, layers[name], [origins[before] for before in inputs[name]])
        roots = list(dict.fromkeys(self._ties[maker] for maker, _ in origins.values()))
        places = {name: Channels(roots.index(self._ties[maker]), tiles) for name, (maker, tiles) in origins.items()}
        self.nodes = {
            name: Node(layers[name], inputs[name], places[(*inputs[name], name)[0]], places[name]) for name in places
        }
        self.fixed = frozenset(
            (places[config["input_layers"][0][0]].group, places[config["output_layers"][0][0]].group)
        )
        self.counts = np.zeros(len(roots), np.int64)
        self.counts[self.nodes[config["input_layers"][0][0]].after.group] = model.input_shape[-1]
        for node in self.makers():
            self.counts[node.after.group] = node.layer.output_shape[-1]
        self._require_rescaled_input()

    def _origin(self, name: str, layer: Any, inputs: list[tuple[str, int]]) -> tuple[str, int]:
        if not inputs or type(layer) in _MAKERS:
            self._ties.add(name)
            return name, 1
        if isinstance(layer, _LAYERS.Flatten):
            maker, tiles = inputs[0]
            return maker, tiles * int(np.prod(layer.input_shape[1:-1], dtype=np.int64))
        if isinstance(layer, _LAYERS.Add):
            shapes = layer.input_shape
            if len({(shape[-1], tiles) for shape, (_, tiles) in zip(shapes, inputs, strict=True)}) > 1:
                raise ConversionError(
                    f"filters: additions of equal channels are required. Received: {name} of {shapes}", _HINT
                )
            for maker, _ in inputs[1:]:
                self._ties.merge(inputs[0][0], maker)
        return inputs[0]

    def _require_rescaled_input(self) -> None:
        """A rescaling may have a number per channel, which its configuration does not make smaller."""
        for name, node in self.nodes.items():
            if isinstance(node.layer, _LAYERS.Rescaling) and node.before.group not in self.fixed:
                raise _unfollowed(name, "Rescaling after the first convolution")

    def makers(self) -> Iterator[Node]:
        """Nodes whose filters are channels of their own."""
        return (node for node in self.nodes.values() if node.makes_channels)

    def prunable(self) -> Iterator[Node]:
        """Nodes whose filters can go: not those that the output of the model consists of."""
        return (node for node in self.makers() if node.after.group not in self.fixed)

    @cached_property
    def _consumers(self) -> dict[str, list[str]]:
        consumers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for name, node in self.nodes.items():
            for before in node.inputs:
                consumers[before].append(name)
        return consumers

    def observed(self, name: str) -> Any:
        """The tensor in which a layer's channels are measured: after what directly follows it channel by channel."""
        while len(self._consumers[name]) == 1 and type(self.nodes[self._consumers[name][0]].layer) in _ELEMENTWISE:
            name = self._consumers[name][0]
        return self.nodes[name].layer.output

    def multiply_adds(self) -> Price:
        """Multiply-adds of one inference over convolutions and dense layers, as `flatbuffer.inspect` counts them."""
        price = Price(np.zeros((len(self.counts), len(self.counts))), np.zeros(len(self.counts)))
        for node in self.nodes.values():
            for variable in node.layer.weights if node.layer else ():
                before, after = _WEIGHT_AXES.get(_weight_name(variable), (None, None))
                if before is None:
                    continue
                positions = np.prod(node.layer.output_shape[1:-1], dtype=np.int64)
                each = positions * np.prod(variable.shape[:-2], dtype=np.int64) * node.before.tiles
                if after is None:
                    price.linear[node.before.group] += each
                else:
                    price.quadratic[node.before.group, node.after.group] += each
        return price

    def filters(self) -> Price:
        """Number of filters and units that can go."""
        linear = np.zeros(len(self.counts))
        for node in self.prunable():
            linear[node.after.group] += 1
        return Price(np.zeros((len(self.counts), len(self.counts))), linear)


def without(model: keras.Model, graph: ChannelGraph, kept: Sequence[np.ndarray]) -> keras.Model:
    """Build the model that has only some of its channels.

    Args:
        model: Not changed.
        graph: Of that model.
        kept: For every group a bool per channel, False where it goes.

    Returns:
        An ordinary model of its own weights, not compiled, whose layers have the names that they had.

    Raises:
        ConversionError: Keras cannot build a layer from its own configuration.
    """

    def smaller(layer: Any) -> Any:
        config = layer.get_config()
        for setting in ("filters", "units"):
            if setting in config:
                config[setting] = int(kept[graph.nodes[layer.name].after.group].sum())
        return type(layer).from_config(config)

    try:
        clone = keras.models.clone_model(model, clone_function=smaller)
    except (ValueError, TypeError) as exc:  # an activation function of the user's own
        reason = " ".join(str(exc).split())[:200]
        raise ConversionError(f"filters: layers of plain Keras are required. Received: {reason}", _HINT) from exc
    for layer in clone.layers:
        node = graph.nodes[layer.name]
        before, after = left(node.before, kept), left(node.after, kept)
        layer.set_weights([_sliced(weight, before, after) for weight in node.layer.weights])
    return clone


def left(channels: Channels, kept: Sequence[np.ndarray]) -> np.ndarray:
    """Indices into the last axis of a tensor that are left, given a bool per channel of every group."""
    return np.flatnonzero(np.tile(kept[channels.group], channels.tiles))


def _sliced(variable: Any, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    value: np.ndarray = variable.numpy()
    axes = _WEIGHT_AXES.get(_weight_name(variable), (None, -1))
    for axis, indices in zip(axes, (before, after), strict=True):
        if axis is not None:
            value = np.take(value, indices, axis)
    return value


def _weight_name(variable: Any) -> str:
    """The weight's own name: "kernel" of "block_1/conv/kernel:0"."""
    return str(variable.name).rsplit("/", 1)[-1].split(":")[0]


def _config(model: keras.Model) -> dict[str, Any]:
    """The configuration of the flat graph, after a look at every layer's class and settings."""
    for layer in model.layers:
        _require_followed(layer)
    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs, model.outputs)
    config: dict[str, Any] = model.get_config()
    if not config.get("output_layers"):
        raise _unfollowed(model.name, f"{type(model).__name__}, not a functional model")
    for side in ("input", "output"):
        names = [entry[0] for entry in config[f"{side}_layers"]]
        if len(names) != 1:
            raise _unfollowed(model.name, f"{len(names)} {side}s: {', '.join(names)}")
    if None in model.input_shape[1:]:
        raise _unfollowed(model.name, f"an input of no fixed size, {model.input_shape}")
    return config


def _require_followed(layer: Any) -> None:
    if type(layer) not in _FOLLOWED:
        raise _unfollowed(layer.name, type(layer).__name__)
    for setting, required in _REQUIRED_SETTINGS.items():
        received = getattr(layer, setting, required)
        if received != required:
            raise _unfollowed(layer.name, f"{type(layer).__name__} with {setting} {received}")
    if isinstance(layer, _LAYERS.BatchNormalization) and list(layer.axis) != [len(layer.input_shape) - 1]:
        raise _unfollowed(layer.name, f"BatchNormalization over axis {list(layer.axis)}")


def _inputs(entry: dict[str, Any]) -> tuple[str, ...]:
    calls = entry["inbound_nodes"]
    if len(calls) > 1:
        raise _unfollowed(entry["name"], f"{entry['class_name']} called {len(calls)} times")
    return tuple(before[0] for call in calls for before in call)


def _unfollowed(name: str, received: str) -> ConversionError:
    return ConversionError(
        f"filters: layers that pruning can follow are required. Received: {name} ({received})", _HINT
    )
