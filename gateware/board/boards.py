"""The boards' platforms, made of their data, and the top that sits on their pins."""

import math
from typing import Any

from amaranth.build import Attrs, Clock, Pins, Resource, Subsignal
from amaranth.hdl import Cat, ClockDomain, Const, Elaboratable, Module, Signal, Value
from amaranth.lib import io
from amaranth.vendor import LatticeECP5Platform, LatticeICE40Platform

from gateware.device.live import LiveBus
from gateware.device.pll import ButtonReset, Pll, ResetHold
from gateware.link.top import Top, make_top
from pvq_hw.choices import SPI, UART
from pvq_hw.host.protocol import WireFormat
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES
from pvq_hw.target.boards import Pin, Target, get_target
from pvq_hw.target.pll import CrystalClock, solve_pll

__all__ = [
    "BUTTON_SECONDS",
    "BoardTop",
    "board_pins",
    "find_port",
    "input_pins",
    "make_board_top",
    "make_platform",
    "pin_direction",
    "platform_of",
]


BUTTON_SECONDS = 0.01  # longer than contacts bounce
_FLASH_HIGH = ("wp", "hold")  # IO2 and IO3
_FLASH_TURNED = ("copi", *_FLASH_HIGH)  # bring data where the flash gives several bits a clock


def make_platform(target: str | Target) -> Any:
    """A fresh Amaranth platform for a target, made of its data; one platform serves one build."""
    board = get_target(target)
    base, more = platform_of(board.family, board)
    values: dict[str, Any] = {
        "device": board.device.name,
        "package": board.package,
        "default_clk": board.clk.path[0],
        "resources": _resources(board),
        "connectors": [],
        **more,
    }
    return type("BoardPlatform", (base,), values)()


class _Ecp5Platform(LatticeECP5Platform):
    pack_opts = ""

    def toolchain_prepare(self, fragment: Any, name: str, **overrides: Any) -> Any:
        options = {"ecppack_opts": self.pack_opts} | overrides
        return super().toolchain_prepare(fragment, name, **options)


platform_of: ValueFace[[Target], tuple[type[Any], dict[str, Any]]] = ARCHITECTURES.face("platform")
"""The class that a board's Amaranth platform derives from, and what it needs beside the pins."""


@platform_of.of("ice40")
def _ice40(family: str, board: Target) -> tuple[type[Any], dict[str, Any]]:
    return LatticeICE40Platform, {}


@platform_of.of("ecp5")
def _ecp5(family: str, board: Target) -> tuple[type[Any], dict[str, Any]]:
    return _Ecp5Platform, {"speed": board.speed, "pack_opts": _pack_options(board)}


def _pack_options(board: Target) -> str:
    frequency = f"--freq {board.mclk_mhz:g}" if board.mclk_mhz else ""
    return f"{'--compress' if board.compress else ''} {frequency}".strip()


def input_pins(board: Target) -> set[int]:
    """The identities of the pins that bring something in."""
    return {
        *(id(pin) for pin in (board.clk, board.rx, board.reset)),
        *(id(pin) for key, pin in board.flash if key == "cipo"),
        *(id(pin) for key, pin in board.spi if key != "cipo"),
    }


def pin_direction(board: Target, pin: Pin) -> str:
    """Of a pin's port: ``"i"``, ``"o"``, or ``"io"`` of one that may be either."""
    if any(pin is other for key, other in board.flash if key in _FLASH_TURNED):
        return "io"
    return "i" if id(pin) in input_pins(board) else "o"


def board_pins(
    board: Target, link: str = UART, *, decides: bool = False, loads: bool = False
) -> list[tuple[str, Pin]]:
    """The pins that a `BoardTop` uses whose accelerator ``decides``, or ``loads`` its codes, each
    with a plain name."""
    line: tuple[tuple[str, Pin], ...] = (("rx", board.rx), ("tx", board.tx))
    if link == SPI:
        line = tuple((f"spi_{key}", pin) for key, pin in board.spi)
    shown = [(f"decision_{key}", pin) for key, pin in board.decision] if decides else []
    button = [] if board.reset is None else [("reset", board.reset)]
    # Those that are held high are called after their part of the resource: esp32_gpio0.
    high = [("_".join(filter(None, pin.path[::2])), pin) for _, pin in board.high]
    flash = [(f"flash_{key}", pin) for key, pin in board.flash] if loads else []
    return [("clk", board.clk), *line, *board.leds, *button, *shown, *high, *flash]


