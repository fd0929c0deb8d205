"""Ways to multiply: DSP blocks of a family, shift and add, constants as adders, or not at all."""

from dataclasses import dataclass

from pvq_hw.registry import Values

__all__ = ["MULTIPLIERS", "Multiplier", "multiplier_for", "multiplier_named"]


@dataclass(frozen=True)
class Multiplier:
    """A way to multiply by the unsigned multipliers of rows, or of units without weights.

    Parameters
    ----------
    name : str
    bits : int
        Width of the signed operand that it takes whole; a wider one is cut where it has blocks.
    mult_bits : int
        Bits of the widest unsigned multiplier.
    blocks : bool
        Whether it is DSP blocks.
    plenty : bool
        Whether devices have so many of them that lanes leave some to the requantizer.
    paced : bool
        Whether products take turns: one starts every so many cycles, and takes as many as a
        multiplier has bits.
    wired : bool
        Whether each is for one row, whose multiplier is adders: signed digits of a constant.
    stored : bool
        Whether there are multipliers: none where they are all 1.
    for_rows, for_units : bool
        Whether it requantizes the rows of cores, and the results of units without weights.
    lane_bits : int
        Of 8-bit weights: bits of the widest unsigned activation of a lane; 0 where no lane has it.
    lanes : int
        Of these, how many a block has.
    lane_delay : int
        Cycles from a lane's operands to its product; 0 where they follow from their bits.
    """

    name: str
    bits: int
    mult_bits: int
    blocks: bool = False
    plenty: bool = False
    paced: bool = False
    wired: bool = False
    stored: bool = True
    for_rows: bool = True
    for_units: bool = False
    lane_bits: int = 0
    lanes: int = 0
    lane_delay: int = 0

    def widest(self, bits: int) -> int:
        """Bits of multipliers that cost nothing beside ``bits``; one more where each costs."""
        return bits if not self.stored else self.mult_bits if self.blocks else bits + 1

    def parts(self, bits: int) -> int:
        """DSP blocks that a signed operand of so many bits is cut into; 0 without blocks."""
        return max(1, -(-(bits - 1) // (self.bits - 1))) if self.blocks else 0


MULTIPLIERS: Values[Multiplier] = Values("multiplier")
"""Every way to multiply. Its faces: ``delay`` (`pvq_hw.engine.core`) and ``circuit``
(`gateware.arith.requantizer`), of those for rows."""

MULTIPLIERS.add(
    Multiplier(
        "mult18",
        18,
        17,
        blocks=True,
        plenty=True,
        for_units=True,
        lane_bits=16,
        lanes=1,
        lane_delay=4,
    )
)
MULTIPLIERS.add(
    Multiplier("mac16", 16, 16, blocks=True, for_units=True, lane_bits=8, lanes=2, lane_delay=2)
)
MULTIPLIERS.add(Multiplier("serial", 48, 32, paced=True))
MULTIPLIERS.add(Multiplier("wires", 48, 32, wired=True))
MULTIPLIERS.add(Multiplier("none", 48, 1, stored=False))
MULTIPLIERS.add(Multiplier("logic", 64, 64, for_rows=False, for_units=True, lane_bits=16))


def multiplier_named(name: str) -> Multiplier:
    """The way of that name; raises InputError with the known ones."""
    return MULTIPLIERS.named(name)


def multiplier_for(name: str, bits: int) -> str:
    """``name``, or ``"serial"`` where multipliers of so many bits are too wide for it."""
    return name if bits <= multiplier_named(name).mult_bits else "serial"
