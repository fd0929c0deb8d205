"""A block RAM of the ECP5 as an instance, since Yosys infers no output register.

Lattice FPGA-TN-02204 (ECP5 memory usage guide) describes DP16KD. Port A writes, port B reads. In
36-bit mode the block is pseudo dual-ported (PDPW16KD there): the read word is {DOB, DOA}, and
there is no write enable, but byte enables.
"""

from collections.abc import Sequence

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pvq_hw.target.block_contents import block_bits

__all__ = ["EbrBlock", "init_values"]

# Address lines that a word of this width leaves unused.
_SKIP = {1: 0, 2: 1, 4: 2, 9: 3, 18: 4, 36: 5}


def init_values(words: Sequence[int], width: int) -> dict[str, Const]:
    """The 64 INITVAL parameters of 320 bits: 16 words of 18 bits in steps of 20 bits each."""
    bits = block_bits(words, width, "ecp5").reshape(64, 16, 18).astype(object)
    values = {}
    for row in range(64):
        value = sum(int(b) << 20 * i + k for i, w in enumerate(bits[row]) for k, b in enumerate(w))
        values[f"INITVAL_{row:02X}"] = Const(value, 320)
    return values


class EbrBlock(wiring.Component):
    """One DP16KD: a write port (if ``writable``) and a read port of one width.

    Parameters
    ----------
    width : int
        1, 2, 4, 9, 18 or 36; the depth follows.
    bits : int
        Bits in use, at most ``width``.
    init : sequence of int
    writable : bool
    registered : bool
        Whether the output register is in use: read latency 2 cycles instead of 1.
    """

    def __init__(
        self,
        width: int,
        bits: int,
        *,
        init: Sequence[int] = (),
        writable: bool = False,
        registered: bool = True,
    ) -> None:
        self.width, self.bits, self.init = width, bits, tuple(init)
        self.writable, self.registered = writable, registered
        address = 14 - _SKIP[width]
        ports = {"r_addr": In(address), "r_data": Out(bits)}
        if writable:
            ports |= {"w_en": In(1), "w_addr": In(address), "w_data": In(bits)}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        skip = _SKIP[self.width]
        r_addr, w_addr = Signal(14), Signal(14)
        w_data = Signal(36)
        m.d.comb += r_addr[skip:].eq(self.r_addr)
        w_en = Const(0, 1)
        if self.writable:
            m.d.comb += [w_addr[skip:].eq(self.w_addr), w_data.eq(self.w_data)]
            # The lowest address lines are the byte enables in the wide modes.
            if self.width == 36:
                w_en = Const(1, 1)
                m.d.comb += w_addr[:4].eq(self.w_en.replicate(4))
            else:
                w_en = self.w_en
                m.d.comb += w_addr[: 2 if self.width == 18 else 0].eq(-1)
        out_a, out_b = Signal(18), Signal(18)
        mode = "OUTREG" if self.registered else "NOREG"
        wires: dict[str, object] = {}
        for i in range(14):
            wires |= {f"i_ADA{i}": w_addr[i], f"i_ADB{i}": r_addr[i]}
        for i in range(18):
            wires |= {f"i_DIA{i}": w_data[i], f"i_DIB{i}": w_data[18 + i]}
            wires |= {f"o_DOA{i}": out_a[i], f"o_DOB{i}": out_b[i]}
        for i in range(3):
            wires |= {f"i_CSA{i}": Const(0, 1), f"i_CSB{i}": Const(0, 1)}
        m.submodules.ebr = Instance(
            "DP16KD",
            **{f"p_{k}": v for k, v in init_values(self.init, self.width).items()},
            p_DATA_WIDTH_A=self.width,
            p_DATA_WIDTH_B=self.width,
            p_REGMODE_A=mode,
            p_REGMODE_B=mode,
            p_RESETMODE="SYNC",
            p_ASYNC_RESET_RELEASE="SYNC",
            p_CSDECODE_A="0b000",
            p_CSDECODE_B="0b000",
            p_WRITEMODE_A="NORMAL",
            p_WRITEMODE_B="NORMAL",
            p_GSR="DISABLED",
            i_CLKA=ClockSignal("sync"),
            i_CLKB=ClockSignal("sync"),
            i_WEA=w_en,
            i_WEB=Const(0, 1),
            i_CEA=Const(1, 1),
            i_CEB=Const(1, 1),
            i_OCEA=Const(1, 1),
            i_OCEB=Const(1, 1),
            i_RSTA=Const(0, 1),
            i_RSTB=Const(0, 1),
            **wires,
        )
        word = Cat(out_a, out_b) if self.width == 36 else out_b
        m.d.comb += self.r_data.eq(word)
        return m