def _resources(board: Target) -> list[Resource]:
    """The board's pins, those of one resource together."""
    parts: dict[tuple[str, int], list[Any]] = {}
    for pin in board.pins:
        name, number, part = pin.path
        pins = Pins(pin.name, dir=pin_direction(board, pin), invert=pin.invert)
        what = [pins, Attrs(**dict(pin.attributes))]
        if pin is board.clk:
            what.insert(1, Clock(board.crystal_mhz * 1e6))
        parts.setdefault((name, number), []).extend([Subsignal(part, *what)] if part else what)
    return [Resource(name, number, *what) for (name, number), what in parts.items()]


class BoardTop(Elaboratable):
    """A `Top` on a board's pins: oscillator, PLL, reset, link, LEDs and a decision's pins.

    All logic is in the ``sync`` domain, which runs from the PLL and is constrained to its
    frequency. Its reset comes on at once when the PLL loses its lock, goes off in step with the
    clock, and holds until the PLL locks; on iCE40 15 us longer. So it does while the board's button
    is pressed, if it has one, and until that was let go for `BUTTON_SECONDS`.

    Parameters
    ----------
    top : Top
    target : str or Target
        Whose `make_platform` it is built with.
    clock_mhz : float
        The wish that ``top`` was made for.
    """

    def __init__(self, top: Top, target: str | Target, clock_mhz: float) -> None:
        self._top = top
        self._target = get_target(target)
        self._pll = solve_pll(self._target, clock_mhz)

    @property
    def clock_mhz(self) -> float:
        """The frequency that the PLL achieves, MHz: what a build must meet."""
        return float(self._pll.output) / 1e6

    @property
    def hold_clocks(self) -> int:
        """Cycles for which the reset holds on after the lock."""
        return math.ceil(self._target.device.architecture.hold_seconds * self._pll.hz)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.top = self._top
        self._clock(m, platform)
        board = self._target
        line = (("rx", board.rx), ("tx", board.tx)) if self._top.link == UART else ()
        for name, pin in (*line, *board.leds):
            self._connect(m, platform, name, pin)
        if self._top.link == SPI:
            self._spi(m, platform)
        if self._top.decision_pins is not None:
            for bit, (key, pin) in zip(self._top.decision, board.decision, strict=True):
                buffer = io.Buffer("o", find_port(platform, pin))
                m.submodules["decision_" + key] = buffer
                m.d.comb += buffer.o.eq(bit)
        for name, pin in board.high:
            m.submodules["high_" + name] = buffer = io.Buffer("o", find_port(platform, pin))
            m.d.comb += buffer.o.eq(1)
        if self._top.codes_crc is not None:
            self._flash(m, platform)
        return m

    def _flash(self, m: Module, platform: Any) -> None:
        """The pins that are active low are inverted by their ports. Without a flash the circuit
        reads ones, which aren't the codes, and waits for the serial line to bring them."""
        pins, ports = self._top.flash, dict(self._target.flash)
        if not ports:
            m.d.comb += pins.cipo.eq(1)
            return
        levels = {"cs": ~pins.cs_n, "clk": pins.clk, "copi": pins.copi}
        levels |= {name: Const(0) for name in _FLASH_HIGH if name in ports}
        bits = len(pins.cipo)
        given = ("cipo",) if bits == 1 else ("copi", "cipo", *_FLASH_HIGH)[:bits]
        taken = dict[str, Value]()
        for name in (*levels, "cipo"):
            way = "i" if name == "cipo" else "io" if name in given else "o"
            buffer = io.Buffer(way, find_port(platform, ports[name]))
            m.submodules[f"flash_{name}"] = buffer
            if way != "i":
                m.d.comb += buffer.o.eq(levels[name])
            if way == "io":
                m.d.comb += buffer.oe.eq(pins.copi_oe)
            if way != "o":
                taken[name] = ~buffer.i if name in _FLASH_HIGH else buffer.i
        m.d.comb += pins.cipo.eq(Cat(taken[name] for name in given))

    def _spi(self, m: Module, platform: Any) -> None:
        """The pin that is active low is inverted by its port. ``cipo`` is driven while selected."""
        pins: Any = self._top.spi
        ports = dict(self._target.spi)
        for name, level in (("cs", pins.cs_n), ("clk", pins.clk), ("copi", pins.copi)):
            m.submodules[f"spi_{name}"] = buffer = io.Buffer("i", find_port(platform, ports[name]))
            m.d.comb += level.eq(~buffer.i if name == "cs" else buffer.i)
        m.submodules.spi_cipo = buffer = io.Buffer("o", find_port(platform, ports["cipo"]))
        m.d.comb += [buffer.o.eq(pins.cipo), buffer.oe.eq(pins.selected)]

    def _connect(self, m: Module, platform: Any, name: str, pin: Pin) -> None:
        direction = "i" if name == "rx" else "o"
        m.submodules[f"{name}_buffer"] = buffer = io.Buffer(direction, find_port(platform, pin))
        if direction == "i":
            m.d.comb += getattr(self._top, name).eq(buffer.i)
        else:
            m.d.comb += buffer.o.eq(getattr(self._top, name))

    def _button(self, m: Module, platform: Any, pin: Pin) -> Signal:
        # Names behind "pll", after which yosys calls the clock's net and the constraint calls for.
        m.submodules.reset_buffer = buffer = io.Buffer("i", find_port(platform, pin))
        m.submodules.reset_button = button = ButtonReset(math.ceil(BUTTON_SECONDS * self._pll.hz))
        m.d.comb += button.pressed.eq(buffer.i)
        return button.on

    def _clock(self, m: Module, platform: Any) -> None:
        m.domains.sync = sync = ClockDomain("sync")
        port = find_port(platform, self._target.clk)
        m.submodules.pll = pll = Pll(self._pll, port, pad=self._target.pad)
        m.submodules.reset = reset = ResetHold(self.hold_clocks)
        pin = self._target.reset
        released = Const(1, 1) if pin is None else ~self._button(m, platform, pin)
        m.d.comb += [
            sync.clk.eq(pll.clk),
            reset.locked.eq(pll.locked & released),
            sync.rst.eq(reset.rst),
        ]
        if type(self._pll) is not CrystalClock:
            # Else the oscillator's pin is constrained already.
            platform.add_clock_constraint(pll.clk, float(self._pll.output))


