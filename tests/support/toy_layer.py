"""A layer without weights from outside the packages, file 2 of 4: the layer on integers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from toy_node import RunningSumNode

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.network.layer import LAYERS, IntArray, TensorSpec, Unweighted
from pvq_hw.quantizer.layerwise import integer_layer


@LAYERS.kind
@dataclass(frozen=True, eq=False)
class RunningSum(Unweighted):
    """Sums of the integers up to each, exact: the output is as wide as the last may be."""

    kind: ClassVar[str] = "running_sum"

    name: str
    input: str
    output: TensorSpec

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input tensors."""
        return (self.input,)

    def compute(self, *x: IntArray) -> IntArray:
        """(frames, ...) -> (frames, n)."""
        return np.cumsum(x[0].reshape(len(x[0]), -1), axis=1)

    def verify(self, *inputs: TensorSpec) -> None:
        """Raises InputError unless nothing can overflow."""
        if self.output.format != wide(inputs[0].format, self.output.size):
            raise InputError(f"Layer {self.name!r} must hold its sums")


def wide(fmt: IntFormat, count: int) -> IntFormat:
    """The format of a sum of so many."""
    return IntFormat(fmt.bits + (count - 1).bit_length(), fmt.signed)


@integer_layer.of(RunningSumNode)
def _layer(node, builder, step, inputs, raw) -> RunningSum:
    x = inputs[0].spec
    output = TensorSpec(step.output, node.shape, wide(x.format, node.size), x.scale)
    return RunningSum(step.name, x.name, output)
