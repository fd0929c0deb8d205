"""What the devices of an architecture have in common, beside their sizes."""

from dataclasses import dataclass

from pvq_hw.errors import InputError

__all__ = ["ARCHITECTURES", "Architecture", "architecture"]


@dataclass(frozen=True)
class Architecture:
    """iCE40 or ECP5.

    Parameters
    ----------
    name : str
        As the tools are called: ``nextpnr-<name>``, ``synth_<name>``.
    logic_cell : str
        What a LUT with its flip-flop is called.
    dsp : str
        Primitive of a multiplier block.
    block_bits : int
        Capacity of a block RAM.
    block_latency : int
        Cycles from address to data that a block RAM may have within itself: 2 with a register at
        its output.
    hold_seconds : float
        For which block RAM may read as zero after configuration.
    pll_range_mhz : (float, float)
        What PLLs and clock trees can do.
    constraints : str
        Suffix of the files of pins and clocks.
    top_luts, top_ffs : int
        What the serial side of a board takes, about: UART, packets, frame buffer logic, reset.
    """

    name: str
    logic_cell: str
    dsp: str
    block_bits: int
    block_latency: int
    hold_seconds: float
    pll_range_mhz: tuple[float, float]
    constraints: str
    top_luts: int
    top_ffs: int


ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        # iCE40 block RAM reads as zero for about 3 us after configuration; 15 us leaves room for
        # process, voltage and temperature, as in Amaranth's own platform.
        Architecture("ice40", "LC", "SB_MAC16", 4096, 1, 15e-6, (16.0, 275.0), ".pcf", 920, 590),
        Architecture("ecp5", "LUT", "MULT18X18D", 18432, 2, 0.0, (10.0, 400.0), ".lpf", 800, 450),
    )
}


def architecture(name: str) -> Architecture:
    """The architecture by name; raises InputError with the known ones."""
    if name not in ARCHITECTURES:
        raise InputError(f"Architecture must be {' or '.join(ARCHITECTURES)}, not {name!r}")
    return ARCHITECTURES[name]
