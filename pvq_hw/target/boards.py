"""The boards: what their devices hold, their crystal, the clock planned for and the UART.

Device figures are those of the data sheets (iCE40 UltraPlus FPGA-DS-02008, iCE40 LP/HX
FPGA-DS-02029, ECP5 FPGA-DS-02012), as nextpnr counts them. Package, speed grade and crystal are
those of the board files in amaranth_boards, which a test compares.
"""

from dataclasses import dataclass
from typing import Any

from pvq_hw.errors import InputError

__all__ = ["TARGETS", "Target", "get_target"]


@dataclass(frozen=True)
class Target:
    """A board and its device.

    Parameters
    ----------
    name : str
        As ``--target`` takes it.
    board : str
        Name for reports.
    family : str
        ``"ice40"`` or ``"ecp5"``.
    device, package, speed : str
        As the tools name them; iCE40 devices have no speed grade of their own.
    luts, ffs : int
        4-input LUTs and flip-flops; on iCE40 both sit in one logic cell (LC).
    engine : str
        Key of `pvq_hw.target.families.FAMILIES`: how cores are built for the device.
    bram : str
        Block RAM primitive; `pvq_hw.target.block_ram` has its port configurations.
    bram_block_bits : int
        Capacity of one block, bits.
    brams : int
        Number of block RAMs.
    dsp : str
        Multiplier primitive, ``""`` without one.
    dsps : int
    dsp_bits : int
        Width of a signed operand of the multiplier, bits.
    spram_bits : int
        Single-ported RAM in bits, 0 without.
    lut_ram : bool
        Whether LUTs serve as distributed RAM.
    crystal_mhz : float
    clock_mhz : float
        What the board's PLL is asked for unless the user says otherwise.
    clock_min_mhz, clock_max_mhz : float
        What the PLL and the device's clock trees can do.
    uart_rx, uart_tx : str
        Pins of the package, seen from the FPGA.
    baud : int
        Symbols per second of the host link unless the user says otherwise.
    platform : str
        ``module:class`` of the board's Amaranth platform.
    """

    name: str
    board: str
    family: str
    device: str
    package: str
    speed: str
    luts: int
    ffs: int
    engine: str
    bram: str
    bram_block_bits: int
    brams: int
    dsp: str
    dsps: int
    dsp_bits: int
    spram_bits: int
    lut_ram: bool
    crystal_mhz: float
    clock_mhz: float
    clock_min_mhz: float
    clock_max_mhz: float
    uart_rx: str
    uart_tx: str
    baud: int
    platform: str

    @property
    def bram_bits(self) -> int:
        """Block RAM of the whole device, bits."""
        return self.brams * self.bram_block_bits

    @property
    def logic_cell(self) -> str:
        """What the family calls a LUT with its flip-flop."""
        return "LC" if self.family == "ice40" else "LUT"

    def check_clock(self, clock_mhz: float) -> None:
        """Raises InputError unless the board's PLL can come near ``clock_mhz``."""
        low, high = self.clock_min_mhz, self.clock_max_mhz
        if not low <= clock_mhz <= high:
            raise InputError(
                f"Clock of {self.name} must be {low:g} to {high:g} MHz, not {clock_mhz:g}"
            )

    def to_json(self) -> dict[str, Any]:
        """What a plan or a manifest says of its target."""
        return {
            "name": self.name,
            "board": self.board,
            "family": self.family,
            "device": self.device,
            "package": self.package,
            "speed": self.speed,
            "luts": self.luts,
            "ffs": self.ffs,
            "block_rams": self.brams,
            "block_ram_bits": self.bram_bits,
            "dsps": self.dsps,
            "spram_bits": self.spram_bits,
        }


def _ecp5(
    name: str, board: str, device: str, package: str, speed: str, platform: str, **more: Any
) -> Target:
    large = device == "LFE5U-85F"
    luts = 83640 if large else 24288
    return Target(
        name=name,
        board=board,
        family="ecp5",
        device=device,
        package=package,
        speed=speed,
        luts=luts,
        ffs=luts,
        engine="ecp5",
        bram="DP16KD",
        bram_block_bits=18432,
        brams=208 if large else 56,
        dsp="MULT18X18D",
        dsps=156 if large else 28,
        dsp_bits=18,
        spram_bits=0,
        lut_ram=True,
        clock_min_mhz=10.0,
        clock_max_mhz=400.0,
        platform=platform,
        **more,
    )


def _ice40(name: str, board: str, device: str, **more: Any) -> Target:
    luts = 5280 if device == "iCE40UP5K" else 7680
    return Target(
        name=name,
        board=board,
        family="ice40",
        device=device,
        speed="",
        luts=luts,
        ffs=luts,
        engine="up5k" if device == "iCE40UP5K" else "hx8k",
        bram="SB_RAM40_4K",
        bram_block_bits=4096,
        lut_ram=False,
        crystal_mhz=12.0,
        clock_min_mhz=12.0,
        clock_max_mhz=275.0,
        baud=1_000_000,
        **more,
    )


_ULX3S_LINK: dict[str, Any] = {
    "crystal_mhz": 25.0,
    "clock_mhz": 120.0,
    "uart_rx": "M1",
    "uart_tx": "L4",
    "baud": 1_000_000,
}

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        _ice40(
            "icebreaker",
            "iCEBreaker",
            "iCE40UP5K",
            package="SG48",
            brams=30,
            dsp="SB_MAC16",
            dsps=8,
            dsp_bits=16,
            spram_bits=4 * 16384 * 16,
            clock_mhz=36.0,
            uart_rx="6",
            uart_tx="9",
            platform="amaranth_boards.icebreaker:ICEBreakerPlatform",
        ),
        _ice40(
            "hx8k",
            "iCE40-HX8K Breakout Board",
            "iCE40HX8K",
            package="CT256",
            brams=32,
            dsp="",
            dsps=0,
            dsp_bits=0,
            spram_bits=0,
            clock_mhz=72.0,
            uart_rx="B10",
            uart_tx="B12",
            platform="amaranth_boards.ice40_hx8k_b_evn:ICE40HX8KBEVNPlatform",
        ),
        _ecp5(
            "ulx3s-25f",
            "ULX3S 25F",
            "LFE5U-25F",
            "BG381",
            "6",
            "amaranth_boards.ulx3s:ULX3S_25F_Platform",
            **_ULX3S_LINK,
        ),
        _ecp5(
            "ulx3s-85f",
            "ULX3S 85F",
            "LFE5U-85F",
            "BG381",
            "6",
            "amaranth_boards.ulx3s:ULX3S_85F_Platform",
            **_ULX3S_LINK,
        ),
        _ecp5(
            "orangecrab-25f",
            "OrangeCrab r0.2 25F",
            "LFE5U-25F",
            "MG285",
            "8",
            "amaranth_boards.orangecrab_r0_2:OrangeCrabR0_2_25FPlatform",
            crystal_mhz=48.0,
            clock_mhz=144.0,
            # The board has no UART: header pins "0" (rx) and "1" (tx), where a Feather has its own.
            uart_rx="N17",
            uart_tx="M18",
            baud=1_000_000,
        ),
    )
}


def get_target(name: str) -> Target:
    """The target of that name; raises InputError, which lists them, on any other."""
    target = TARGETS.get(name)
    if target is None:
        raise InputError(f"Target must be one of {', '.join(TARGETS)}, not {name!r}")
    return target
