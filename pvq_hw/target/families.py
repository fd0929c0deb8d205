"""What the engine takes from a device family: latencies, carry chains, multipliers."""

from dataclasses import dataclass

from pvq_hw.registry import Values
from pvq_hw.target.architectures import architecture
from pvq_hw.target.multipliers import multiplier_named

__all__ = ["FAMILIES", "Family", "family"]


@dataclass(frozen=True)
class Family:
    """Engine parameters that suit a device family; every core states them in its own spec.

    Parameters
    ----------
    name : str
    blocks : str
        The architecture, one of `pvq_hw.target.architectures.ARCHITECTURES`, whose block RAMs
        it has.
    code_latency, bank_latency : int
        Cycles from address to data. On ECP5 2 uses the block RAM's output register, 3 registers
        the code word once more, behind the selector of a ROM that is cut in depth.
    carry_chunk : int
        Longest carry chain of accumulator and bias adder in bits; 0 for no limit.
    multiplier : str
        One of `pvq_hw.target.multipliers.MULTIPLIERS`: ``"mult18"`` (MULT18X18D), ``"mac16"``
        (SB_MAC16) or ``"serial"`` (no DSP block).
    logic_rows : int
        ROMs of multipliers and biases up to this depth become LUTs.
    """

    name: str
    blocks: str
    code_latency: int
    bank_latency: int
    carry_chunk: int
    multiplier: str
    logic_rows: int

    @property
    def blocks_multiply(self) -> bool:
        """Whether it has DSP blocks."""
        return multiplier_named(self.multiplier).blocks

    @property
    def lutram(self) -> bool:
        """Whether the family has distributed RAM."""
        return architecture(self.blocks).lutram_words > 0


FAMILIES: Values[Family] = Values("family")
"""Faces, all data: what each kind of core costs (`pvq_hw.plan.resources`)."""

FAMILIES.add(Family("ecp5", "ecp5", 3, 2, 18, "mult18", 16))
FAMILIES.add(Family("up5k", "ice40", 2, 1, 12, "mac16", 32))
FAMILIES.add(Family("hx8k", "ice40", 2, 1, 9, "serial", 32))


def family(name: str) -> Family:
    """The family by name; raises InputError with the known ones."""
    return FAMILIES.named(name)
