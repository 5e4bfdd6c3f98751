"""Magnitude pruning: the smallest weights become zero on a schedule while training goes on.

The gain is in the compressed size; a dense kernel multiplies zeros as it multiplies anything.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from liteship.images import Images
from liteship.progress import Reporter
from liteship.train import Fit, fit, freeze_batch_norm

_FIRST_SPARSITY_SHARE = 0.4
_MASK_UPDATES = 16


def prune(
    model: keras.Model, images: Images, sparsity: float, plan: Fit, folder: Path, say: Reporter
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Prune to a final sparsity over the first two thirds of the epochs, then train on with the masks fixed.

    Args:
        model: Trained; not changed.
        images: Both splits.
        sparsity: Share of zeros in every prunable kernel at the end, above 0 and below 1.
        plan: Epochs, batch size and learning rate.
        folder: For the state of an unfinished run.
        say: Progress.

    Returns:
        The stripped model with the weights of the best epoch at final sparsity, and the history.

    Source: Zhu and Gupta 2017, polynomial sparsity schedule, as implemented by tfmot PolynomialDecay.
    """
    steps = plan.epochs * -(-len(images.train) // plan.batch_size)
    frequency = max(1, steps * 2 // 3 // _MASK_UPDATES)
    end_step = max(frequency, steps * 2 // 3 // frequency * frequency)
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=sparsity * _FIRST_SPARSITY_SHARE,
        final_sparsity=sparsity,
        begin_step=0,
        end_step=end_step,
        frequency=frequency,
    )
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(_copy(model), pruning_schedule=schedule)
    freeze_batch_norm(wrapped, False)  # weights that vanish change the statistics of all that follows
    steps_per_epoch = steps // plan.epochs
    plan = replace(plan, first_eligible_epoch=-(-end_step // steps_per_epoch))
    history = fit(wrapped, images, plan, folder, say, [tfmot.sparsity.keras.UpdatePruningStep()])
    return tfmot.sparsity.keras.strip_pruning(wrapped), history


def _copy(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def kernel_sparsity(model: keras.Model) -> float:
    """Share of zeros over all convolution and dense kernels, depthwise ones not counted: they are never pruned."""
    kernels = [
        layer.kernel.numpy()
        for layer in model.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
        and not isinstance(layer, keras.layers.DepthwiseConv2D)
    ]
    zeros = sum(int(np.count_nonzero(kernel == 0)) for kernel in kernels)
    return float(zeros / sum(kernel.size for kernel in kernels))
