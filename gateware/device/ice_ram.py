"""A block RAM of the iCE40 as an instance: what Yosys infers costs LUTs and flip-flops beside it.

Inferred, a read port has to give the old word where the same address is written at that moment,
and Yosys adds the comparison and the registers for it: about 20 flip-flops and 10 LUTs for each
block. Nothing here reads what is being written. Lattice FPGA-TN-02002 (memory usage guide for
iCE40 devices) describes SB_RAM40_4K: words of 8, 4 and 2 bits lie on every second, fourth and
eighth data line.
"""

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["IceRam"]

# By width: mode, first data line, distance of data lines, bits of an address.
_MODES = {16: (0, 0, 1, 8), 8: (1, 0, 2, 9), 4: (2, 1, 4, 10), 2: (3, 3, 8, 11)}


class IceRam(wiring.Component):
    """One SB_RAM40_4K with a write and a read port of one width; read latency 1 cycle.

    Reading the address that is being written is undefined, and so are words before they are
    written. No reset.

    Parameters
    ----------
    width : int
        2, 4, 8 or 16; the depth follows.
    bits : int
        Bits in use, at most ``width``.
    holds : bool
        Adds ``r_en``: where it is low, ``r_data`` stays.
    """

    def __init__(self, width: int, bits: int, *, holds: bool = False) -> None:
        self.width, self.bits, self.holds = width, bits, holds
        address = _MODES[width][3]
        super().__init__(
            {
                "w_en": In(1),
                "w_addr": In(address),
                "w_data": In(bits),
                "r_addr": In(address),
                "r_data": Out(bits),
                **({"r_en": In(1)} if holds else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mode, first, step, _ = _MODES[self.width]
        w_data, r_data = Signal(16), Signal(16)
        for bit in range(self.bits):
            line = first + bit * step
            m.d.comb += [w_data[line].eq(self.w_data[bit]), self.r_data[bit].eq(r_data[line])]
        w_addr, r_addr = Signal(11), Signal(11)
        m.d.comb += [w_addr.eq(self.w_addr), r_addr.eq(self.r_addr)]
        m.submodules.ram = Instance(
            "SB_RAM40_4K",
            **{f"p_INIT_{row:X}": Const(0, 256) for row in range(16)},
            p_READ_MODE=mode,
            p_WRITE_MODE=mode,
            i_RCLK=ClockSignal("sync"),
            i_RCLKE=Const(1, 1),
            i_RE=self.r_en if self.holds else Const(1, 1),
            i_RADDR=r_addr,
            o_RDATA=r_data,
            i_WCLK=ClockSignal("sync"),
            i_WCLKE=Const(1, 1),
            i_WE=self.w_en,
            i_WADDR=w_addr,
            i_WDATA=w_data,
            i_MASK=Const(0, 16),
        )
        return m
