"""From the output tensor to one probability per label."""

from __future__ import annotations

import numpy as np

from liteship_agent.manifest import OutputContract


def to_scores(output: np.ndarray, contract: OutputContract) -> np.ndarray:
    """Probabilities per label.

    Args:
        output: Shape (batch, units) in the contract's dtype; one unit for sigmoid.
        contract: How to read it.
    Returns:
        float32, shape (batch, labels); a sigmoid unit p becomes (1 - p, p), and logits get the sigmoid (one unit) or
        softmax that the model lacks.
    """
    real = output.reshape(output.shape[0], -1).astype(np.float32)
    if contract.scale is not None and contract.zero_point is not None:
        real = (real - np.float32(contract.zero_point)) * np.float32(contract.scale)
    if contract.activation == "logits":
        if real.shape[1] == 1:  # the sigmoid of x is the second of the softmax of (0, x)
            real = np.concatenate([np.zeros_like(real), real], axis=1)
        powers = np.exp(real - real.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
    if contract.activation == "sigmoid":
        return np.concatenate([1 - real, real], axis=1)
    return real
