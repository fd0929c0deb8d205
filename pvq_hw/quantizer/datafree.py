"""What can be mended without calibration data: scales between layers, and biases.

The mean and the spread of every activation are guessed from the input's range alone (or measured,
where there are inputs): sums of many independent inputs are taken as normal, and go through ReLU by
its moments. With them

- a unit's scale moves through ReLU into the next layer's column (cross-layer equalization, after
  Nagel et al., Data-Free Quantization, ICCV 2019, section 4.1), so that an error of one step costs
  the same in every column; the row it comes from pays nothing, since every row has its own gain;
- each bias takes up what rounding the weights changes on average (section 4.2).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.model.activation import Activation
from pvq_hw.model.model import Dense
from pvq_hw.quantizer.emit import Codes
from pvq_hw.quantizer.fused import Step

__all__ = ["Spread", "corrected", "equalized", "spreads"]

FloatArray = npt.NDArray[np.float64]
Ranges = dict[str, tuple[float, float]]

_MOST = 16.0  # by how much a unit's scale may differ from the mean one
_FRAMES = 1000
_SIGMAS = 4.0
_ERF = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and variance of the inputs of a layer, (N,) each."""

    mean: FloatArray
    variance: FloatArray

    @property
    def root(self) -> FloatArray:
        """Root of the mean square, (N,)."""
        return np.sqrt(np.square(self.mean) + self.variance)

    @property
    def top(self) -> float:
        """What nearly all values stay below."""
        return float((self.mean + _SIGMAS * np.sqrt(self.variance)).max(initial=0.0))


def spreads(
    stages: tuple[Step, ...], x: FloatArray | None, low: float, high: float
) -> list[Spread]:
    """Of every layer's inputs.

    Parameters
    ----------
    x : float64 array (frames, N), optional
        Inputs, of which 1,000 are run through the float layers.
    low, high : float
        The input's range, over which values are taken as uniform, where there are no inputs.
    """
    if x is not None:
        return _measured(stages, x[:: max(1, len(x) // _FRAMES)][:_FRAMES])
    n = stages[0].weight.shape[1]
    now = Spread(np.full(n, (low + high) / 2), np.full(n, (high - low) ** 2 / 12))
    found = []
    for stage in stages:
        found.append(now)
        weight = stage.weight
        mean = exact.product(weight, now.mean) + stage.bias
        variance = exact.product(np.square(weight), now.variance)
        now = _activated(stage.activation, mean, variance)
    return found


def _measured(stages: tuple[Step, ...], x: FloatArray) -> list[Spread]:
    found = []
    for stage in stages:
        found.append(Spread(x.mean(axis=0), x.var(axis=0)))
        x = exact.sums(x, stage.weight, stage.bias, np.float64)
        x = stage.activation.compute(x)
    return found


def _activated(activation: Activation, mean: FloatArray, variance: FloatArray) -> Spread:
    """Moments behind an activation, of normal sums."""
    if activation.bounded:
        return _rectified(mean, variance, activation.high)
    return Spread(mean, variance)


def _rectified(mean: FloatArray, variance: FloatArray, high: float) -> Spread:
    """Moments of ``max(z, 0)`` of a normal z; cut to ``high`` where they exceed it."""
    sigma = np.sqrt(np.maximum(variance, 1e-24))
    at = mean / sigma
    above = (1 + _ERF(at / math.sqrt(2))) / 2
    density = exact.exp(-np.square(at) / 2) / math.sqrt(2 * math.pi)
    first = mean * above + sigma * density
    second = (np.square(mean) + variance) * above + mean * sigma * density
    first = np.clip(first, 0, high)
    return Spread(first, np.clip(second - np.square(first), 0, high**2))


def equalized(
    stages: tuple[Step, ...], found: list[Spread], ranges: Mapping[str, tuple[float, float]]
) -> tuple[tuple[Step, ...], list[Spread], Ranges]:
    """The same float network with equal scales between layers, the spreads and ranges there.

    Only through ReLU, which lets positive factors pass; not through Clip, and not at the input.
    """
    stages, found, ranges = tuple(stages), list(found), dict(ranges)
    result = list(stages)
    for i, (stage, after) in enumerate(pairwise(stages)):
        if not stage.activation.is_relu:
            continue
        now = found[i + 1]
        used = (now.root > 0) & np.asarray(after.weight != 0).any(axis=0)
        if not used.any():
            continue
        middle = float(exact.exp(exact.log(now.root[used]).mean()))
        scale = np.where(used, np.clip(now.root / middle, 1 / _MOST, _MOST), 1.0)
        first, second = result[i].node, result[i + 1].node
        assert isinstance(first, Dense)
        assert isinstance(second, Dense)
        result[i] = replace(
            result[i],
            node=replace(first, weight=first.weight / scale[:, None], bias=first.bias / scale),
        )
        result[i + 1] = replace(result[i + 1], node=replace(second, weight=second.weight * scale))
        found[i + 1] = Spread(now.mean / scale, now.variance / np.square(scale))
        if stage.output in ranges and now.top > 0:
            low, high = ranges[stage.output]
            part = found[i + 1].top / now.top
            ranges[stage.output] = (low * part, high * part)
    return tuple(result), found, ranges


def corrected(
    stages: tuple[Step, ...], codes: list[Codes], found: list[Spread], measured: bool
) -> list[Codes]:
    """The codes, with biases that give every sum the float model's mean.

    On the quantized network's own inputs: where there are calibration inputs (``measured``) those
    decide, when the integer layers are made; else the guess goes through the quantized layers too.
    """
    now, result = found[0], []
    for stage, code, exactly in zip(stages, codes, found, strict=True):
        mean = exact.product(stage.weight, exactly.mean) + stage.bias
        weight = code.real()
        bias = mean - exact.product(weight, now.mean)
        result.append(replace(code, bias=bias, means=mean if measured else None))
        variance = exact.product(np.square(weight), now.variance)
        now = _activated(stage.activation, mean, variance)
    return result
