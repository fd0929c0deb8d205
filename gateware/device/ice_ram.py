"""A block RAM of the iCE40 as an instance: what Yosys infers costs LUTs and flip-flops beside it.

Inferred, a read port has to give the old word where the same address is written at that moment,
and Yosys adds the comparison and the registers for it: about 20 flip-flops and 10 LUTs for each
block. Nothing here reads what is being written. A ROM as an instance keeps its shape: Yosys may
give an inferred one another, so that its words couldn't be found in the bitstream. Lattice
FPGA-TN-02002 (memory usage guide for iCE40 devices) describes SB_RAM40_4K: words of 8, 4 and 2
bits lie on every second, fourth and eighth data line.
"""

from collections.abc import Sequence

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pvq_hw.target.block_contents import block_bits, section_lines

__all__ = ["IceRam"]

# By width: mode, first data line, distance of data lines, bits of an address.
_MODES = {16: (0, 0, 1, 8), 8: (1, 0, 2, 9), 4: (2, 1, 4, 10), 2: (3, 3, 8, 11)}


class IceRam(wiring.Component):
    """One SB_RAM40_4K: a write port (if ``writable``) and a read port of one width.

    The read latency is 1 cycle.

    Reading the address that is being written is undefined, and so are words before they are
    written. No reset.

    Parameters
    ----------
    width : int
        2, 4, 8 or 16; the depth follows.
    bits : int
        Bits in use, at most ``width``.
    init : sequence of int
        Words; zeros behind them.
    writable : bool
    holds : bool
        Adds ``r_en``: where it is low, ``r_data`` stays.
    """

    def __init__(
        self,
        width: int,
        bits: int,
        *,
        init: Sequence[int] = (),
        writable: bool = True,
        holds: bool = False,
    ) -> None:
        self.width, self.bits, self.init = width, bits, tuple(init)
        self.writable, self.holds = writable, holds
        address = _MODES[width][3]
        ports = {"r_addr": In(address), "r_data": Out(bits)}
        if writable:
            ports |= {"w_en": In(1), "w_addr": In(address), "w_data": In(bits)}
        super().__init__(ports | ({"r_en": In(1)} if holds else {}))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mode, first, step, _ = _MODES[self.width]
        w_data, r_data = Signal(16), Signal(16)
        for bit in range(self.bits):
            line = first + bit * step
            m.d.comb += self.r_data[bit].eq(r_data[line])
            if self.writable:
                m.d.comb += w_data[line].eq(self.w_data[bit])
        w_addr, r_addr = Signal(11), Signal(11)
        m.d.comb += r_addr.eq(self.r_addr)
        if self.writable:
            m.d.comb += w_addr.eq(self.w_addr)
        clock = ClockSignal("sync")
        rows = section_lines(block_bits(self.init, self.width, "ice40"), "ice40")
        m.submodules.ram = Instance(
            "SB_RAM40_4K",
            **{f"p_INIT_{i:X}": Const(int(row, 16), 256) for i, row in enumerate(rows)},
            p_READ_MODE=mode,
            p_WRITE_MODE=mode,
            i_RCLK=clock,
            i_RCLKE=Const(1, 1),
            i_RE=self.r_en if self.holds else Const(1, 1),
            i_RADDR=r_addr,
            o_RDATA=r_data,
            i_WCLK=clock if self.writable else Const(0, 1),
            i_WCLKE=Const(int(self.writable), 1),
            i_WE=self.w_en if self.writable else Const(0, 1),
            i_WADDR=w_addr,
            i_WDATA=w_data,
            i_MASK=Const(0, 16),
        )
        return m
