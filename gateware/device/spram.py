"""Code memories in the UltraPlus's single-ported RAM, which a loader fills after configuration.

An SB_SPRAM256KA has 16,384 words of 16 bits, one port and no initial contents (Lattice
FPGA-TN-02022). A code memory is cut into such blocks: 16 bits of a word each, and where a core has
more than 16,384 words, several of them one behind the other. `pvq_hw.engine.spram_image` numbers
them.
"""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from gateware.device.bodies import PLAIN_BODIES, device_of
from pvq_hw.registry import ValueFace
from pvq_hw.target.block_ram import SPRAM_DEPTH, SPRAM_WIDTH

__all__ = ["CODE_PORT", "SpramBlock", "SpramRom", "code_port", "spram_block"]

_ADDRESS_BITS = (SPRAM_DEPTH - 1).bit_length()


def code_port(block_bits: int = 2, word_bits: int = SPRAM_WIDTH) -> wiring.Signature:
    """A loader's way to the blocks of all cores."""
    return wiring.Signature(
        {
            # High: the loader has the memories, no activation is taken, and units are in reset.
            "load": Out(1),
            "w_en": Out(1),
            # The block's number in the upper bits, the word in it in the lower 14.
            "addr": Out(_ADDRESS_BITS + block_bits),
            "w_data": Out(word_bits),
            # The word of ``addr`` two cycles before, unless that was a write.
            "r_data": In(word_bits),
        }
    )


CODE_PORT = code_port()
"""That of the UltraPlus's four SPRAMs."""


class SpramBlock(wiring.Component):
    """One block: reads or writes a word a cycle.

    ``data`` is the word of ``addr`` one cycle before; after a write it is undefined. Contents are
    undefined before they are written; no reset.

    Parameters
    ----------
    body : str
        ``"behavioral"``, ``"verilog"`` (an instance of ``pvq_spram``), or that of an architecture
        with such blocks.
    words : int
        In use; the behavioral body has the next power of two, where further addresses wrap.
    """

    def __init__(self, body: str = "behavioral", words: int = SPRAM_DEPTH) -> None:
        if body not in PLAIN_BODIES and not spram_block.has(body):
            raise ValueError(f"SPRAM's body must be that of a device that has it, not {body!r}")
        self.body, self.words = body, words
        super().__init__(
            {
                "w_en": In(1),
                "addr": In(_ADDRESS_BITS),
                "w_data": In(SPRAM_WIDTH),
                "data": Out(SPRAM_WIDTH),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if device_of(self.body):
            spram_block(self.body, m, self)
        elif self.body == "verilog":
            m.submodules.spram = Instance(
                "pvq_spram",
                i_clk=ClockSignal("sync"),
                i_w_en=self.w_en,
                i_addr=self.addr,
                i_w_data=self.w_data,
                o_data=self.data,
            )
        else:
            self._behavioral(m)
        return m

    def _behavioral(self, m: Module) -> None:
        # What was never written and what follows a write is something, but never what is hoped for.
        depth = 1 << (self.words - 1).bit_length()
        init = [(word * 0x9E37 + 0x79B9) & 0xFFFF for word in range(depth)]
        m.submodules.mem = mem = memory.Memory(shape=SPRAM_WIDTH, depth=depth, init=init)
        write, read = mem.write_port(), mem.read_port()
        wrote = Signal(reset_less=True)
        m.d.sync += wrote.eq(self.w_en)
        m.d.comb += [
            write.en.eq(self.w_en),
            write.addr.eq(self.addr),
            write.data.eq(self.w_data),
            read.addr.eq(self.addr),
            self.data.eq(Mux(wrote, ~read.data, read.data)),
        ]


spram_block = ValueFace[[Module, SpramBlock], None]("architecture", "SPRAM")
"""Puts the primitive of a `SpramBlock` into a module; architectures without it have no such RAM."""


@spram_block.of("ice40")
def _spram256ka(family: str, m: Module, block: SpramBlock) -> None:
    m.submodules.spram = Instance(
        "SB_SPRAM256KA",
        i_CLOCK=ClockSignal("sync"),
        i_ADDRESS=block.addr,
        i_DATAIN=block.w_data,
        i_MASKWREN=Const(0b1111, 4),
        i_WREN=block.w_en,
        i_CHIPSELECT=Const(1, 1),
        i_STANDBY=Const(0, 1),
        i_SLEEP=Const(0, 1),
        i_POWEROFF=Const(1, 1),  # active low
        o_DATAOUT=block.data,
    )


class SpramRom(wiring.Component):
    """A code memory: like `gateware.device.memory.Rom`, but its words come through ``codes``.

    While ``codes.load`` is low, ``data`` is the word of ``addr`` from ``latency`` cycles before.
    Loading and reading back go on in reset.

    Parameters
    ----------
    width, depth : int
    first : int
        Number of its first block; columns come first, then depth.
    latency : int
        1 or 2 cycles.
    body : str
        Of the blocks.
    """

    def __init__(
        self, width: int, depth: int, first: int, *, latency: int = 1, body: str = "behavioral"
    ) -> None:
        self.width, self.depth, self.first = width, depth, first
        self.latency, self.body = latency, body
        self.columns, self.ways = -(-width // SPRAM_WIDTH), -(-depth // SPRAM_DEPTH)
        if not 0 <= first <= 4 - self.columns * self.ways:
            raise ValueError(f"SPRAM must be blocks 0 to 3, not {self.columns * self.ways} more")
        if not 1 <= latency <= 2:
            raise ValueError(f"SPRAM's latency must be 1 or 2 cycles, not {latency}")
        super().__init__(
            {
                "addr": In(max(1, (depth - 1).bit_length())),
                "data": Out(width),
                "codes": In(CODE_PORT),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port: Any = self.codes
        ways, found = [], []
        for way in range(self.ways):
            parts = []
            for column in range(self.columns):
                number = self.first + way * self.columns + column
                data, mine = self._block(m, number)
                parts.append(data)
                found.append(Mux(mine, data, 0))
            ways.append(Cat(*parts)[: self.width])
        r_data: Value = Const(0, SPRAM_WIDTH)
        for part in found:
            r_data = r_data | part
        read = Signal(SPRAM_WIDTH, reset_less=True)
        m.d.sync += read.eq(r_data)
        m.d.comb += port.r_data.eq(read)
        word = ways[0]
        if self.ways > 1:
            upper = Signal(len(self.addr) - _ADDRESS_BITS)
            m.d.sync += upper.eq(self.addr[_ADDRESS_BITS:])
            for way, value in enumerate(ways[1:], 1):
                word = Mux(upper == way, value, word)
        if self.latency == 2:
            later = Signal(self.width, reset_less=True)
            m.d.sync += later.eq(word)
            word = later
        m.d.comb += self.data.eq(word)
        return m

    def _block(self, m: Module, number: int) -> tuple[Value, Signal]:
        """A block's data, and whether its last word was what the loader asked for."""
        port: Any = self.codes
        words = min(self.depth, SPRAM_DEPTH)
        m.submodules[f"block{number}"] = block = SpramBlock(self.body, words)
        mine = Signal(name=f"mine{number}", reset_less=True)
        here = port.addr[_ADDRESS_BITS:] == number
        m.d.sync += mine.eq(here)
        m.d.comb += [
            block.addr.eq(Mux(port.load, port.addr[:_ADDRESS_BITS], self.addr[:_ADDRESS_BITS])),
            block.w_en.eq(port.load & port.w_en & here),
            block.w_data.eq(port.w_data),
        ]
        return block.data, mine
