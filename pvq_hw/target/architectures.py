"""What the devices of an architecture have in common, beside their sizes."""

from dataclasses import dataclass

from pvq_hw.registry import Values

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
    block_shapes : tuple of (int, int)
        Width and depth that a block RAM can have, widest first.
    block_luts : int
        LUTs that choose between blocks, one for a bit and further block, that a block is worth.
    block_latency : int
        Cycles from address to data that a block RAM may have within itself: 2 with a register at
        its output.
    read_enable : bool
        Whether block RAM keeps its data while a read enable is low.
    segment_words : int
        Words of a block RAM in a shape that wastes no bits of words of 128.
    segment_latency : int
        Cycles from address to data of a ROM that is cut into such segments all over the device.
    lutram_words : int
        Words of a piece of distributed RAM, 0 where there is none.
    gated_carry : bool
        Whether the LUTs of a carry chain can gate one of its operands.
    hold_seconds : float
        For which block RAM may read as zero after configuration.
    pll_range_mhz : (float, float)
        What PLLs and clock trees can do.
    reference_mhz : (float, float)
        What a PLL takes.
    constraints : str
        Suffix of the files of pins and clocks.
    placed, bitstream : str
        Files that place and route and the packer write.
    packer : str
        The program that makes one of the other.
    unpack : tuple of str
        The command that turns a bitstream ``in`` into text ``out``.
    heading : str
        Pattern of the line that begins a block RAM's contents in that text.
    section : tuple of int
        Of these contents: lines, words of a line, bits of a word, and the digits it has.
    pin_attributes : tuple of (str, tuple of str or int)
        What a board's file may say of a pin's buffer, and the values.
    bitstream_options : bool
        Whether a board's file may say how bitstreams are packed.
    top_luts, top_ffs : int
        What the serial side of a board takes, about: UART, packets, frame buffer logic, reset.
    """

    name: str
    logic_cell: str
    dsp: str
    block_bits: int
    block_shapes: tuple[tuple[int, int], ...]
    block_luts: int
    block_latency: int
    read_enable: bool
    segment_words: int
    segment_latency: int
    lutram_words: int
    gated_carry: bool
    hold_seconds: float
    pll_range_mhz: tuple[float, float]
    reference_mhz: tuple[float, float]
    constraints: str
    placed: str
    bitstream: str
    packer: str
    unpack: tuple[str, ...]
    heading: str
    section: tuple[int, int, int, int]
    pin_attributes: tuple[tuple[str, tuple[str | int, ...]], ...]
    bitstream_options: bool
    top_luts: int
    top_ffs: int


ARCHITECTURES: Values[Architecture] = Values("architecture")
"""Faces: ``place and route`` (`pvq_hw.target.devices`), ``bit places``
(`pvq_hw.target.block_contents`), ``PLL settings`` (`pvq_hw.target.pll`), and in `gateware` and
`sim` what circuits, platforms and netlists are made of."""

ARCHITECTURES.add(
    Architecture(
        name="ice40",
        logic_cell="LC",
        dsp="SB_MAC16",
        block_bits=4096,
        block_shapes=((16, 256), (8, 512), (4, 1024), (2, 2048)),  # Lattice FPGA-TN-02002
        block_luts=1000,
        block_latency=1,
        read_enable=True,
        segment_words=256,
        segment_latency=2,
        lutram_words=0,
        gated_carry=False,
        # Block RAM reads as zero for about 3 us after configuration; 15 us leaves room for process,
        # voltage and temperature, as in Amaranth's own platform.
        hold_seconds=15e-6,
        pll_range_mhz=(16.0, 275.0),
        reference_mhz=(10, 133),
        constraints=".pcf",
        placed="top.asc",
        bitstream="top.bin",
        packer="icepack",
        unpack=("icepack", "-u", "in", "out"),
        heading=r"\.ram_data \d+ \d+",
        section=(16, 1, 256, 64),
        pin_attributes=(
            ("IO_STANDARD", ("SB_LVCMOS", "SB_LVTTL")),
            ("PULLUP", (0, 1)),
            ("GLOBAL", (0, 1)),
        ),
        bitstream_options=False,
        top_luts=920,
        top_ffs=590,
    )
)
ARCHITECTURES.add(
    Architecture(
        name="ecp5",
        logic_cell="LUT",
        dsp="MULT18X18D",
        block_bits=18432,
        # Lattice FPGA-TN-02204: DP16KD, and PDPW16KD for 36 bits.
        block_shapes=((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
        block_luts=64,
        block_latency=2,
        read_enable=False,
        segment_words=2048,
        segment_latency=6,
        lutram_words=16,  # of a TRELLIS_DPR16X4
        gated_carry=True,
        hold_seconds=0.0,
        pll_range_mhz=(10.0, 400.0),
        reference_mhz=(8, 400),
        constraints=".lpf",
        placed="top.config",
        bitstream="top.bit",
        packer="ecppack",
        unpack=("ecpunpack", "--input", "in", "--textcfg", "out"),
        heading=r"\.bram_init \d+",
        section=(256, 8, 9, 3),
        pin_attributes=(
            ("IO_TYPE", ("LVCMOS33", "LVCMOS25", "LVCMOS18", "LVCMOS15", "LVCMOS12", "LVTTL33",
                         "SSTL15_I", "SSTL135_I")),
            ("PULLMODE", ("UP", "DOWN", "NONE")),
            ("DRIVE", ("4", "8", "12", "16")),
            ("SLEWRATE", ("SLOW", "FAST")),
            ("OPENDRAIN", ("ON", "OFF")),
        ),
        bitstream_options=True,
        top_luts=800,
        top_ffs=450,
    )
)  # fmt: skip


def architecture(name: str) -> Architecture:
    """The architecture by name; raises InputError with the known ones."""
    return ARCHITECTURES.named(name)
