"""Filter pruning: whole filters go, so that the network that is left is smaller and quicker on any runtime.

Rank every filter on training images, remove the lowest until the target is reached, set the weights that are left,
train again; at once or in rounds. Training is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import tensorflow as tf
import tf_keras as keras

from liteship.architectures import gives_logits
from liteship.compress.channels import ChannelGraph, Node, Price, left, without
from liteship.errors import ConversionError, RecipeError
from liteship.filter_ranks import FilterRank
from liteship.images import Images
from liteship.train import label_loss
from liteship_agent.preprocess import to_tensor

Criterion = Literal["l1", "activation", "taylor"]
Target = Literal["filters", "multiply_adds"]
Batch = tuple[np.ndarray, np.ndarray]
FineTune = Callable[[keras.Model, int, Mapping[str, np.ndarray]], "keras.Model | None"]

_RANKING_IMAGES = 256
_BATCH_SIZE = 16
_LEAST_SHARE = 8  # every group keeps an eighth of its channels: a layer of one channel passes nothing on
_MULTIPLE = 8  # dense kernels compute eight output channels at a time
_ROUNDED_FROM = 16  # groups of fewer channels are not rounded
_TOLERANCE = 0.02  # that the target may be overshot by rounding


def prune(
    model: keras.Model,
    images: Images,
    ratio: float,
    criterion: Criterion,
    of: Target,
    rounds: int,
    fine_tune: FineTune,
    seed: int = 0,
) -> tuple[keras.Model, list[FilterRank]]:
    """Remove filters in equal steps and train after each.

    Args:
        model: Trained; not changed.
        images: Up to 256 of the training images rank the filters.
        ratio: Share that is gone in the end, above 0 and below 1.
        criterion: "l1", "activation" or "taylor".
        of: What the ratio is a share of: "filters" or "multiply_adds".
        rounds: 1 removes all at once.
        fine_tune: Gets the smaller model, the number of the round, from 1, and by layer name which channels of the
            original's output it still has; trains it in place or returns another.
        seed: Of the choice of images.

    Returns:
        The smaller model, and one rank for each filter of the original that could go.

    Raises:
        ConversionError: the graph cannot be followed, or its scores are not finite.
        RecipeError: the ratio does not leave every layer an eighth of its filters.
    """
    graph = ChannelGraph(model)
    _require_reachable(graph, ratio, of)
    batches = training_batches(images, seed)
    found: dict[tuple[str, int], FilterRank] = {}
    smaller, places = model, [(node.layer.name, i) for node in graph.prunable() for i in range(node.kernel.shape[-1])]
    for number in range(1, rounds + 1):
        ranks = choose(smaller, batches, criterion, ratio * number / rounds, of, original=model)
        for place, rank in zip(places, ranks, strict=True):
            found[place] = replace(rank, index=place[1])
        places = [place for place, rank in zip(places, ranks, strict=True) if rank.kept]
        smaller = remove(smaller, ranks)
        kept = _kept(graph, found.values())
        channels = {name: left(node.after, kept) for name, node in graph.nodes.items()}
        trained = fine_tune(smaller, number, channels)
        smaller = smaller if trained is None else trained
    return smaller, list(found.values())


def check(model: keras.Model, ratio: float, of: Target) -> None:
    """Find out before long training whether the model can be pruned so far.

    Raises:
        ConversionError: the graph cannot be followed.
        RecipeError: the ratio does not leave every layer an eighth of its filters.
    """
    _require_reachable(ChannelGraph(model), ratio, of)


def training_batches(images: Images, seed: int) -> list[Batch]:
    """Input tensors and labels of up to 256 training images, the same for the same seed."""
    count = len(images.train)
    chosen = np.random.default_rng(seed).permutation(count)[:_RANKING_IMAGES]
    parts = [chosen[start : start + _BATCH_SIZE] for start in range(0, len(chosen), _BATCH_SIZE)]
    return [(to_tensor(images.train[part], images.contract), images.train_labels[part]) for part in parts]


def choose(
    model: keras.Model,
    batches: Sequence[Batch],
    criterion: Criterion,
    share: float,
    of: Target,
    original: keras.Model | None = None,
) -> list[FilterRank]:
    """Rank every filter and say which go.

    Args:
        model: Not changed.
        batches: Training tensors, shape (batch, height, width, channels), with their labels; "l1" does not read them.
        criterion: "l1": L1 norm of the filter; "activation": mean absolute activation of its channel; "taylor":
            absolute mean over positions of gradient times activation, averaged over images.
        share: Of the original's filters or multiply-adds that shall be gone.
        of: "filters" or "multiply_adds".
        original: The model before the first round; None: this one.

    Returns:
        For every layer in order of computation and every filter of it: its rank, the index that of `model`.

    Raises:
        ConversionError: the graph cannot be followed, or its scores are not finite.
        RecipeError: the share does not leave every layer an eighth of its filters.

    Source: Molchanov et al. 2017 (arXiv:1611.06440); for the L1 norm Li et al. 2017 (arXiv:1608.08710).
    """
    graph = ChannelGraph(model)
    start = graph if original is None else ChannelGraph(original)
    price, target = _require_reachable(start, share, of)
    scores = _group_scores(graph, _SCORES[criterion](model, graph, batches))
    removed = _lowest(scores, price, start, graph.counts, target)
    gone = [set(np.argsort(s, kind="stable")[:count].tolist()) for s, count in zip(scores, removed, strict=True)]
    return [
        FilterRank(node.layer.name, index, criterion, float(score), index not in gone[node.after.group])
        for node in graph.prunable()
        for index, score in enumerate(scores[node.after.group])
    ]


def remove(model: keras.Model, ranks: Sequence[FilterRank]) -> keras.Model:
    """The model without the filters that are not kept.

    Args:
        model: Not changed.
        ranks: As `choose` returned them for this model. A channel goes when all filters that are tied to it go.

    Raises:
        ConversionError: the graph cannot be followed.
    """
    graph = ChannelGraph(model)
    return without(model, graph, _kept(graph, ranks))


def _kept(graph: ChannelGraph, ranks: Iterable[FilterRank]) -> list[np.ndarray]:
    """A bool per channel of every group."""
    kept = [np.full(count, group in graph.fixed) for group, count in enumerate(graph.counts)]
    for rank in ranks:
        kept[graph.nodes[rank.layer].after.group][rank.index] |= rank.kept
    return kept


def removed_ratio(ranks: Sequence[FilterRank]) -> float:
    """Share of the filters that are gone, 0 to 1."""
    return sum(not rank.kept for rank in ranks) / len(ranks)


def _floors(graph: ChannelGraph) -> np.ndarray:
    """The least number of channels of each group."""
    floors = -(-graph.counts // _LEAST_SHARE)
    fixed = list(graph.fixed)
    floors[fixed] = graph.counts[fixed]
    return floors


def _require_reachable(graph: ChannelGraph, share: float, of: Target) -> tuple[Price, float]:
    """The price of channels and what may be left of it."""
    price = graph.filters() if of == "filters" else graph.multiply_adds()
    whole = price.of(graph.counts)
    most = 1 - price.of(_floors(graph)) / whole if whole else 0.0
    if share > most:
        raise RecipeError(
            f"filters: a share of {of} that leaves every layer an eighth of its filters is required. "
            f"Received: {share:g}",
            f"At most {int(most * 1000) / 1000} of this model can go.",
        )
    return price, whole * (1 - share)


def _group_scores(graph: ChannelGraph, scores: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Comparable scores of the channels of every group, summed over tied filters."""
    sums = [np.zeros(count) for count in graph.counts]
    for name, values in scores.items():
        if not np.isfinite(values).all():
            raise ConversionError(
                f"filters: finite {name} weights and gradients are required. Received: NaN or infinity"
            )
        sums[graph.nodes[name].after.group] += values
    return [_comparable(values) for values in sums]


