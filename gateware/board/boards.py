"""The five boards: pins out of amaranth_boards, and the top that sits on them."""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from amaranth.build import Attrs, Pins, Resource
from amaranth.hdl import ClockDomain, Const, Elaboratable, Module
from amaranth.lib import io

from gateware.device.pll import Pll, ResetHold
from gateware.link.top import Top, make_top
from pvq_hw.errors import ToolError
from pvq_hw.host.protocol import WireFormat
from pvq_hw.target.boards import Target, get_target
from pvq_hw.target.pll import CrystalClock, solve_pll

__all__ = ["BOARDS", "Board", "BoardTop", "find_port", "make_board_top", "make_platform"]

# iCE40 block RAM reads as zero for about 3 us after configuration; 15 us leaves room for process,
# voltage and temperature, as in Amaranth's own platform.
_ICE40_HOLD_SECONDS = 15e-6

Path = tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """What a board offers to the top; paths are a resource, its number and its subsignal.

    Parameters
    ----------
    clk, rx, tx : tuple of str
    leds : mapping
        From the top's outputs to paths.
    high : tuple of paths
        Outputs that must be held high.
    pad : bool
        The oscillator drives the pin that is the iCE40 PLL's own.
    resources : tuple
        What the board file lacks.
    flash : tuple of str
        The SPI flash that holds the bitstream; its other pins, also held high, are ``flash_high``.
    """

    clk: Path
    rx: Path
    tx: Path
    leds: Mapping[str, Path]
    high: tuple[Path, ...] = ()
    pad: bool = False
    resources: tuple[Any, ...] = ()
    flash: Path = ()
    flash_high: tuple[str, ...] = ()


_ULX3S = Board(
    clk=("clk25", "0"),
    rx=("uart", "0", "rx"),
    tx=("uart", "0", "tx"),
    leds={"heartbeat": ("led", "0"), "busy": ("led", "1")},
    # Low, its default, makes the ESP32 take the JTAG port.
    high=(("esp32", "0", "gpio0"),),
)

# Feather pins "0" and "1", where this form factor has its serial port; see `Target.uart_rx`.
_ORANGECRAB_UART = (
    Resource(
        "link_rx", 0, Pins("0", dir="i", conn=("io", 0)), Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP")
    ),
    Resource("link_tx", 0, Pins("1", dir="o", conn=("io", 0)), Attrs(IO_TYPE="LVCMOS33")),
)

BOARDS: dict[str, Board] = {
    "icebreaker": Board(
        clk=("clk12", "0"),
        rx=("uart", "0", "rx"),
        tx=("uart", "0", "tx"),
        leds={"heartbeat": ("led_g", "0"), "busy": ("led_r", "0")},
        pad=True,
        flash=("spi_flash_1x", "0"),
        flash_high=("wp", "hold"),
    ),
    "hx8k": Board(
        clk=("clk12", "0"),
        rx=("uart", "0", "rx"),
        tx=("uart", "0", "tx"),
        leds={"heartbeat": ("led", "0"), "busy": ("led", "1")},
    ),
    "ulx3s-25f": _ULX3S,
    "ulx3s-85f": _ULX3S,
    "orangecrab-25f": Board(
        clk=("clk", "0"),
        rx=("link_rx", "0"),
        tx=("link_tx", "0"),
        leds={"heartbeat": ("rgb_led", "0", "g"), "busy": ("rgb_led", "0", "b")},
        resources=_ORANGECRAB_UART,
    ),
}


def make_platform(target: str) -> Any:
    """A fresh Amaranth platform for a target; one platform serves one build.

    Raises
    ------
    ToolError
        amaranth-boards is missing.
    """
    module, name = get_target(target).platform.split(":")
    try:
        base = getattr(importlib.import_module(module), name)
    except ImportError:
        raise ToolError("amaranth-boards is missing: pip install 'pvq-hw[build]'") from None
    # The OrangeCrab's platform calls dfu-suffix after the bitstream; `pvq_hw.host.programmer` adds
    # the suffix itself, so that a build needs no further tool.
    kind = type(name, (base,), {"command_templates": property(partial(_without_suffix, base))})
    platform = kind()
    platform.add_resources(BOARDS[target].resources)
    return platform


def _without_suffix(base: Any, platform: Any) -> list[str]:
    templates = base.command_templates.fget(platform)
    return [text for text in templates if "dfu-suffix" not in text]


