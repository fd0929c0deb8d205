"""The boards' clock: PLL primitives, and the reset that waits for them."""

from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.lib import io, wiring
from amaranth.lib.cdc import AsyncFFSynchronizer
from amaranth.lib.wiring import In, Out

from pvq_hw.target.pll import CrystalClock, Ecp5Pll, Ice40Pll, PllSettings, solve_pll

__all__ = ["Pll", "ResetHold", "solve_pll"]


class Pll(wiring.Component):
    """A clock from a pin.

    Parameters
    ----------
    settings : PllSettings
    port : amaranth.lib.io.SingleEndedPort
        The oscillator's pin.
    pad : bool
        On iCE40: the pin is the PLL's own, which reaches nothing but the PLL (SB_PLL40_PAD).

    Members
    -------
    clk, locked : Out(1)
        ``locked`` is asynchronous.
    """

    def __init__(self, settings: PllSettings, port: Any, *, pad: bool = False) -> None:
        self._settings = settings
        self._port = port
        self._pad = pad
        super().__init__({"clk": Out(1), "locked": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        if isinstance(self._settings, Ice40Pll):
            self._ice40(m, self._settings)
        elif isinstance(self._settings, Ecp5Pll):
            self._ecp5(m, self._settings)
        else:
            assert isinstance(self._settings, CrystalClock)
            m.d.comb += [self.clk.eq(self._buffered(m)), self.locked.eq(1)]
        return m

    def _buffered(self, m: Module) -> Signal:
        m.submodules.buffer = buffer = io.Buffer("i", self._port)
        return buffer.i

    def _ice40(self, m: Module, pll: Ice40Pll) -> None:
        parameters = {
            "p_FEEDBACK_PATH": "SIMPLE",
            "p_PLLOUT_SELECT": "GENCLK",
            "p_DIVR": Const(pll.divr, 4),
            "p_DIVF": Const(pll.divf, 7),
            "p_DIVQ": Const(pll.divq, 3),
            "p_FILTER_RANGE": Const(pll.filter_range, 3),
        }
        if self._pad:
            kind, reference = "SB_PLL40_PAD", {"i_PACKAGEPIN": self._port.io}
        else:
            kind, reference = "SB_PLL40_CORE", {"i_REFERENCECLK": self._buffered(m)}
        m.submodules.pll = Instance(
            kind,
            **parameters,
            **reference,
            i_RESETB=Const(1),
            i_BYPASS=Const(0),
            o_PLLOUTGLOBAL=self.clk,
            o_LOCK=self.locked,
        )

    def _ecp5(self, m: Module, pll: Ecp5Pll) -> None:
        direct = pll.opdiv == pll.osdiv
        feedback = self.clk if direct else Signal(name="clkop")
        second = {
            "p_CLKOS_ENABLE": "ENABLED",
            "p_CLKOS_DIV": pll.osdiv,
            "p_CLKOS_CPHASE": pll.osdiv - 1,
            "p_CLKOS_FPHASE": 0,
            "o_CLKOS": self.clk,
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
            i_CLKI=self._buffered(m),
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
            o_LOCK=self.locked,
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
