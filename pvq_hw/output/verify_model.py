"""Checks of an output's numbers against the model that it was compiled from.

Weights, gains and multipliers follow from the model and the codes. Scales and biases that were
fitted to calibration data do not: without data, what they can be is bounded; with data like it,
they must suit that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import is_threshold
from pvq_hw.model.model import Function, Model
from pvq_hw.network.layer import TensorSpec, Weighted
from pvq_hw.network.network import Network
from pvq_hw.network.table import Table
from pvq_hw.output.verify_content import Finding
from pvq_hw.quantizer.fused import Step, network_steps, rounded_tensor
from pvq_hw.quantizer.layerwise import joining_multipliers
from pvq_hw.quantizer.requantization import (
    FILE_JOIN_BITS,
    MULT_BITS,
    feasible_scale,
    int8_codes,
    requantization,
    thresholds,
)
from pvq_hw.quantizer.scales import range_scale
from pvq_hw.quantizer.tables import table_entries

__all__ = ["check_numbers", "is_bounded_only", "is_equalized", "weighted_steps"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_MOST = 20  # findings of one kind
_HEADROOM = 1.5  # of the final output's range over the largest value seen
_DRIFT = 1.0  # of the inputs' range: how far integer activations may be from the float ones, mean
_COARSE_DRIFT = 4.0  # where activations have so few values that most are cut
_FILE = "network/network.json"
_SCALE = "has a scale that the model does not give"


def is_equalized(network: Network) -> bool:
    """Whether units have other scales than in the model, so that biases and scales do not follow
    from it."""
    return network.meta.get("mend") in ("scales", "both")


def is_bounded_only(network: Network) -> bool:
    """Whether biases were fitted to data, or guessed, so that the model gives only a bound."""
    meta = network.meta
    fitted = meta.get("quantizer") == "calibrated" and bool(meta.get("calibration_frames"))
    return fitted or meta.get("mend", "none") != "none"


@dataclass(frozen=True, eq=False)
class Weights:
    """A layer with weights beside the step of the model that it stands for."""

    layer: Weighted
    step: Step
    x: TensorSpec
    placed: bool = False
    """Whether its shift is that of a circuit which was there before its weights."""

    @property
    def k(self) -> IntArray:
        """Sums of magnitudes by row and group, (M, G)."""
        return np.asarray(np.abs(self.layer.y).reshape(*self.layer.gain.shape, -1).sum(axis=2))

    @property
    def original(self) -> FloatArray:
        """The model's weights, (M, N)."""
        return np.asarray(self.step.weight, dtype=np.float64)

    @property
    def real(self) -> FloatArray:
        """The weights that the codes stand for, (M, N)."""
        size = self.layer.y.shape[1] // self.layer.gain.shape[1]
        return np.asarray(self.layer.y * np.repeat(self.layer.gain, size, axis=1))

    @property
    def reach(self) -> float:
        """Largest magnitude of an input."""
        return self.x.scale * self.x.format.max_abs

    @property
    def is_coarse(self) -> bool:
        """Whether the inputs have so few values that their mean is far from the float model's."""
        return self.x.format.bits < 6

    @property
    def is_threshold(self) -> bool:
        """Whether the bias stands in units of the sum."""
        return is_threshold(self.layer)


def weighted_steps(model: Model, network: Network) -> Iterator[Weights]:
    """The layers with weights, each with its step of the model."""
    steps = {step.name: step for step in network_steps(model)}
    tensors, placed = network.tensors(), network.meta.get("placed") or ()
    for layer in network.weighted:
        fixed = layer.name in placed
        yield Weights(layer, steps[layer.name], tensors[layer.input], fixed)


def check_numbers(model: Model, network: Network) -> list[Finding]:
    """Biases, shifts, 8-bit weights, multipliers of sums and means, and scales: what is not as
    the model, or the network's own scales, say."""
    findings = _joins(network) + _tables(model, network) + _bounds(model, network)
    if is_equalized(network):
        return findings
    ranged = not network.meta.get("calibration_frames")
    for _, spec in network.taken():
        rounding = rounded_tensor(model, spec.name)
        known = rounding.scale if rounding else _range(model, spec.name, spec)
        if (ranged or rounding) and spec.scale != known:
            findings.append(Finding(_FILE, "input", _SCALE))
    for part in weighted_steps(model, network):
        place = f"layer {part.layer.name!r}"
        findings += _biases(part, is_bounded_only(network), place)
        if part.layer.encoding == "int8":
            findings += _int8(part, place)
        if not part.layer.output.format.binary:
            findings += _scale(model, part, ranged, place)
    return findings


def _range(model: Model, tensor: str, spec: TensorSpec) -> float | None:
    """The scale that the model's own range of a tensor gives; None where it has none."""
    if tensor not in model.ranges:
        return None
    low, high = model.ranges[tensor]
    return range_scale(float(low), float(high), spec.format)