class BoardTop(Elaboratable):
    """A `Top` on a board's pins: oscillator, PLL, reset, serial line and LEDs.

    All logic is in the ``sync`` domain, which runs from the PLL and is constrained to its
    frequency. Its reset comes on at once when the PLL loses its lock, goes off in step with the
    clock, and holds until the PLL locks; on iCE40 15 us longer.

    Parameters
    ----------
    top : Top
    target : str
        Whose `make_platform` it is built with.
    clock_mhz : float
        The wish that ``top`` was made for.
    """

    def __init__(self, top: Top, target: str, clock_mhz: float) -> None:
        self._top = top
        self._board = BOARDS[target]
        self._target: Target = get_target(target)
        self._pll = solve_pll(self._target, clock_mhz)

    @property
    def clock_mhz(self) -> float:
        """The frequency that the PLL achieves, MHz: what a build must meet."""
        return float(self._pll.output) / 1e6

    @property
    def hold_clocks(self) -> int:
        """Cycles for which the reset holds on after the lock."""
        seconds = _ICE40_HOLD_SECONDS if self._target.family == "ice40" else 0
        return math.ceil(seconds * self._pll.hz)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.top = self._top
        self._clock(m, platform)
        for name, path in (
            ("rx", self._board.rx),
            ("tx", self._board.tx),
            *self._board.leds.items(),
        ):
            self._connect(m, platform, name, path)
        for path in self._board.high:
            m.submodules["high_" + path[0]] = buffer = io.Buffer("o", find_port(platform, path))
            m.d.comb += buffer.o.eq(1)
        if self._top.codes_crc is not None:
            self._flash(m, platform)
        return m

    def _flash(self, m: Module, platform: Any) -> None:
        """The pins that are active low are inverted by their ports."""
        pins = self._top.flash
        ports = find_port(platform, self._board.flash)
        levels = {"cs": ~pins.cs_n, "clk": pins.clk, "copi": pins.copi}
        levels |= dict.fromkeys(self._board.flash_high, Const(0))
        for name, level in levels.items():
            buffer = io.Buffer("o", getattr(ports, name))
            m.submodules[f"flash_{name}"] = buffer
            m.d.comb += buffer.o.eq(level)
        m.submodules.flash_cipo = buffer = io.Buffer("i", ports.cipo)
        m.d.comb += pins.cipo.eq(buffer.i)

    def _connect(self, m: Module, platform: Any, name: str, path: Path) -> None:
        direction = "i" if name == "rx" else "o"
        m.submodules[f"{name}_buffer"] = buffer = io.Buffer(direction, find_port(platform, path))
        if direction == "i":
            m.d.comb += getattr(self._top, name).eq(buffer.i)
        else:
            m.d.comb += buffer.o.eq(getattr(self._top, name))

    def _clock(self, m: Module, platform: Any) -> None:
        m.domains.sync = sync = ClockDomain("sync")
        port = find_port(platform, self._board.clk)
        m.submodules.pll = pll = Pll(self._pll, port, pad=self._board.pad)
        m.submodules.reset = reset = ResetHold(self.hold_clocks)
        m.d.comb += [
            sync.clk.eq(pll.clk),
            reset.locked.eq(pll.locked),
            sync.rst.eq(reset.rst),
        ]
        if type(self._pll) is not CrystalClock:
            # Else the oscillator's pin is constrained already.
            platform.add_clock_constraint(pll.clk, float(self._pll.output))


def find_port(platform: Any, path: Path) -> Any:
    """The pin's port; the other subsignals of its resource are left alone."""
    name, number, *subsignal = path
    key = (name, int(number))
    # A resource can be requested once only, but several paths may lead into it.
    ports = platform.__dict__.setdefault("_pvq_ports", {})
    if key not in ports:
        ports[key] = platform.request(*key, dir="-")
    return getattr(ports[key], subsignal[0]) if subsignal else ports[key]


def make_board_top(
    accelerator: Any,
    target: str,
    clock_mhz: float,
    baud: int | None,
    input: WireFormat,
    output: WireFormat,
    identity: bytes,
    codes_crc: int | None = None,
) -> BoardTop:
    """`gateware.link.top.make_top` on the target's pins; see there."""
    top = make_top(
        accelerator, target, clock_mhz, baud, input, output, identity, codes_crc=codes_crc
    )
    return BoardTop(top, target, clock_mhz)
