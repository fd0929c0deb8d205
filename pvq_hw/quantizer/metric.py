"""How much an error of a network's outputs matters."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.model.nodes import Outputs
from pvq_hw.quantizer.fused import Step

__all__ = ["Metric", "PartMetric", "output_metric", "reconstructs", "temperature_of"]

FloatArray = npt.NDArray[np.float32]

_TEMPERATURE = 0.6  # of the standard deviation of a frame's outputs


class Metric:
    """Weighs an output error v (frames, C): ``sum_c p_c (v_c - 0.95 <p, v>)^2``.

    p is the float model's softmax at ``temperature``, mixed with a uniform ``floor``: what is
    nearly certain not to win matters little, and what all outputs share hardly at all. ``values``,
    and fewer than 3 outputs, are no scores of classes: the squares are just averaged.
    """

    def __init__(
        self,
        outputs: FloatArray,
        temperature: float,
        floor: float = 0.1,
        *,
        values: bool = False,
    ) -> None:
        count = outputs.shape[1]
        values = values or count < 3
        self.shared = np.float32(0.0 if values else 0.95)
        scaled = (outputs - outputs.max(axis=1, keepdims=True)) / temperature
        p = exact.exp(scaled)
        p /= p.sum(axis=1, keepdims=True)
        if values:
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
    """The temperature of the softmax that weighs outputs (frames, C); their unit has no effect on
    the weights."""
    spread = outputs - outputs.mean(axis=1, keepdims=True)
    return max(_TEMPERATURE * float(spread.std(dtype=np.float64)), 1e-12)


class PartMetric:
    """`Metric` of a network whose outputs have ``parts`` with units of their own: that of each by
    itself, in parts of its deviation, so that none is lost beside a larger one.

    Parameters
    ----------
    outputs : float array (frames, C)
    parts : sequence of slice
        Places of each part among the C outputs.
    scales : sequence of float
        Deviation of each part.
    temperatures : sequence of float
        In that unit.
    """

    def __init__(
        self, outputs: FloatArray, parts: Sequence[slice], scales: Sequence[float],
        temperatures: Sequence[float],
    ) -> None:  # fmt: skip
        self.parts = list(zip(parts, map(np.float32, scales), strict=True))
        both = zip(self.parts, temperatures, strict=True)
        self.metrics = [Metric(outputs[:, part] / by, t) for (part, by), t in both]

    def weigh(self, v: FloatArray) -> FloatArray:
        """Weighs outputs, see `Metric.weigh`."""
        return self._each("weigh", v)

    def weigh_back(self, u: FloatArray) -> FloatArray:
        """Takes gradients back, see `Metric.weigh_back`."""
        return self._each("weigh_back", u)

    def _each(self, what: str, v: FloatArray) -> FloatArray:
        pairs = zip(self.metrics, self.parts, strict=True)
        found = [getattr(m, what)(v[:, part] / by) for m, (part, by) in pairs]
        return np.concatenate(found, axis=1)


def reconstructs(last: Step, inputs: FloatArray) -> bool:
    """Whether a network gives as many values as it reads, as autoencoders and filters do, which are
    no scores of classes; by its last step and its inputs (frames, ...)."""
    return not isinstance(last.node, Outputs) and last.node.size == inputs[0].size


def output_metric(
    last: Step, outputs: FloatArray, inputs: FloatArray
) -> Callable[[FloatArray], Metric | PartMetric]:
    """What weighs errors of a network's outputs, by its last step and these outputs of some
    inputs, (frames, C) and (frames, ...); the unit, and of several outputs that of each, has no
    effect."""
    if not isinstance(last.node, Outputs):
        temperature, values = temperature_of(outputs), reconstructs(last, inputs)
        return lambda some: Metric(some, temperature, values=values)
    parts = last.node.parts
    split = [outputs[:, part] for part in parts]
    scales = [float(part.std(axis=0, dtype=np.float64).max()) or 1.0 for part in split]
    temperatures = [temperature_of(part / s) for part, s in zip(split, scales, strict=True)]
    return lambda some: PartMetric(some, parts, scales, temperatures)