def _lowest(
    scores: list[np.ndarray], price: Price, start: ChannelGraph, counts: np.ndarray, target: float
) -> np.ndarray:
    """How many channels each group loses: blocks down to a multiple of eight first, single channels for the rest.

    What goes next is what counts least among the channels that its group has left. The price decides only when to
    stop: with scores divided by what a channel costs, the narrow residual trunks of MobileNetV2 are emptied first, and
    at half its multiply-adds it came back to 70 % on photographs of pets after four epochs, to 88 % without.
    """
    rising = [np.sort(values) for values in scores]
    removed = np.zeros_like(counts)
    floors, slack = _floors(start), _TOLERANCE * price.of(start.counts)
    for blocks in (True, False):
        while (current := price.of(counts - removed)) > target:
            now = counts - removed
            sizes = np.where(blocks & (start.counts >= _ROUNDED_FROM), (now - 1) % _MULTIPLE + 1, 1)
            saved = price.saved(now, sizes)
            fits = (now - sizes >= floors) & (saved > 0)
            if blocks:
                fits &= current - saved >= target - slack
            if not fits.any():
                break
            lost = [
                _comparable(values[gone:])[:size].mean() if fit else np.inf
                for values, gone, size, fit in zip(rising, removed, sizes, fits, strict=True)
            ]
            group = int(np.argmin(lost))
            removed[group] += sizes[group]
    return removed