def _scale(model: Model, part: Weights, ranged: bool, place: str) -> list[Finding]:
    """The scale of the model's own range; or one that the layer's sums can ask for."""
    output, step = part.layer.output, part.step
    if part.placed:
        return []  # what the circuit asks for, or what it had for the weights before
    if step.format is not None:
        given = (output.format, output.scale) == (step.format, step.scale)
        return [] if given else [Finding(_FILE, place, _SCALE)]
    least = feasible_scale(part.layer.gain, part.x.scale, 0.0)
    clip = step.activation.largest_scale(output.format)
    if ranged:
        known = _range(model, step.output, output)
        fits = known is not None and output.scale == max(least, min(known, clip))
    else:
        bias = np.maximum(np.abs(step.bias), np.abs(_real_bias(part)))
        sums = np.abs(part.real).sum(axis=1) * part.reach + bias
        most = 2 * _HEADROOM * float(sums.max(initial=0.0)) / output.format.max
        # Outputs that are all 0 on the data have the scale 1, or what they clip at.
        fits = output.scale in (1.0, least, clip) or output.scale <= min(
            most, 1.01 * max(least, clip)
        )
    return [] if fits else [Finding(_FILE, place, _SCALE)]


def _biases(part: Weights, bounded: bool, place: str) -> list[Finding]:
    """Biases as integers: the model's own, or within what quantization may have moved them by.

    A fitted bias makes up for the mean of ``w x - rho y x'``: x' are the integer network's
    inputs, x the float model's, which differ from x' by little on average.
    """
    layer = part.layer
    original = part.step.bias
    room = np.zeros(len(original))
    if bounded:
        rounding = np.abs(part.original - part.real).sum(axis=1)
        drift = _COARSE_DRIFT if part.is_coarse else _DRIFT
        room = (rounding + drift * np.abs(part.real).sum(axis=1)) * part.reach + layer.output.scale
    low, high = (_integers(part, original + side * room) for side in (-1, 1))
    if low.shift != layer.shift:
        return [Finding(_FILE, place, "has a shift that is not its gains'")]
    wrong = np.flatnonzero((layer.bias < low.bias - 1) | (layer.bias > high.bias + 1))
    text = "has a bias beyond what quantization can make of the model's"
    return [Finding(_FILE, f"{place} row {row}", text) for row in wrong[:_MOST]]


def _integers(part: Weights, bias: FloatArray) -> Any:
    layer, x = part.layer, part.x
    if part.is_threshold:
        most = part.k[:, 0] * x.format.max_abs
        return thresholds(layer.gain[:, 0] * x.scale, bias, most)
    out = layer.output
    return requantization(
        layer.gain, bias, part.k, x.format, x.scale, out.format, out.scale, part.step.mult_bits,
        layer.shift if part.placed else None,
    )  # fmt: skip


def _int8(part: Weights, place: str) -> list[Finding]:
    y, gain = int8_codes(part.original)
    if np.array_equal(y, part.layer.y) and np.array_equal(gain, part.layer.gain):
        return []
    return [Finding(_FILE, place, "has 8-bit weights that are not the model's")]


def _real_bias(part: Weights) -> FloatArray:
    layer = part.layer
    return np.asarray(layer.bias * (layer.output.scale / 2.0**layer.shift), dtype=np.float64)


def _joins(network: Network) -> list[Finding]:
    """Multipliers of sums, concatenations and means: the largest that hold the scales' ratios."""
    findings = []
    tensors = network.tensors()
    for layer in network.layers:
        pairs = layer.scaling(*(tensors[name] for name in layer.inputs))
        if not pairs:
            continue
        ratios, found = [ratio for ratio, _ in pairs], tuple(mult for _, mult in pairs)
        wanted = [joining_multipliers(ratios, bits) for bits in (MULT_BITS, FILE_JOIN_BITS)]
        if (found, getattr(layer, "shift", None)) not in wanted:
            text = "has multipliers that are not its scales'"
            findings.append(Finding(_FILE, f"layer {layer.name!r}", text))
    return findings


def _bounds(model: Model, network: Network) -> list[Finding]:
    """What activations saturate at: the model's bounds, rounded."""
    steps, findings = {step.name: step for step in network_steps(model)}, []
    for layer in network.layers:
        step, output = steps.get(layer.name), layer.output
        if step is None or step.format is not None or step.node.keeps:
            continue
        width = IntFormat(output.format.bits, output.format.signed)
        if step.activation.within(width, output.scale) != output.format:
            text = "saturates elsewhere than the model"
            findings.append(Finding(_FILE, f"layer {layer.name!r}", text))
    return findings


def _tables(model: Model, network: Network) -> list[Finding]:
    """Entries: the model's functions on the lattices of what the tables read and give."""
    curves = {node.name: node.curve for node in model.nodes if isinstance(node, Function)}
    tensors, findings = network.tensors(), []
    for layer in network.layers:
        if not isinstance(layer, Table):
            continue
        place = f"layer {layer.name!r}"
        if layer.name not in curves:
            findings.append(Finding(_FILE, place, "has a table, but no function in the model"))
            continue
        wanted = table_entries(curves[layer.name], tensors[layer.input], layer.output)
        if wanted.shape != layer.entries.shape:
            findings.append(Finding(_FILE, place, "has tables of another number than channels"))
            continue
        for row, column in np.argwhere(wanted != layer.entries)[:_MOST]:
            text = f"is {layer.entries[row, column]}, but the function's is {wanted[row, column]}"
            where = f"{place} table {row} entry {column + layer.x.limits[0]}"
            findings.append(Finding(_FILE, where, text))
    return findings
