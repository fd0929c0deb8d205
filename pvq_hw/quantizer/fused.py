"""What is quantized together in a network of any shape: each node with the activation after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.model.activation import LINEAR, Activation, activation_of
from pvq_hw.model.model import (
    Clip,
    Conv,
    Dense,
    Model,
    Node,
    Outputs,
    Quantize,
    Relu,
    Sign,
)
from pvq_hw.quantizer.requantization import FILE_BITS, FILE_JOIN_BITS, MULT_BITS

__all__ = ["Step", "network_steps", "rounded_input", "rounded_tensor"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Step:
    """A node and its activation function, which the output's integer format carries out.

    Parameters
    ----------
    node : Node
    inputs : tuple of str
    output : str
        The activation's tensor where there is one.
    activation : Activation
    last : bool
        Whether this is the network's output, or one of several that nothing else reads.
    part : bool
        Whether it is one of several outputs.
    format : IntFormat, optional
    scale : float
        Of the output, where the model says how it is rounded.
    """

    node: Node
    inputs: tuple[str, ...]
    output: str
    activation: Activation
    last: bool
    format: IntFormat | None = None
    scale: float = 0.0
    part: bool = False

    @property
    def name(self) -> str:
        """The layer's name: the node's."""
        return self.node.name

    @property
    def mult_bits(self) -> int:
        """Bits of the largest multiplier."""
        if self.format is None:
            return MULT_BITS
        return FILE_BITS if self.weighted else FILE_JOIN_BITS

    @property
    def weighted(self) -> bool:
        """Whether the layer has weights."""
        return self.node.weighted

    @property
    def weight(self) -> FloatArray:
        """Weights of a weighted step, (M, N), as the layer's rows read them."""
        return self.node.matrix

    @property
    def bias(self) -> FloatArray:
        """Biases of a weighted step, (M,)."""
        return self.node.biases


def network_steps(model: Model) -> tuple[Step, ...]:
    """The steps of a model, in order; raises InputError, by node, for what cannot be done."""
    steps: list[Step] = []
    fused: set[str] = set()
    rounded = rounded_input(model)
    first = rounded.output if rounded else ""
    known: dict[str, tuple[IntFormat, float]] = {}
    if rounded:
        known[first] = IntFormat.between(rounded.low, rounded.high), rounded.scale
    for node in model.nodes:
        if node is rounded or (node.name in fused and node.bound):
            continue
        if isinstance(node, Sign):
            raise InputError(_sign_refusal(node, model))
        if not node.fused and not node.alone:
            raise InputError(
                f"Layer {node.name!r} has no integer layer: its kind {node.op!r} is not known"
            )
        _check_weights(node)
        chain = _activations(node, model)
        tensor = chain[-1].output if chain else node.output
        fused.update(a.name for a in chain)
        bounding = [a for a in (node, *chain) if isinstance(a, Relu | Clip)]
        roundings = [a for a in (node, *chain) if isinstance(a, Quantize)]
        stays = node.keeps or isinstance(node, Relu)
        if not roundings and stays and node.inputs[0] in known:
            fmt, scale = known[node.inputs[0]]
            fmt = IntFormat.between(0, fmt.max) if isinstance(node, Relu) else fmt
        elif roundings:
            fmt, scale = _rounded_format(roundings, bounding), roundings[0].scale
        else:
            fmt, scale = None, 0.0
        if fmt is None:
            kinds = [found for a in bounding if (found := activation_of(a)) is not None]
            activation = reduce(Activation.then, kinds, LINEAR)
        else:
            activation = Activation("bounds" if fmt.min == 0 else "linear", fmt.max * scale)
            known[tensor] = fmt, scale
        sign = None if bounding or fmt else _sign_after(node, model)
        if sign is not None:
            activation, tensor = Activation("sign"), sign.output
            fused.add(sign.name)
        inputs = tuple(model.input_name if name == first else name for name in node.inputs)
        part = [type(reader) for reader in model.consumers(tensor)] == [Outputs]
        last = part or tensor == model.output
        steps.append(Step(node, inputs, tensor, activation, last, fmt, scale, part))
    if not any(step.weighted for step in steps):
        raise InputError("A model must have at least one layer with weights to quantize")
    return tuple(steps)


def rounded_input(model: Model) -> Quantize | None:
    """What rounds the model's input before all else reads it; None where nothing does."""
    return rounded_tensor(model, model.input_name)


def rounded_tensor(model: Model, tensor: str) -> Quantize | None:
    """What rounds a tensor before all else reads it; None where nothing does."""
    after = model.consumers(tensor)
    return after[0] if len(after) == 1 and isinstance(after[0], Quantize) else None


def _activations(node: Node, model: Model) -> list[Node]:
    """The activations after a node that its output's format carries out, in order: bounds, and
    where the model rounds, that."""
    chain: list[Node] = []
    rounding = node if isinstance(node, Quantize) else None
    if node.keeps:
        return chain
    while True:
        after = model.consumers(chain[-1].output if chain else node.output)
        if len(after) != 1:
            return chain
        following = after[0]
        if rounding is not None:  # what follows must leave the values where they are
            again = isinstance(following, Quantize) and following.scale == rounding.scale
            if not again and not isinstance(following, Relu):
                return chain
        elif isinstance(following, Quantize):
            rounding = following
        elif not (isinstance(following, Relu | Clip) and node.fused):
            return chain
        chain.append(following)


def _rounded_format(roundings: Sequence[Quantize], bounding: Sequence[Node]) -> IntFormat:
    """The integers of roundings to one scale, with bounds among them: rounding is monotonous, so
    the bounds are rounded too."""
    rounding = roundings[0]
    low, high = max(r.low for r in roundings), min(r.high for r in roundings)
    for node in bounding:
        bounds = (node.low, node.high) if isinstance(node, Clip) else (0.0, np.inf)
        least, most = np.rint(np.clip(np.array(bounds) / rounding.scale, rounding.low,
                                      rounding.high)).astype(np.int64)  # fmt: skip
        low, high = max(low, int(least)), min(high, int(most))
    if not low <= 0 <= high:
        raise InputError(
            f"Layer {rounding.name!r} must have activations around 0, not from "
            f"{low * rounding.scale:g} to {high * rounding.scale:g}"
        )
    return IntFormat.between(low, high)


def _sign_after(node: Node, model: Model) -> Sign | None:
    """The sign that a layer's output goes into, and nothing else."""
    after = model.consumers(node.output)
    if isinstance(node, Dense | Conv) and len(after) == 1 and isinstance(after[0], Sign):
        return after[0]
    return None


def _sign_refusal(sign: Sign, model: Model) -> str:
    """Why a sign cannot be carried out by the layer before it."""
    maker = next((node for node in model.nodes if node.output == sign.inputs[0]), None)
    if isinstance(maker, Relu | Clip):
        return (
            f"Layer {sign.name!r} must not take a sign after Relu or Clip, which would always be +1"
        )
    if isinstance(maker, Dense | Conv):
        return (
            f"Layer {sign.name!r} must be all that reads what {maker.name!r} gives: its output "
            "is one bit"
        )
    what = "the network's input" if maker is None else f"layer {maker.name!r} of kind {maker.op}"
    return f"Layer {sign.name!r} must take the sign of what weights give, not of {what}"


def _check_weights(node: Node) -> None:
    arrays = [a for a in vars(node).values() if isinstance(a, np.ndarray)]
    if not all(np.isfinite(a).all() for a in arrays):
        raise InputError(f"Layer {node.name!r} must have finite weights, but holds NaN or inf")
