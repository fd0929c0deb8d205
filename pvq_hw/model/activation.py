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

__all__ = ["LINEAR", "Activation", "activation_of"]

_KINDS = ("linear", "bounds", "sign")


@dataclass(frozen=True)
class Activation:
    """What becomes of a layer's sums before anything else reads them.

    Parameters
    ----------
    kind : str
        ``"linear"``: nothing but the upper bound; ``"bounds"``: from 0 to ``high``; ``"sign"``:
        -1 or +1.
    high : float
        Upper bound, infinite for none.

    Raises
    ------
    InputError
        For a kind that isn't known, or a bound that isn't one.
    """

    kind: str = "linear"
    high: float = np.inf

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(f"An activation must be {', '.join(_KINDS)}, not {self.kind!r}")
        if not self.high > 0 or (self.binary and np.isfinite(self.high)):
            raise InputError(f"An activation of kind {self.kind!r} must not end at {self.high:g}")

    @property
    def bounded(self) -> bool:
        """Whether values below 0 become 0."""
        return self.kind == "bounds"

    @property
    def binary(self) -> bool:
        """Whether there are two values only."""
        return self.kind == "sign"

    @property
    def is_relu(self) -> bool:
        """Whether it commutes with every positive factor, and is not linear."""
        return self.bounded and not np.isfinite(self.high)

    def then(self, after: "Activation") -> "Activation":
        """This one followed by another, where neither is a sign, as one."""
        kind = "bounds" if self.bounded or after.bounded else "linear"
        return Activation(kind, min(self.high, after.high))

    def compute(self, z: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values of the sums ``z``, of the same type. 0 counts as positive: models in which that
        matters are refused."""
        if self.binary:
            return np.where(z < 0, -1, 1).astype(z.dtype)
        high = z.dtype.type(self.high)
        if self.bounded:
            return np.clip(z, 0, high)
        return np.minimum(z, high) if np.isfinite(self.high) else z

    def passes(self, z: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where a small change of the sums (frames, ...) changes the values; of signs, where sums
        are below their median magnitude, for the slope of a line instead of a step."""
        if self.binary:
            return np.asarray(np.abs(z) <= np.median(np.abs(z), axis=0), dtype=np.bool_)
        return (z > 0) & (z < self.high) if self.bounded else z < self.high

    def format(self, bits: int, signed: bool = True) -> IntFormat:
        """Format of the output: 1 bit of a sign, unsigned from 0; else ``signed`` says whether
        values below 0 occur."""
        if self.binary:
            return IntFormat(1, True)
        return IntFormat(bits, bits == 1 or (signed and not self.bounded))

    def largest_scale(self, fmt: IntFormat) -> float:
        """The largest scale of an output of this format, whose saturation is the upper bound;
        infinite where there is none."""
        return self.high / fmt.max


LINEAR = Activation()


def activation_of(node: Node) -> Activation | None:
    """The activation that a node of the float model is; None where it is another operation.

    Raises
    ------
    InputError
        For bounds that do not begin at 0: the importers make tables of those.
    """
    if isinstance(node, Relu):
        return Activation("bounds")
    if isinstance(node, Sign):
        return Activation("sign")
    if not isinstance(node, Clip):
        return None
    if node.low != 0 or not node.high > 0:
        raise InputError(
            f"Layer {node.name!r} must clip from exactly 0 upwards, not from {node.low:g} to "
            f"{node.high:g}: activations after it are stored unsigned, from 0"
        )
    return Activation("bounds", float(node.high))
