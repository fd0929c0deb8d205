"""What is quantized together in a network of any shape: each node with the activation after it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.model.model import (
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Dense,
    Function,
    MaxPool,
    Model,
    Node,
    Relu,
    Sign,
)

__all__ = ["Step", "network_steps", "weight_matrix"]

FloatArray = npt.NDArray[np.float64]

_FUSED = (Dense, Conv, Affine, Add, AveragePool, Concat)
_ALONE = (MaxPool, Relu, Clip, Function)


@dataclass(frozen=True, eq=False)
class Step:
    """A node and its activation function, which the output's integer format carries out.

    Parameters
    ----------
    node : Node
    inputs : tuple of str
    output : str
        The activation's tensor where there is one.
    relu : bool
        Whether the output is at least 0.
    high : float
        What the output saturates at; infinite for ReLU.
    last : bool
        Whether this is the network's output.
    sign : bool
        Whether the output is the sign of the sum, -1 or +1.
    """

    node: Node
    inputs: tuple[str, ...]
    output: str
    relu: bool
    high: float
    last: bool
    sign: bool = False

    @property
    def name(self) -> str:
        """The layer's name: the node's."""
        return self.node.name

    @property
    def weighted(self) -> bool:
        """Whether the layer has weights."""
        return isinstance(self.node, Dense | Conv | Affine)

    @property
    def weight(self) -> FloatArray:
        """Weights of a weighted step, (M, N), as the layer's rows read them."""
        return weight_matrix(self.node)

    @property
    def bias(self) -> FloatArray:
        """Biases of a weighted step, (M,)."""
        assert isinstance(self.node, Affine | Conv | Dense)
        return self.node.offset if isinstance(self.node, Affine) else self.node.bias


def weight_matrix(node: Node) -> FloatArray:
    """A weighted node's weights, (M, N), as the layer's rows read them."""
    if isinstance(node, Conv):
        return node.rows
    if isinstance(node, Affine):
        return node.scale.reshape(-1, 1)
    assert isinstance(node, Dense)
    return node.weight


def network_steps(model: Model) -> tuple[Step, ...]:
    """The steps of a model, in order; raises InputError, by node, for what cannot be done."""
    steps: list[Step] = []
    fused: set[str] = set()
    for node in model.nodes:
        if node.name in fused and isinstance(node, Relu | Clip | Sign):
            continue
        if not isinstance(node, (*_FUSED, *_ALONE)):
            raise InputError(f"Layer {node.name!r} must be of a known kind, not {node.op}")
        _check_weights(node)
        relu, high, tensor = isinstance(node, Relu | Clip), np.inf, node.output
        if isinstance(node, Clip):
            high = clip_bound(node)
        while isinstance(node, _FUSED):
            after = model.consumers(tensor)
            if len(after) != 1 or not isinstance(after[0], Relu | Clip):
                break
            if isinstance(after[0], Clip):
                high = min(high, clip_bound(after[0]))
            relu, tensor = True, after[0].output
            fused.add(after[0].name)
        sign = None if relu else _sign_after(node, model)
        if sign is not None:
            tensor = sign.output
            fused.add(sign.name)
        last = tensor == model.output
        steps.append(Step(node, node.inputs, tensor, relu, high, last, sign is not None))
    if not any(step.weighted for step in steps):
        raise InputError("A model must have at least one layer with weights to quantize")
    return tuple(steps)


def _sign_after(node: Node, model: Model) -> Sign | None:
    """The sign that a dense layer's output goes into, and nothing else."""
    after = model.consumers(node.output)
    if isinstance(node, Dense) and len(after) == 1 and isinstance(after[0], Sign):
        return after[0]
    return None


def _check_weights(node: Node) -> None:
    arrays = [a for a in vars(node).values() if isinstance(a, np.ndarray)]
    if not all(np.isfinite(a).all() for a in arrays):
        raise InputError(f"Layer {node.name!r} must have finite weights, but holds NaN or inf")


def clip_bound(node: Clip) -> float:
    """What a Clip saturates at; InputError where its lower bound is not that of an activation."""
    if node.low != 0 or not node.high > 0:
        raise InputError(
            f"Layer {node.name!r} must clip from exactly 0 upwards, not from {node.low:g} to "
            f"{node.high:g}: activations after it are stored unsigned, from 0"
        )
    return float(node.high)
