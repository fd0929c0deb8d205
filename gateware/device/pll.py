"""The boards' clock: PLL primitives, and the reset that waits for them."""

from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.lib import io, wiring
from amaranth.lib.cdc import AsyncFFSynchronizer, FFSynchronizer
from amaranth.lib.wiring import In, Out

from pvq_hw.registry import Face
from pvq_hw.target.pll import CrystalClock, Ecp5Pll, Ice40Pll, solve_pll

__all__ = ["ButtonReset", "Pll", "ResetHold", "clock_circuit", "solve_pll"]


class Pll(wiring.Component):
    """A clock from a pin.

    Parameters
    ----------
    settings : CrystalClock, Ice40Pll or Ecp5Pll
        Whether the pin's clock is taken as it is, or what a PLL makes of it.
    port : amaranth.lib.io.SingleEndedPort
        The oscillator's pin.
    pad : bool
        On iCE40: the pin is the PLL's own, which reaches nothing but the PLL (SB_PLL40_PAD).

    Members
    -------
    clk, locked : Out(1)
        ``locked`` is asynchronous.
    """

    def __init__(self, settings: CrystalClock, port: Any, *, pad: bool = False) -> None:
        self._settings = settings
        self.port = port
        self.pad = pad
        super().__init__({"clk": Out(1), "locked": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        clock_circuit(self._settings, m, self)
        return m

    def buffered(self, m: Module) -> Signal:
        """The oscillator, through a buffer."""
        m.submodules.buffer = buffer = io.Buffer("i", self.port)
        return buffer.i


clock_circuit: Face[[Module, Pll], None] = Face("clock", "circuit")
"""Puts into a module what gives a `Pll` its clock, by the kind of its settings."""


@clock_circuit.of(CrystalClock)
def _crystal(settings: CrystalClock, m: Module, clock: Pll) -> None:
    m.d.comb += [clock.clk.eq(clock.buffered(m)), clock.locked.eq(1)]


@clock_circuit.of(Ice40Pll)
def _ice40(pll: Ice40Pll, m: Module, clock: Pll) -> None:
    parameters = {
        "p_FEEDBACK_PATH": "SIMPLE",
        "p_PLLOUT_SELECT": "GENCLK",
        "p_DIVR": Const(pll.divr, 4),
        "p_DIVF": Const(pll.divf, 7),
        "p_DIVQ": Const(pll.divq, 3),
        "p_FILTER_RANGE": Const(pll.filter_range, 3),
    }
    if clock.pad:
        kind, reference = "SB_PLL40_PAD", {"i_PACKAGEPIN": clock.port.io}
    else:
        kind, reference = "SB_PLL40_CORE", {"i_REFERENCECLK": clock.buffered(m)}
    m.submodules.pll = Instance(
        kind,
        **parameters,
        **reference,
        i_RESETB=Const(1),
        i_BYPASS=Const(0),
        o_PLLOUTGLOBAL=clock.clk,
        o_LOCK=clock.locked,
    )


@clock_circuit.of(Ecp5Pll)
def _ecp5(pll: Ecp5Pll, m: Module, clock: Pll) -> None:
    direct = pll.opdiv == pll.osdiv
    feedback = clock.clk if direct else Signal(name="clkop")
    second = {
        "p_CLKOS_ENABLE": "ENABLED",
        "p_CLKOS_DIV": pll.osdiv,
        "p_CLKOS_CPHASE": pll.osdiv - 1,
        "p_CLKOS_FPHASE": 0,
        "o_CLKOS": clock.clk,
    }
    m.submodules.pll = Instance(
        "EHXPLLL",
        # The analog settings are those that Lattice's tools and Project Trellis use.
        a_ICP_CURRENT="12",
        a_LPF_RESISTOR="8",
        a_MFG_ENABLE_FILTEROPAMP="1",
        a_MFG_GMCREF_SEL="2",
        p_PLLRST_ENA="DISABLED",
        p_INTFB_WAKE="DISABLED",
        p_STDBY_ENABLE="DISABLED",
        p_DPHASE_SOURCE="DISABLED",
        p_OUTDIVIDER_MUXA="DIVA",
        p_OUTDIVIDER_MUXB="DIVB",
        p_OUTDIVIDER_MUXC="DIVC",
        p_OUTDIVIDER_MUXD="DIVD",
        p_FEEDBK_PATH="CLKOP",
        p_CLKI_DIV=pll.refdiv,
        p_CLKFB_DIV=pll.fbdiv,
        p_CLKOP_ENABLE="ENABLED",
        p_CLKOP_DIV=pll.opdiv,
        p_CLKOP_CPHASE=pll.opdiv - 1,
        p_CLKOP_FPHASE=0,
        **({} if direct else second),
        i_CLKI=clock.buffered(m),
        i_CLKFB=feedback,
        o_CLKOP=feedback,
        i_RST=Const(0),
        i_STDBY=Const(0),
        i_PHASESEL0=Const(0),
        i_PHASESEL1=Const(0),
        i_PHASEDIR=Const(1),
        i_PHASESTEP=Const(1),
        i_PHASELOADREG=Const(1),
        i_PLLWAKESYNC=Const(0),
        i_ENCLKOP=Const(0),
        o_LOCK=clock.locked,
    )


class ResetHold(wiring.Component):
    """Reset of the ``sync`` domain: on at once without a lock, off in step with the clock.

    It holds for ``clocks + 3`` to ``clocks + 4`` edges after the lock. The circuit uses the
    domain's clock only, never its reset.

    Parameters
    ----------
    clocks : int
        Edges to hold beyond synchronization.

    Members
    -------
    locked : In(1)
        Asynchronous.
    rst : Out(1)
        From a register that is set asynchronously.
    """

    def __init__(self, clocks: int) -> None:
        self._clocks = clocks
        super().__init__({"locked": In(1), "rst": Out(1, init=1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.hold = ClockDomain("hold", async_reset=True, local=True)
        m.d.comb += ClockSignal("hold").eq(ClockSignal("sync"))
        unlocked = Signal(init=1)
        m.submodules.synchronizer = AsyncFFSynchronizer(
            self.locked, unlocked, o_domain="hold", async_edge="neg"
        )
        m.d.comb += ResetSignal("hold").eq(unlocked)
        count = Signal(range(self._clocks + 1))
        with m.If(count == self._clocks):
            m.d.hold += self.rst.eq(0)
        with m.Else():
            m.d.hold += count.eq(count + 1)
        return m


class ButtonReset(wiring.Component):
    """A push button, without its bounces: on 2 to 3 clocks after it is pressed, off once it was let
    go for long enough.

    The circuit uses the clock of the ``sync`` domain only, whose reset hangs on it.

    Parameters
    ----------
    clocks : int
        For which it must be let go: the next power of two.

    Members
    -------
    pressed : In(1)
        Asynchronous.
    on : Out(1)
        From a register, 0 after configuration.
    """

    def __init__(self, clocks: int) -> None:
        self._bits = max(1, (clocks - 1).bit_length())
        super().__init__({"pressed": In(1), "on": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.button = ClockDomain("button", reset_less=True, local=True)
        m.d.comb += ClockSignal("button").eq(ClockSignal("sync"))
        pressed, count = Signal(), Signal(self._bits + 1)
        m.submodules.synchronizer = FFSynchronizer(self.pressed, pressed, o_domain="button")
        with m.If(pressed):
            m.d.button += [self.on.eq(1), count.eq(0)]
        with m.Elif(count[-1]):
            m.d.button += self.on.eq(0)
        with m.Elif(self.on):
            m.d.button += count.eq(count + 1)
        return m
