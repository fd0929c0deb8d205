"""A board as a value: its device, oscillator, link, pins and loaders."""

import json
from dataclasses import dataclass
from typing import Any

from pvq_hw.choices import SPI
from pvq_hw.errors import InputError
from pvq_hw.target.devices import Device

__all__ = ["LoaderChoice", "Pin", "Target"]


@dataclass(frozen=True)
class Pin:
    """A pin of the package and how the board uses it.

    Parameters
    ----------
    name : str
        Of the package, for instance ``"35"`` or ``"B10"``.
    resource : str
        Its place in the Amaranth platform, ``"resource.number"`` or ``"resource.number.part"``.
        The netlist's port is named after it.
    invert : bool
        Low means on.
    attributes : tuple of (str, str or int)
        Of its input or output buffer.
    """

    name: str
    resource: str
    invert: bool = False
    attributes: tuple[tuple[str, str | int], ...] = ()

    @property
    def path(self) -> tuple[str, int, str]:
        """Resource, number, and part or ``""``."""
        name, number, part = (*self.resource.split("."), "")[:3]
        return name, int(number), part


@dataclass(frozen=True)
class LoaderChoice:
    """A program that loads the board; `pvq_hw.host.programmer` makes its command line.

    Parameters
    ----------
    program : str
        One that `pvq_hw.host.programmer` knows.
    board, cable : str
        openFPGALoader's names.
    usb : str
        ``vendor:product`` of a DFU bootloader.
    flash : bool
        Whether the bitstream goes into the flash, where it stays without power.
    reset : bool
        Whether the bootloader is left by a USB reset.
    """

    program: str
    board: str = ""
    cable: str = ""
    usb: str = ""
    flash: bool = False
    reset: bool = False


@dataclass(frozen=True)
class Target:
    """A board, as its data file says; `pvq_hw.target.board_file` reads and checks these.

    Parameters
    ----------
    name : str
        As ``--target`` takes it.
    board : str
        Name for reports.
    device : Device
    package, speed : str
        The device's package and speed grade, as Amaranth names them.
    crystal_mhz : float
        The oscillator.
    clock_mhz : float
        What the board's PLL is asked for unless the user says otherwise.
    baud : int
        Most symbols per second of the host link unless the user says otherwise.
    link : str
        Where the serial line is: an interface of the board, or a connector to be wired.
    clk, rx, tx : Pin
        Seen from the FPGA.
    leds : tuple of (str, Pin)
        ``heartbeat`` and ``busy``, as far as the board has them.
    decision : tuple of (str, Pin)
        Outputs, from ``"0"`` on, that show what ``--decide`` gives: LEDs, as far as there are any.
    high : tuple of (str, Pin)
        Outputs that must be held high.
    flash : tuple of (str, Pin)
        SPI flash that holds the bitstream: ``cs``, ``clk``, ``copi``, ``cipo``, and ``wp`` and
        ``hold``, which are held high unless it gives four bits a clock. Empty where the circuit
        can't read it.
    spi : tuple of (str, Pin)
        Where a host's SPI may be wired: ``cs``, ``clk``, ``copi``, ``cipo``. Empty where there are
        no such pins.
    spi_link : str
        The connector of these, in words.
    reset : Pin, optional
        A push button that resets the circuit; on is pressed.
    pad : bool
        The oscillator drives the pin that is the iCE40 PLL's own.
    compress : bool
        ECP5: the bitstream is compressed.
    mclk_mhz : float
        ECP5: the clock at which the flash is read; 0 for the slowest.
    loaders : tuple of LoaderChoice
        The first one that is installed is used.
    amaranth : str
        ``module:class`` in amaranth_boards, ``""`` where there is none.
    source : tuple of str
        Where the pins are from.
    note : str
        What a user has to do or know.
    tested : bool
        Whether a bitstream of this project has run on a real one.
    definition : str
        JSON text of the file, for a board that is none of the shipped ones.
    """

    name: str
    board: str
    device: Device
    package: str
    speed: str
    crystal_mhz: float
    clock_mhz: float
    baud: int
    link: str
    clk: Pin
    rx: Pin
    tx: Pin
    leds: tuple[tuple[str, Pin], ...] = ()
    decision: tuple[tuple[str, Pin], ...] = ()
    high: tuple[tuple[str, Pin], ...] = ()
    flash: tuple[tuple[str, Pin], ...] = ()
    spi: tuple[tuple[str, Pin], ...] = ()
    spi_link: str = ""
    reset: Pin | None = None
    pad: bool = False
    compress: bool = False
    mclk_mhz: float = 0.0
    loaders: tuple[LoaderChoice, ...] = ()
    amaranth: str = ""
    source: tuple[str, ...] = ()
    note: str = ""
    tested: bool = False
    definition: str = ""

    @property
    def pins(self) -> tuple[Pin, ...]:
        """All that the circuit uses."""
        more = (*self.leds, *self.decision, *self.high, *self.flash, *self.spi)
        button = () if self.reset is None else (self.reset,)
        return self.clk, self.rx, self.tx, *button, *(pin for _, pin in more)

    @property
    def flash_widths(self) -> tuple[int, ...]:
        """Bits a clock that the flash can give over the pins that the board's file names."""
        pins = {key for key, _ in self.flash}
        return () if not pins else (1, 2, 4) if {"wp", "hold"} <= pins else (1, 2)

    @property
    def family(self) -> str:
        """The device's."""
        return self.device.family

    @property
    def engine(self) -> str:
        """The device's key of `pvq_hw.target.families.FAMILIES`."""
        return self.device.engine

    @property
    def logic_cell(self) -> str:
        """What the family calls a LUT with its flip-flop."""
        return self.device.logic_cell

    @property
    def has_pll(self) -> bool:
        """Whether the package gives a PLL its supply."""
        return self.package not in self.device.without_pll

    @property
    def clock_range_mhz(self) -> tuple[float, float]:
        """Lowest and highest clock: what the PLL makes, and the oscillator as it is."""
        if not self.has_pll:
            return self.crystal_mhz, self.crystal_mhz
        low, high = self.device.pll_range_mhz
        return min(low, self.crystal_mhz), high

    def check_clock(self, clock_mhz: float) -> None:
        """Raises InputError unless the board can come near ``clock_mhz``."""
        low, high = self.clock_range_mhz
        if not low <= clock_mhz <= high:
            rule = f"{low:g} to {high:g} MHz" if high > low else f"{low:g} MHz, as it has no PLL"
            raise InputError(f"Clock of {self.name} must be {rule}, not {clock_mhz:g}")

    def check_link(self, link: str) -> None:
        """Raises InputError where the board has no pins for a link."""
        if link == SPI and not self.spi:
            raise InputError(
                f"{self.name} has no pins for SPI; a board file of your own may name some, under "
                "[spi]"
            )

    def to_json(self) -> dict[str, Any]:
        """What a plan or a manifest says of its target: all of it for a board of the user's."""
        device = self.device
        values: dict[str, Any] = {
            "name": self.name,
            "board": self.board,
            "family": device.family,
            "device": device.name,
            "package": self.package,
            "speed": self.speed,
            "luts": device.luts,
            "ffs": device.ffs,
            "block_rams": device.brams,
            "block_ram_bits": device.bram_bits,
            "dsps": device.dsps,
            "spram_bits": device.spram_bits,
        }
        if self.definition:
            values["definition"] = json.loads(self.definition)
        return values
