"""What the engine takes from a device family: latencies, carry chains, multipliers."""

from dataclasses import dataclass

from pvq_hw.errors import InputError

__all__ = ["FAMILIES", "Family", "family"]


@dataclass(frozen=True)
class Family:
    """Engine parameters that suit a device family; every core states them in its own spec.

    Parameters
    ----------
    name : str
    blocks : str
        Key of `pvq_hw.target.block_ram.BLOCK_SHAPES`.
    code_latency, bank_latency : int
        Cycles from address to data. On ECP5 2 uses the block RAM's output register, 3 registers
        the code word once more, behind the selector of a ROM that is cut in depth.
    carry_chunk : int
        Longest carry chain of accumulator and bias adder in bits; 0 for no limit.
    multiplier : str
        ``"mult18"`` (MULT18X18D), ``"mac16"`` (SB_MAC16) or ``"serial"`` (no DSP block).
    logic_rows : int
        ROMs of multipliers and biases up to this depth become LUTs.
    lutram : bool
        Whether the family has distributed RAM.
    """

    name: str
    blocks: str
    code_latency: int
    bank_latency: int
    carry_chunk: int
    multiplier: str
    logic_rows: int
    lutram: bool


FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        Family("ecp5", "ecp5", 3, 2, 18, "mult18", 16, True),
        Family("up5k", "ice40", 2, 1, 12, "mac16", 32, False),
        Family("hx8k", "ice40", 2, 1, 9, "serial", 32, False),
    )
}


def family(name: str) -> Family:
    """The family by name; raises InputError with the known ones."""
    if name not in FAMILIES:
        raise InputError(f"Family must be one of {sorted(FAMILIES)}, not {name!r}")
    return FAMILIES[name]
