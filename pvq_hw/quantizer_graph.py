"""What is quantized together: each dense node with the activation function after it."""

from dataclasses import dataclass

import numpy as np

from pvq_hw.errors import InputError
from pvq_hw.model import Clip, Dense, Model, Relu, Sign

__all__ = ["Stage", "clip_bound", "dense_stages", "is_dense_chain"]


@dataclass(frozen=True, eq=False)
class Stage:
    """A dense node and its activation function, which the output's integer format carries out.

    Parameters
    ----------
    node : Dense
    input, output : str
        Tensors read and given (the activation's output where there is one).
    relu : bool
        Whether the output is at least 0.
    high : float
        What the output saturates at; infinite for ReLU.
    last : bool
        Whether this is the network's output.
    sign : bool
        Whether the output is the sign of the sum, -1 or +1.
    """

    node: Dense
    input: str
    output: str
    relu: bool
    high: float
    last: bool
    sign: bool = False

    @property
    def name(self) -> str:
        """The layer's name: the dense node's."""
        return self.node.name


def dense_stages(model: Model) -> tuple[Stage, ...]:
    """The stages of a chain of Dense nodes, each with Relu and Clip or with Sign after it.

    Raises InputError, by node, for anything else, and for weights that are not finite.
    """
    stages: list[Stage] = []
    tensor = model.input_name
    nodes = list(model.nodes)
    while nodes:
        node = nodes.pop(0)
        if not isinstance(node, Dense) or node.inputs != (tensor,):
            raise InputError(
                f"Layer {node.name!r} must be a dense layer (with Relu, Clip or Sign after it) of "
                f"a chain, not {type(node).__name__} of {', '.join(node.inputs)}"
            )
        if not (np.isfinite(node.weight).all() and np.isfinite(node.bias).all()):
            raise InputError(f"Layer {node.name!r} must have finite weights, but holds NaN or inf")
        tensor, relu, high = node.output, False, np.inf
        while nodes and isinstance(nodes[0], Relu | Clip) and nodes[0].inputs == (tensor,):
            after = nodes.pop(0)
            if isinstance(after, Clip):
                high = min(high, clip_bound(after))
            relu, tensor = True, after.output
        sign = bool(nodes) and isinstance(nodes[0], Sign) and nodes[0].inputs == (tensor,)
        if sign:
            after = nodes.pop(0)
            if relu:
                raise InputError(
                    f"Layer {after.name!r} must not take a sign after Relu or Clip, "
                    "which would always be +1"
                )
            tensor = after.output
        stages.append(Stage(node, node.inputs[0], tensor, relu, high, not nodes, sign))
    if not stages:
        raise InputError("A model must have at least one dense layer to quantize")
    return tuple(stages)


def clip_bound(node: Clip) -> float:
    """What a Clip saturates at; InputError where its lower bound is not that of an activation."""
    if node.low != 0 or not node.high > 0:
        raise InputError(
            f"Layer {node.name!r} must clip from exactly 0 upwards, not from {node.low:g} to "
            f"{node.high:g}: activations after it are stored unsigned, from 0"
        )
    return float(node.high)


def is_dense_chain(model: Model) -> bool:
    """Whether the model is nothing but dense layers in a row, each with its activation."""
    tensor = model.input_name
    for node in model.nodes:
        if not isinstance(node, Dense | Relu | Clip | Sign) or node.inputs != (tensor,):
            return False
        tensor = node.output
    return isinstance(model.nodes[0], Dense)
