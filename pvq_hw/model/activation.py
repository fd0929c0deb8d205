"""Activation functions that a layer carries out itself, by what its output saturates at.

All other functions of one value are tables; see `pvq_hw.model.curve`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.model.nodes import Clip, Node, Relu, Sign

__all__ = ["LINEAR", "Activation", "activation_of", "saturates"]

_KINDS = ("linear", "bounds", "sign")


@dataclass(frozen=True)
class Activation:
    """What becomes of a layer's sums before anything else reads them.

    Parameters
    ----------
    kind : str
        ``"linear"``: nothing but ``low`` and ``high``; ``"bounds"``: from 0 to ``high``;
        ``"sign"``: -1 or +1.
    high : float
        Upper bound, above 0, infinite for none.
    low : float
        Lower bound of the linear kind, below 0, minus infinity for none.

    Raises
    ------
    InputError
        For a kind that isn't known, or a bound that isn't one.
    """

    kind: str = "linear"
    high: float = np.inf
    low: float = -np.inf

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(f"An activation must be {', '.join(_KINDS)}, not {self.kind!r}")
        if not self.high > 0 or (self.binary and np.isfinite(self.high)):
            raise InputError(f"An activation of kind {self.kind!r} must not end at {self.high:g}")
        if not self.low < 0 or (self.kind != "linear" and np.isfinite(self.low)):
            raise InputError(f"An activation of kind {self.kind!r} must not begin at {self.low:g}")

    @property
    def bounded(self) -> bool:
        """Whether values below 0 become 0."""
        return self.kind == "bounds"

    @property
    def binary(self) -> bool:
        """Whether there are two values only."""
        return self.kind == "sign"

    @property
    def ends(self) -> tuple[float, float]:
        """Least and largest value, infinite where there is none."""
        return (0.0 if self.bounded else self.low), self.high

    @property
    def is_relu(self) -> bool:
        """Whether it commutes with every positive factor, and is not linear."""
        return self.bounded and not np.isfinite(self.high)

    def then(self, after: "Activation") -> "Activation":
        """This one followed by another, where neither is a sign, as one."""
        kind = "bounds" if self.bounded or after.bounded else "linear"
        low = -np.inf if kind == "bounds" else max(self.low, after.low)
        return Activation(kind, min(self.high, after.high), low)

    def compute(self, z: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values of the sums ``z``, of the same type. 0 counts as positive: models in which that
        matters are refused."""
        if self.binary:
            return np.where(z < 0, -1, 1).astype(z.dtype)
        low, high = (z.dtype.type(bound) for bound in self.ends)
        return np.clip(z, low, high) if np.isfinite([low, high]).any() else z

    def passes(self, z: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where a small change of the sums (frames, ...) changes the values; of signs, where sums
        are below their median magnitude, for the slope of a line instead of a step."""
        if self.binary:
            return np.asarray(np.abs(z) <= np.median(np.abs(z), axis=0), dtype=np.bool_)
        low, high = self.ends
        return (z > low) & (z < high)

    def format(self, bits: int, signed: bool = True) -> IntFormat:
        """Format of the output: 1 bit of a sign, unsigned from 0; else ``signed`` says whether
        values below 0 occur."""
        if self.binary:
            return IntFormat(1, True)
        return IntFormat(bits, bits == 1 or (signed and not self.bounded))

    def largest_scale(self, fmt: IntFormat) -> float:
        """The largest scale of an output of this format that its values ask for; infinite where
        they have no end."""
        if fmt.signed and not np.isfinite(self.low):
            return np.inf
        return max(self.high / fmt.max, self.low / fmt.min if fmt.signed else 0.0)

    def within(self, fmt: IntFormat, scale: float) -> IntFormat:
        """The format whose saturation is the bounds, rounded, at a scale of ``largest_scale`` or
        less. From 0 the width's saturation is the upper bound."""
        low, high = (np.rint(np.clip(b / scale, *fmt.limits)) for b in (self.low, self.high))
        if self.bounded or self.binary or (low, high) == fmt.limits:
            return fmt
        return IntFormat(fmt.bits, fmt.signed, int(low), int(high))


LINEAR = Activation()


def activation_of(node: Node) -> Activation | None:
    """The activation that a node of the float model is; None where it is another operation.

    Raises
    ------
    InputError
        For bounds that 0 is not within: the importers make tables of those.
    """
    if isinstance(node, Relu):
        return Activation("bounds")
    if isinstance(node, Sign):
        return Activation("sign")
    if not isinstance(node, Clip):
        return None
    if not saturates(node):
        raise InputError(
            f"Layer {node.name!r} must clip from 0 or less upwards, not from {node.low:g} to "
            f"{node.high:g}: what saturates does so around 0"
        )
    if node.low == 0:
        return Activation("bounds", float(node.high))
    return Activation("linear", float(node.high), float(node.low))


def saturates(node: Clip) -> bool:
    """Whether a layer's own saturation computes the node: its bounds have 0 between them."""
    return node.low <= 0 < node.high
