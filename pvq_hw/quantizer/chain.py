"""Chains of dense layers, as the steps that are quantized together."""

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.model.model import Clip, Dense, Model, Node, Relu, Sign
from pvq_hw.quantizer.fused import Step, network_steps

__all__ = ["dense_stages", "is_dense_chain", "refuse_signs_of_zero"]


def dense_stages(model: Model) -> tuple[Step, ...]:
    """The steps of a chain of Dense nodes, each with Relu and Clip or with Sign after it.

    Raises InputError, by node, for anything else, and for weights that are not finite.
    """
    if not model.nodes:
        raise InputError("A model must have at least one dense layer to quantize")
    tensor = model.input_name
    before: Node | None = None
    for node in model.nodes:
        if isinstance(node, Sign) and isinstance(before, Relu | Clip):
            raise InputError(
                f"Layer {node.name!r} must not take a sign after Relu or Clip, "
                "which would always be +1"
            )
        follows = isinstance(before, Dense | Relu | Clip)
        if isinstance(node, Sign):
            follows = isinstance(before, Dense)
        fits = isinstance(node, Dense) or (isinstance(node, Relu | Clip | Sign) and follows)
        if not fits or node.inputs != (tensor,):
            raise InputError(
                f"Layer {node.name!r} must be a dense layer (with Relu, Clip or Sign after it) of "
                f"a chain, not {type(node).__name__} of {', '.join(node.inputs)}"
            )
        before, tensor = node, node.output
    return network_steps(model)


def is_dense_chain(model: Model) -> bool:
    """Whether the model is nothing but dense layers in a row, each with its activation."""
    tensor = model.input_name
    for node in model.nodes:
        if not isinstance(node, Dense | Relu | Clip | Sign) or node.inputs != (tensor,):
            return False
        tensor = node.output
    return isinstance(model.nodes[0], Dense)


def refuse_signs_of_zero(model: Model, x: npt.NDArray[np.float64]) -> None:
    """Raises InputError, by node, where a Sign reads a sum of exactly 0 in a frame of ``x``: its
    sign is 0, which one bit doesn't hold."""
    signs = {node.inputs[0]: node for node in model.nodes if isinstance(node, Sign)}
    if not signs:
        return
    for node, out in model.steps(x):
        if node.output in signs and not out.all():
            frame, unit = np.argwhere(out.reshape(len(out), -1) == 0)[0]
            raise InputError(
                f"Layer {signs[node.output].name!r} must not take the sign of 0, which is 0 and "
                f"not -1 or +1: output {unit} of layer {node.name!r} is exactly 0 in calibration "
                f"frame {frame}; give the layer biases that rule it out, 0.5 where weights and "
                "inputs are whole numbers"
            )