def _comparable(scores: np.ndarray) -> np.ndarray:
    """Scores of one group divided by their L2 norm, so that layers can be compared."""
    return np.asarray(scores / max(float(np.linalg.norm(scores)), np.finfo(float).tiny))


def _l1(model: keras.Model, graph: ChannelGraph, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    return {
        node.layer.name: np.abs(node.kernel.numpy()).reshape(-1, node.kernel.shape[-1]).sum(axis=0)
        for node in graph.prunable()
    }


def _activation(model: keras.Model, graph: ChannelGraph, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    nodes = list(graph.prunable())
    probe = _probe(model, graph, nodes)

    def measure(tensor: np.ndarray, labels: np.ndarray) -> list[tf.Tensor]:
        *activations, _ = probe(tensor, training=False)
        return [_mean_over_positions(tf.abs(activation)) for activation in activations]

    return _averaged(nodes, measure, batches)


def _taylor(model: keras.Model, graph: ChannelGraph, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    nodes = list(graph.prunable())
    probe = _probe(model, graph, nodes)
    is_single = model.output_shape[-1] == 1
    loss_of = label_loss(is_single, gives_logits(model))

    def measure(tensor: np.ndarray, labels: np.ndarray) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            *activations, output = probe(tensor, training=False)
            loss = loss_of(labels[:, np.newaxis] if is_single else labels, output) * len(labels)
        gradients = tape.gradient(loss, activations)
        return [tf.abs(_mean_over_positions(g * a)) for g, a in zip(gradients, activations, strict=True)]

    return _averaged(nodes, measure, batches)


_SCORES = {"l1": _l1, "activation": _activation, "taylor": _taylor}


def _probe(model: keras.Model, graph: ChannelGraph, nodes: Sequence[Node]) -> keras.Model:
    """The model with the channels of every node as further outputs before its own."""
    return keras.Model(model.inputs, [*(graph.observed(node.layer.name) for node in nodes), model.output])


def _mean_over_positions(tensor: tf.Tensor) -> tf.Tensor:
    """Shape (batch, ..., channels) to (batch, channels)."""
    return tf.reduce_mean(tensor, axis=range(1, tensor.shape.rank - 1))


def _averaged(
    nodes: Sequence[Node],
    measure: Callable[[np.ndarray, np.ndarray], list[tf.Tensor]],
    batches: Sequence[Batch],
) -> dict[str, np.ndarray]:
    """Mean over all images of what is measured in each of a batch, by layer."""
    sums = [np.zeros(node.layer.output_shape[-1]) for node in nodes]
    for tensor, labels in batches:
        for total, values in zip(sums, measure(tensor, labels), strict=True):
            total += values.numpy().sum(axis=0)
    count = sum(len(labels) for _, labels in batches)
    return {node.layer.name: total / count for node, total in zip(nodes, sums, strict=True)}
