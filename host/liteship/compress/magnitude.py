"""Magnitude pruning: the smallest weights become zero on a schedule while training goes on.

The gain is in the compressed size; a dense kernel multiplies zeros as it multiplies anything. `latency` pruning is the
same on 1x1 convolutions alone, for files that XNNPACK's sparse kernels run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from liteship.errors import ConversionError, RecipeError
from liteship.images import Images
from liteship.progress import Reporter
from liteship.recipe import CompressSettings
from liteship.train import Fit, Teacher, fit, freeze_batch_norm

_FIRST_SPARSITY_SHARE = 0.4
_MASK_UPDATES = 16


def prune(
    model: keras.Model,
    images: Images,
    settings: CompressSettings,
    sparsity: float,
    plan: Fit,
    folder: Path,
    say: Reporter,
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Prune to a final sparsity over the first two thirds of the epochs, then train on with the masks fixed.

    Args:
        model: Trained; not changed.
        images: Both splits.
        settings: Which layers, how the sparsity rises, and whether features of the model are learned.
        sparsity: Share of zeros at the end, above 0 and below 1, of every layer that settings do not say otherwise.
        plan: Epochs, batch size and learning rate.
        folder: For the state of an unfinished run.
        say: Progress.

    Returns:
        The stripped model with the weights of the best epoch at final sparsity, and the history.

    Raises:
        RecipeError: a pattern matches no layer, or the network is none that sparse kernels run.
        ConversionError: a layer that pruning does not know.

    Source: Zhu and Gupta 2017, polynomial sparsity schedule, as implemented by tfmot PolynomialDecay.
    """
    steps_per_epoch = -(-len(images.train) // plan.batch_size)
    steps = plan.epochs * steps_per_epoch
    frequency = max(1, steps * 2 // 3 // _MASK_UPDATES)
    end_step = max(frequency, steps * 2 // 3 // frequency * frequency)
    schedules = {
        name: _schedule(settings.ramp, target, end_step, frequency)
        for name, target in layer_sparsities(model, settings, sparsity).items()
    }
    wrapped = wrap(model, schedules)
    say.say(f"{plan.name}: {model.count_params():,} parameters, {wrapped.count_params():,} with masks")
    for layer in wrapped.layers:
        layer.trainable = True
    freeze_batch_norm(wrapped, settings.batch_norm == "frozen")
    teacher = Teacher(model, settings.distill) if settings.distill else None
    plan = replace(plan, first_eligible_epoch=-(-end_step // steps_per_epoch))
    history = fit(wrapped, images, plan, folder, say, [tfmot.sparsity.keras.UpdatePruningStep()], teacher)
    return tfmot.sparsity.keras.strip_pruning(wrapped), history


def layer_sparsities(model: keras.Model, settings: CompressSettings, sparsity: float) -> dict[str, float]:
    """The final sparsity of every prunable layer by name, 0 for those that are spared.

    Raises:
        RecipeError: a pattern matches none of them, or `latency` pruning of a network that sparse kernels do not run.
    """
    prunable = [layer for layer in model.layers if _is_prunable(layer)]
    if settings.pruning == "latency":
        _require_sparse_network(model)
        prunable = [layer for layer in prunable if getattr(layer, "kernel_size", None) == (1, 1)]
    names = [layer.name for layer in prunable]
    if not names:
        raise ConversionError(
            f"{settings.pruning} pruning: a convolution or dense layer is required. Received: {model.name} without.",
            "Depthwise and separable convolutions are not pruned by magnitude.",
        )
    targets = dict.fromkeys(names, sparsity)
    for end, name in (("first", names[0]), ("last", names[-1])):
        if end in settings.spare:
            targets[name] = 0.0
    for pattern, target in settings.layers.items():
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise RecipeError(
                f"compress.layers: a pattern that matches a prunable layer is required. Received: {pattern}.",
                f"Layers: {', '.join(names)}.",
            )
        targets.update(dict.fromkeys(matching, target))
    return targets


def wrap(model: keras.Model, schedules: Mapping[str, Any | None]) -> keras.Model:
    """A copy of the model with a mask and its schedule around every layer.

    Args:
        model: Not changed.
        schedules: By name of the prunable layers; None leaves a layer whole.

    Raises:
        ConversionError: a layer with weights that tfmot does not know.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        copy = layer.__class__.from_config(layer.get_config())
        schedule = schedules.get(layer.name, tfmot.sparsity.keras.ConstantSparsity(0.0, 0))
        if schedule is None or isinstance(layer, keras.layers.InputLayer):
            return copy
        try:
            return tfmot.sparsity.keras.prune_low_magnitude(copy, pruning_schedule=schedule)
        except ValueError as exc:
            if not layer.weights:
                return copy
            raise ConversionError(
                f"Layers that pruning knows are required. Received: {layer.name} ({type(layer).__name__})."
            ) from exc

    wrapped = keras.models.clone_model(model, clone_function=clone)
    for layer in wrapped.layers:
        inner = getattr(layer, "layer", layer)
        source = model.get_layer(inner.name)
        for variable, value in zip(inner.weights[: len(source.weights)], source.get_weights(), strict=True):
            variable.assign(value)
    return wrapped


def _schedule(ramp: str, target: float, end_step: int, frequency: int) -> Any | None:
    if target == 0:
        return None
    if ramp == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(target, begin_step=0, end_step=end_step, frequency=frequency)
    return tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=target * _FIRST_SPARSITY_SHARE,
        final_sparsity=target,
        begin_step=0,
        end_step=end_step,
        frequency=frequency,
    )


def _is_prunable(layer: keras.layers.Layer) -> bool:
    """Convolutions and dense layers; depthwise ones have too few weights."""
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    return isinstance(layer, kinds) and not isinstance(layer, keras.layers.DepthwiseConv2D)


def _require_sparse_network(model: keras.Model) -> None:
    try:
        tfmot.sparsity.keras.PruneForLatencyOnXNNPack().ensure_model_supports_pruning(model)
    except ValueError as exc:
        raise RecipeError(
            f'pruning = "latency": a network that XNNPACK\'s sparse kernels run is required. Received: {model.name}: '
            f"{' '.join(str(exc).split())[:200]}",
            'Take architecture = "mobilenet_v2_sparse".',
        ) from exc


def zero_weights(model: keras.Model) -> int:
    """Zeros in all prunable kernels."""
    return sum(int(np.count_nonzero(layer.kernel.numpy() == 0)) for layer in model.layers if _is_prunable(layer))
