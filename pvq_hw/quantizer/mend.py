"""What can be mended about plain codes: scales between layers, and biases.

By calibration inputs where there are some, else by inputs drawn from the range that the model
carries, over which values are taken as uniform and independent. With them

- a unit's (or channel's) scale moves through ReLU and poolings into the next layer's columns
  (cross-layer equalization, after Nagel et al., Data-Free Quantization, ICCV 2019, section 4.1), so
  that an error of one step costs the same in every column; the row it comes from pays nothing,
  since every row has its own gain;
- each bias takes up what rounding the weights changes on average (section 4.2): the integer network
  runs beside the float model as the layers are made (`pvq_hw.quantizer.layerwise`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.model.activation import LINEAR
from pvq_hw.model.model import AveragePool, MaxPool, Model, Node
from pvq_hw.model.nodes import Window
from pvq_hw.quantizer.autodiff import Tape, node_groups
from pvq_hw.quantizer.fused import Step

__all__ = ["drawn_inputs", "equalized"]

FloatArray = npt.NDArray[np.float64]
Ranges = dict[str, tuple[float, float]]

_MOST = 16.0  # by how much a unit's scale may differ from the mean one
_FRAMES = 1000
_CHUNK = 100
_SIGMAS = 4.0


def drawn_inputs(model: Model, seed: int) -> FloatArray:
    """Inputs (1000, \\*shape) that are uniform over the range of the model's input, or over 0..1
    where it carries none."""
    low, high = model.ranges.get(model.input_name, (0.0, 1.0))
    drawn = np.random.default_rng(seed).random((_FRAMES, *model.shape))
    return np.asarray(low + (high - low) * drawn)


@dataclass(frozen=True, eq=False)
class _Spread:
    """Mean and mean square of a tensor's channels, (C,) each."""

    mean: FloatArray
    square: FloatArray

    @property
    def root(self) -> FloatArray:
        """Root of the mean square."""
        return np.sqrt(self.square)

    @property
    def tops(self) -> FloatArray:
        """What nearly all values of a channel stay below."""
        deviation = np.sqrt(np.maximum(self.square - np.square(self.mean), 0))
        return np.asarray(self.mean + _SIGMAS * deviation)


def equalized(
    steps: tuple[Step, ...], x: npt.NDArray[Any], ranges: Mapping[str, tuple[float, float]]
) -> tuple[tuple[Step, ...], Ranges]:
    """The same float network with equal scales between layers, and the ranges there.

    Only where a layer with weights and ReLU, which lets positive factors pass, is followed by
    another layer with weights, with nothing but poolings between them and nothing else that reads
    what is there; not through Clip, not into depthwise or grouped convolutions, and not at the
    input.
    """
    pairs = {step.name: found for step in steps if (found := _followed(step, steps)) is not None}
    spreads = _spreads(steps, x, {tensors[-1] for tensors, _ in pairs.values()})
    result, ranges = {step.name: step for step in steps}, dict(ranges)
    for name, (tensors, after) in pairs.items():
        spread = spreads[tensors[-1]]
        channels = len(spread.mean)
        columns = result[after].weight.reshape(-1, channels)
        used = (spread.root > 0) & np.asarray(columns != 0).any(axis=0)
        if not used.any():
            continue
        middle = float(exact.exp(exact.log(spread.root[used]).mean()))
        scale = np.where(used, np.clip(spread.root / middle, 1 / _MOST, _MOST), 1.0)
        result[name] = replace(result[name], node=_smaller(result[name].node, scale))
        result[after] = replace(result[after], node=_larger(result[after].node, scale))
        before, now = float(spread.tops.max()), float((spread.tops / scale).max())
        for tensor in tensors:
            if tensor in ranges and before > 0:
                low, high = ranges[tensor]
                ranges[tensor] = (low * now / before, high * now / before)
    return tuple(result.values()), ranges


def _followed(step: Step, steps: tuple[Step, ...]) -> tuple[list[str], str] | None:
    """The tensors between a step and the layer with weights that alone reads what it gives, and
    that layer's name; None where scales cannot move."""
    if not step.weighted or not step.activation.is_relu:
        return None
    tensors, channels = [step.output], len(step.weight)
    while True:
        readers = [other for other in steps if tensors[-1] in other.inputs]
        if len(readers) != 1:
            return None
        reader = readers[0]
        if isinstance(reader.node, Window) and reader.node.input_shape[2] != channels:
            return None  # read as another shape
        if reader.weighted:
            return (tensors, reader.name) if node_groups(reader.node) == 1 else None
        scales = reader.activation == LINEAR or reader.activation.is_relu
        if not isinstance(reader.node, MaxPool | AveragePool) or not scales:
            return None
        tensors.append(reader.output)


def _spreads(steps: tuple[Step, ...], x: npt.NDArray[Any], tensors: set[str]) -> dict[str, _Spread]:
    """How far the tensors' channels spread, over at most 1,000 frames."""
    tape = Tape(steps, steps[0].inputs[0])
    x = x[:: max(1, len(x) // _FRAMES)][:_FRAMES].astype(np.float32)
    sums: dict[str, tuple[FloatArray, FloatArray]] = {}
    counts: dict[str, int] = {}
    for start in range(0, len(x), _CHUNK):
        values = tape.forward(x[start : start + _CHUNK])
        for name in tensors:
            flat = values[name].reshape(-1, values[name].shape[-1]).astype(np.float64)
            parts = flat.sum(axis=0), np.square(flat).sum(axis=0)
            old = sums.get(name, (np.zeros(1), np.zeros(1)))
            sums[name] = old[0] + parts[0], old[1] + parts[1]
            counts[name] = counts.get(name, 0) + len(flat)
    return {n: _Spread(mean / counts[n], square / counts[n]) for n, (mean, square) in sums.items()}


def _smaller(node: Node, scale: FloatArray) -> Node:
    """The node with its outputs divided by ``scale``."""
    return node.with_weights(node.matrix / scale[:, None], node.biases / scale)


def _larger(node: Node, scale: FloatArray) -> Node:
    """The node with its columns multiplied by their channels' ``scale``."""
    by = np.tile(scale, node.matrix.shape[1] // len(scale))
    return node.with_weights(node.matrix * by, node.biases)
