"""Inputs of the golden vectors."""

import numpy as np
import numpy.typing as npt

from pvq_hw.network.network import Network

__all__ = ["golden_inputs"]

IntArray = npt.NDArray[np.int64]


def golden_inputs(network: Network, frames: int = 8, seed: int = 0) -> IntArray:
    """Inputs that reach the corners: zeros, extremes, ``|acc| = K * max|x|`` of the first row,
    then random ones. (frames, *input.shape)."""
    spec = network.input
    low, high = spec.format.min, spec.format.max
    rows = np.random.default_rng(seed).integers(low, high + 1, size=(max(frames, 1), spec.size))
    if spec.format.binary:
        rows = np.where(rows < 1, -1, 1)
    first = network.layers[0].weights
    extremes = [np.full(spec.size, spec.format.clamp(0)), np.full(spec.size, high)]
    extremes.append(np.full(spec.size, low))
    if first is not None and first.ndim == 2 and first.shape[1] == spec.size:
        extremes += [np.where(first[0] >= 0, high, low), np.where(first[0] >= 0, low, high)]
    for index, extreme in enumerate(extremes[:frames]):
        rows[index] = extreme
    return rows[:frames].reshape(-1, *spec.shape).astype(np.int64)