def find_port(platform: Any, pin: Pin) -> Any:
    """The pin's port; the other parts of its resource are left alone."""
    name, number, part = pin.path
    # A resource can be requested once only, but several pins may be parts of it.
    ports = platform.__dict__.setdefault("_pvq_ports", {})
    if (name, number) not in ports:
        ports[name, number] = platform.request(name, number, dir="-")
    return getattr(ports[name, number], part) if part else ports[name, number]


def make_board_top(
    accelerator: Any,
    target: str | Target,
    clock_mhz: float,
    baud: int | None,
    input: WireFormat,
    output: WireFormat,
    identity: bytes,
    codes_crc: int | None = None,
    stored: bool = False,
    live: LiveBus | None = None,
    places: bool | None = None,
    measure: bool = False,
    link: str = UART,
) -> BoardTop:
    """`gateware.link.top.make_top` on the target's pins; see there.

    ``places`` says whether the accelerator decides by places, or by a bit for each score; then the
    board's pins for that show it. None where it gives scores.
    """
    pins = len(get_target(target).decision)
    top = make_top(
        accelerator, target, clock_mhz, baud, input, output, identity,
        codes_crc=codes_crc, stored=stored, live=live, measure=measure,
        link=link, decision=(pins, places) if pins and places is not None else None,
    )  # fmt: skip
    return BoardTop(top, target, clock_mhz)
