"""Format and scale of a network's input, or of each of several."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.inputs import channels_last
from pvq_hw.model.model import Model, Part
from pvq_hw.network.layer import TensorSpec
from pvq_hw.quantizer.fused import rounded_input, rounded_tensor
from pvq_hw.quantizer.scales import input_spec

__all__ = ["Source", "model_source"]


@dataclass(frozen=True)
class Source:
    """What a network takes.

    Parameters
    ----------
    spec : TensorSpec
        Of several inputs with the largest of their scales.
    parts : mapping of tensor name to TensorSpec
        Of several inputs, in order; all in the format of ``spec``. Empty for one.
    """

    spec: TensorSpec
    parts: Mapping[str, TensorSpec]

    def unit(self) -> float | npt.NDArray[np.float64]:
        """What 1 stands for: a scale, or of several inputs one for each value of a frame."""
        if not self.parts:
            return self.spec.scale
        found = self.parts.values()
        return np.repeat([t.scale for t in found], [t.size for t in found])


def model_source(
    model: Model, bits: int, data: npt.NDArray[Any] | None, input_scale: float
) -> Source:
    """Format and scale of the input: the model's own, where it rounds it. Several inputs share a
    format, signed where one of them must be, and have a scale each."""
    name, shape = model.input_name, model.shape
    rounding = rounded_input(model)
    if rounding is not None:
        fmt = IntFormat.between(rounding.low, rounding.high)
        return Source(TensorSpec(name, shape, fmt, rounding.scale), {})
    if not model.inputs:
        return Source(input_spec(name, shape, bits, data, input_scale, model.ranges), {})
    flat = None if data is None else channels_last(model.inputs, data.reshape(len(data), -1))
    takers = [n for n in model.consumers(name) if isinstance(n, Part)]
    nodes = sorted(takers, key=lambda n: n.start)
    roundings = {node.output: rounded_tensor(model, node.output) for node in nodes}

    def part(node: Part, signed: bool) -> TensorSpec:
        some = None if flat is None else flat[:, node.start : node.start + node.size]
        return input_spec(
            node.output, node.shape, bits, some, input_scale, model.ranges, signed=signed
        )

    free = [node for node in nodes if roundings[node.output] is None]
    given = [found for found in roundings.values() if found is not None]
    signed = any(found.low < 0 for found in given) or any(
        part(n, False).format.signed for n in free
    )
    wide = [bits_for(min(found.low, -1 if signed else 0), found.high) for found in given]
    fmt = IntFormat(max([bits if free else 0, *wide]), signed)
    parts = {}
    for node in nodes:
        found = roundings[node.output]
        spec = part(node, signed) if found is None else TensorSpec(
            node.output, node.shape, fmt, found.scale
        )  # fmt: skip
        parts[node.output] = replace(spec, format=fmt)
    largest = max(spec.scale for spec in parts.values())
    return Source(TensorSpec(name, shape, fmt, largest), parts)
