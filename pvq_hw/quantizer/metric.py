"""How much an error of a network's outputs matters."""

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact

__all__ = ["Metric", "temperature_of"]

FloatArray = npt.NDArray[np.float32]

_TEMPERATURE = 0.6  # of the standard deviation of a frame's outputs


class Metric:
    """Weighs an output error v (frames, C): ``sum_c p_c (v_c - 0.95 <p, v>)^2``.

    p is the float model's softmax at ``temperature``, mixed with a uniform ``floor``: what is
    nearly certain not to win matters little, and what all outputs share hardly at all. With fewer
    than 3 outputs they are values, not classes, and the squares are just averaged.
    """

    def __init__(self, outputs: FloatArray, temperature: float, floor: float = 0.1) -> None:
        count = outputs.shape[1]
        self.shared = np.float32(0.95 if count > 2 else 0.0)
        scaled = (outputs - outputs.max(axis=1, keepdims=True)) / temperature
        p = exact.exp(scaled)
        p /= p.sum(axis=1, keepdims=True)
        if count < 3:
            p[:] = 1 / count
        self.p = ((1 - floor) * p + floor / count).astype(np.float32)
        self.root = np.sqrt(self.p)

    def weigh(self, v: FloatArray) -> FloatArray:
        """(frames, C) -> (frames, C), whose squares add up to the error."""
        common = (self.p * v).sum(axis=1, keepdims=True)
        return np.asarray(self.root * (v - self.shared * common))

    def weigh_back(self, u: FloatArray) -> FloatArray:
        """Adjoint of `weigh`: what weighed outputs' derivatives u are by the outputs themselves."""
        v = self.root * u
        return np.asarray(v - self.shared * self.p * v.sum(axis=1, keepdims=True))


def temperature_of(outputs: FloatArray) -> float:
    """Of the softmax that weighs outputs (frames, C): it must not depend on their unit."""
    spread = outputs - outputs.mean(axis=1, keepdims=True)
    return max(_TEMPERATURE * float(spread.std(dtype=np.float64)), 1e-12)
