"""A `pvq_hw.model.model.Model` computed by PyTorch, with gradients.

The steps are those that the quantizer works on: a node with the activation function after it. A
hook may replace the weights of a step (a straight-through layer) and what it gives (activations
on the lattice of their width).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.geometry import Geometry
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import (
    NODES,
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Dense,
    Function,
    MaxPool,
    Node,
    Part,
    Quantize,
    Relu,
    Window,
)
from pvq_hw.quantizer.fused import Step, network_steps
from pvq_hw.registry import Face
from pvq_hw.train.straight import fake_quantize
from pvq_hw.train.torch_extra import require_torch

__all__ = ["Graph", "torch_values"]

Tensor = Any  # torch.Tensor


class Graph:
    """Computes a model's steps on tensors (frames, \\*shape), channels last.

    Parameters
    ----------
    model : Model

    Attributes
    ----------
    steps : tuple of Step
    weight, bias : dict of step name to tensor
        float32 leaves that ask for gradients; weights are (M, N) as the layer's rows read them.
    """

    def __init__(self, model: Model) -> None:
        self._torch = require_torch()
        self.model = model
        self.steps: tuple[Step, ...] = network_steps(model)
        self.weight: dict[str, Tensor] = {}
        self.bias: dict[str, Tensor] = {}
        for step in self.steps:
            if step.weighted:
                self.weight[step.name] = self._leaf(step.weight)
                self.bias[step.name] = self._leaf(step.bias)

    def _leaf(self, array: npt.NDArray[Any]) -> Tensor:
        return self._torch.tensor(array.astype(np.float32), requires_grad=True)

    def tensor(self, array: npt.NDArray[Any]) -> Tensor:
        """An array as a tensor, of the same type."""
        return self._torch.from_numpy(np.ascontiguousarray(array))

    def outputs(self, x: Tensor) -> Tensor:
        """The model's own outputs (frames, n), without gradients."""
        with self._torch.no_grad():
            return self.run(x)

    def run(
        self,
        x: Tensor,
        weights: Callable[[Step], tuple[Tensor, Tensor]] | None = None,
        after: Callable[[Step, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The outputs (frames, n) for inputs (frames, \\*model.shape), float32.

        Parameters
        ----------
        x : tensor
        weights : function (step) -> (weight (M, N), bias (M,)), optional
            Instead of the graph's own.
        after : function (step, tensor) -> tensor, optional
            What becomes of a step's output.
        """
        values = {self.model.input_name: x}
        left = {n: sum(n in s.inputs for s in self.steps) for s in self.steps for n in s.inputs}
        out = x
        for step in self.steps:
            pair = None
            if step.weighted:
                pair = weights(step) if weights else (self.weight[step.name], self.bias[step.name])
            out = self._step(step, [values[name] for name in step.inputs], pair)
            if after:
                out = after(step, out)
            values[step.output] = out
            for name in set(step.inputs):
                left[name] -= 1
                if not left[name]:
                    del values[name]
        return out.reshape(len(out), -1)

    def _step(self, step: Step, x: list[Tensor], pair: tuple[Tensor, Tensor] | None) -> Tensor:
        if pair is not None:
            out = self._weighted(step.node, x[0], *pair)
        else:
            out = torch_values(step.node, self._torch, x)
        ends = step.activation.ends
        if step.activation.bounded or (step.format is None and any(map(math.isfinite, ends))):
            return out.relu() if step.activation.is_relu else out.clamp(*ends)
        return fake_quantize(out, 1.0, -1, 1) if step.activation.binary else out

    def _weighted(self, node: Node, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if isinstance(node, Dense):
            return self._torch.nn.functional.linear(x.reshape(len(x), -1), weight, bias)
        if isinstance(node, Affine):
            return x.reshape(len(x), *node.shape) * weight[:, 0] + bias
        assert isinstance(node, Conv)
        kernel = weight.reshape(len(weight), *node.kernel, -1).permute(0, 3, 1, 2)
        maps, g = _maps(x, node), node.geometry
        padded = _pad(self._torch, maps, g, 0.0)
        out = self._torch.nn.functional.conv2d(
            padded, kernel, bias, g.stride, 0, g.dilation, node.groups
        )
        return out.permute(0, 2, 3, 1)


torch_values: Face[[Any, list[Tensor]], Tensor] = NODES.face("PyTorch")
"""A node's values before its activation (frames, \\*shape), given the module ``torch`` and what it
reads; nodes with weights are the graph's own."""


@torch_values.of(MaxPool)
def _largest(node: MaxPool, torch: Any, x: list[Tensor]) -> Tensor:
    g, maps = node.geometry, _maps(x[0], node)
    padded = _pad(torch, maps, g, float("-inf"))
    return torch.nn.functional.max_pool2d(padded, g.kernel, g.stride).permute(0, 2, 3, 1)


@torch_values.of(AveragePool)
def _mean(node: AveragePool, torch: Any, x: list[Tensor]) -> Tensor:
    g, maps = node.geometry, _maps(x[0], node)
    padded = _pad(torch, maps, g, 0.0)
    out = torch.nn.functional.avg_pool2d(padded, g.kernel, g.stride, divisor_override=1)
    return out.permute(0, 2, 3, 1) / torch.tensor(node.counts(), dtype=maps.dtype)


@torch_values.of(Part)
def _part(node: Part, graph: Any, x: list[Tensor]) -> Tensor:
    whole = x[0].reshape(len(x[0]), -1, node.period)
    return whole[:, :, node.start : node.start + node.count].reshape(len(x[0]), *node.shape)


@torch_values.of(Concat)
def _side_by_side(node: Concat, torch: Any, x: list[Tensor]) -> Tensor:
    lead = (len(x[0]), *node.shape[:-1], -1)
    return torch.cat([a.reshape(lead) for a in x], -1)


@torch_values.of(Add)
def _sum(node: Add, torch: Any, x: list[Tensor]) -> Tensor:
    shape = (len(x[0]), *node.shape)
    return x[0].reshape(shape) + x[1].reshape(shape)


@torch_values.of(Relu)
def _relu(node: Relu, torch: Any, x: list[Tensor]) -> Tensor:
    return x[0].relu().reshape(len(x[0]), *node.shape)


@torch_values.of(Clip, Quantize)
def _unbounded(node: Node, torch: Any, x: list[Tensor]) -> Tensor:
    """Bounds are the step's activation."""
    return x[0].reshape(len(x[0]), *node.shape)


@torch_values.of(Function)
def _function(node: Function, torch: Any, x: list[Tensor]) -> Tensor:
    return _curve(torch, node, x[0].reshape(len(x[0]), *node.shape))


def _pad(torch: Any, maps: Tensor, g: Geometry, fill: float) -> Tensor:
    (top, bottom), (left, right) = g.pads
    if not any((top, bottom, left, right)):
        return maps
    return torch.nn.functional.pad(maps, (left, right, top, bottom), value=fill)


def _curve(torch: Any, node: Function, x: Tensor) -> Tensor:
    """A function of every value; its derivative is the curve's own."""

    class Through(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(context: Any, values: Tensor) -> Tensor:
            array = values.detach().numpy()
            context.slope = torch.from_numpy(node.curve.slope(array).astype(np.float32))
            return torch.from_numpy(node.curve(array).astype(np.float32))

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:
            return gradient * context.slope

    return Through.apply(x)


def _maps(x: Tensor, node: Window) -> Tensor:
    """(frames, ...) -> (frames, C, H, W)."""
    return x.reshape(len(x), *node.input_shape).permute(0, 3, 1, 2)
