"""A layer without weights from outside the packages, file 1 of 4: the float node, its operator."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pvq_hw.model.nodes import NODES, FloatArray, Node
from pvq_hw.model.onnx.lowering import Lowering, Op, handles
from pvq_hw.quantizer.autodiff import forward, gradient
from pvq_hw.quantizer.value_range import divided


@NODES.kind
@dataclass(frozen=True, eq=False)
class RunningSumNode(Node):
    """Every activation is the sum of those up to it."""

    op: ClassVar[str] = "CumSum"
    alone: ClassVar[bool] = True

    def compute(self, *x: FloatArray) -> FloatArray:
        """(frames, n) -> (frames, n)."""
        return np.cumsum(x[0].reshape(len(x[0]), -1), axis=1)


@handles("CumSum")
def lower(low: Lowering, op: Op) -> None:
    """Along the activations of a frame."""
    x = low.view(op)
    if len(x.shape) != 2 or int(low.need_constant(op, 1, "axes")) != 1:
        op.refuse("must run along the activations of a frame")
    low.put_same(op, low.emit(op, RunningSumNode, (x.tensor,), (x.shape[1],)), x)


@forward.of(RunningSumNode)
def _forward(node: RunningSumNode, inputs: list) -> np.ndarray:
    return node.compute(*inputs).astype(np.float32)


@gradient.of(RunningSumNode)
def _gradient(node: RunningSumNode, inputs: list, g: np.ndarray) -> list:
    return [np.cumsum(g[:, ::-1], axis=1)[:, ::-1]]


@divided.of(RunningSumNode)
def _divided(node: RunningSumNode, read: int, given: int) -> RunningSumNode:
    return node
