"""The devices: what each die holds, its packages and speed grades, and what nextpnr calls it.

Figures are those of the data sheets (iCE40 LP/HX FPGA-DS-02029, iCE40 UltraPlus FPGA-DS-02008,
ECP5 FPGA-DS-02012). Where the open tools offer more of a die than its device is sold with, as of
the 4K and 12F devices, they are the die's, which `Device.sold_luts` tells apart.
"""

from dataclasses import dataclass, replace

from pvq_hw.errors import InputError
from pvq_hw.naming import near
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES, Architecture
from pvq_hw.target.block_ram import SPRAM_BITS

__all__ = ["DEVICES", "Device", "find_device", "nextpnr_options"]


@dataclass(frozen=True)
class Device:
    """An FPGA, whatever its package.

    Parameters
    ----------
    name : str
        As its vendor and Amaranth name it.
    family : str
        One of `pvq_hw.target.architectures.ARCHITECTURES`: the tools, ``nextpnr-<family>`` and
        ``synth_<family>``.
    engine : str
        Key of `pvq_hw.target.families.FAMILIES`: how cores are built for the device.
    die : str
        nextpnr's option without its dashes.
    luts, ffs : int
        4-input LUTs and flip-flops; on iCE40 both sit in one logic cell (LC).
    brams : int
        Block RAMs.
    dsps : int
        Multiplier blocks.
    sprams : int
        Single-ported RAMs of 256 Kibit.
    packages : tuple of str
        As Amaranth names them: those that nextpnr knows.
    without_pll : tuple of str
        Packages whose pins give a PLL no supply.
    speeds : tuple of str
        Speed grades; an iCE40 has none of its own.
    core_volts : float
    sold_luts : int
        LUTs that the data sheet promises where the die has more; 0 where it's all of them.
    """

    name: str
    family: str
    engine: str
    die: str
    luts: int
    ffs: int
    brams: int
    dsps: int
    sprams: int
    packages: tuple[str, ...]
    without_pll: tuple[str, ...] = ()
    speeds: tuple[str, ...] = ("",)
    core_volts: float = 1.2
    sold_luts: int = 0

    @property
    def architecture(self) -> Architecture:
        """What it has in common with others of its family."""
        return ARCHITECTURES.named(self.family)

    @property
    def logic_cell(self) -> str:
        """What the family calls a LUT with its flip-flop."""
        return self.architecture.logic_cell

    @property
    def bram_block_bits(self) -> int:
        """Capacity of one block, bits."""
        return self.architecture.block_bits

    @property
    def bram_bits(self) -> int:
        """Block RAM of the whole device, bits."""
        return self.brams * self.bram_block_bits

    @property
    def dsp(self) -> str:
        """Multiplier primitive, ``""`` without one."""
        return self.architecture.dsp if self.dsps else ""

    @property
    def spram_bits(self) -> int:
        """Single-ported RAM, bits."""
        return self.sprams * SPRAM_BITS

    @property
    def pll_range_mhz(self) -> tuple[float, float]:
        """What its PLL and clock trees can do."""
        return self.architecture.pll_range_mhz

    def nextpnr(self, package: str, speed: str = "") -> tuple[str, ...]:
        """Command and options of place and route for the device in a package."""
        options = nextpnr_options(self.family, self, package, speed)
        return f"nextpnr-{self.family}", f"--{self.die}", *options


nextpnr_options: ValueFace[[Device, str, str], tuple[str, ...]] = ARCHITECTURES.face(
    "place and route"
)
"""nextpnr's options for a device's package and speed grade."""


@nextpnr_options.of("ice40")
def _ice40_options(family: str, device: Device, package: str, speed: str) -> tuple[str, ...]:
    suffix = ":4k" if device.name.endswith("4K") else ""
    return "--package", package.lower() + suffix


@nextpnr_options.of("ecp5")
def _ecp5_options(family: str, device: Device, package: str, speed: str) -> tuple[str, ...]:
    return "--package", _ECP5_PACKAGES[package], "--speed", speed


# By Amaranth's name, nextpnr's.
_ECP5_PACKAGES = {
    "BG256": "CABGA256",
    "MG285": "CSFBGA285",
    "BG381": "CABGA381",
    "BG554": "CABGA554",
    "BG756": "CABGA756",
}


def _lp_hx() -> list[Device]:
    one = Device("iCE40LP1K", "ice40", "hx8k", "lp1k", 1280, 1280, 16, 0, 0,
                 ("SWG16TR", "CM36", "CM49", "CM81", "CM121", "QN84", "CB81", "CB121"),
                 without_pll=("SWG16TR", "CM36", "QN84", "CB81"))  # fmt: skip
    eight = Device("iCE40LP8K", "ice40", "hx8k", "lp8k", 7680, 7680, 32, 0, 0,
                   ("CM81", "CM121", "CM225"))  # fmt: skip
    return [
        one,
        replace(eight, name="iCE40LP4K", sold_luts=3520),
        eight,
        replace(one, name="iCE40HX1K", die="hx1k", packages=("VQ100", "CB132", "TQ144"),
                without_pll=("VQ100",)),
        replace(eight, name="iCE40HX4K", die="hx8k", packages=("BG121", "CB132", "TQ144"),
                sold_luts=3520),
        replace(eight, name="iCE40HX8K", die="hx8k",
                packages=("BG121", "CB132", "CM225", "CT256")),
    ]  # fmt: skip


def _ultra_plus() -> list[Device]:
    # Placed as a 5K, whose die it may be; only what the data sheet promises is planned with.
    three = Device("iCE40UP3K", "ice40", "up5k", "up5k", 2800, 2800, 20, 4, 4, ("UWG30",))
    five = Device("iCE40UP5K", "ice40", "up5k", "up5k", 5280, 5280, 30, 8, 4, ("SG48", "UWG30"))
    return [three, five]


def _ecp5() -> list[Device]:
    small, large = ("BG256", "MG285", "BG381"), ("MG285", "BG381", "BG554", "BG756")
    sizes = [  # LUTs, block RAMs, multipliers
        ("12", 24288, 56, 28, small),
        ("25", 24288, 56, 28, small),
        ("45", 43848, 108, 72, (*small, "BG554")),
        ("85", 83640, 208, 156, large),
    ]
    devices = []
    for line, die, speeds, volts in (
        ("LFE5U", "", ("6", "7", "8"), 1.1),
        ("LFE5UM", "um-", ("6", "7", "8"), 1.1),
        ("LFE5UM5G", "um5g-", ("8",), 1.2),
    ):
        for size, luts, brams, dsps, packages in sizes:
            if size == "12" and line != "LFE5U":
                continue  # there is none
            devices.append(
                Device(f"{line}-{size}F", "ecp5", "ecp5", f"{die}{size}k", luts, luts, brams,
                       dsps, 0, packages, speeds=speeds, core_volts=volts,
                       sold_luts=12_000 if size == "12" else 0)
            )  # fmt: skip
    return devices


DEVICES: dict[str, Device] = {d.name: d for d in (*_lp_hx(), *_ultra_plus(), *_ecp5())}


def find_device(name: str) -> Device:
    """The device of that name; raises InputError, with the names that are nearest, on any other."""
    device = DEVICES.get(name)
    if device is None:
        raise InputError(f"Device {name!r:.60} is unknown{near(name, DEVICES)}")
    return device
