"""Fills the code memories from the flash or the host, and lets frames in when they are right."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.device.spram import CODE_PORT
from gateware.link.crc import Crc32
from pvq_hw.engine.spram_image import HEADER_BYTES, CodeLayout
from pvq_hw.host.code_state import CodeState

__all__ = ["CodeLoader"]


class CodeLoader(wiring.Component):
    """Loads, reads all words back, compares their CRC-32 with that of the right codes.

    After reset it reads the flash. The header must be the one that these codes have, else there is
    nothing to load: ABSENT. Then all words are written, read back and checked, in 4 cycles each:
    READY, or WRONG. The host may load at any time: `open`, bytes, `check`. What it wrote is checked
    in the same way, so that bytes may come twice, in any order and wrong in between.

    Parameters
    ----------
    layout : CodeLayout
    crc : int
        CRC-32 of the right words, as in the file's header.

    Members
    -------
    bytes : In(stream of 8 bits), always ready
        From the flash, at least 8 cycles apart.
    start, stop : Out(1)
        Strobes for the flash's reader.
    write, address, data : In
        A byte from the host, at least 4 cycles apart. Bytes 0 and 1 are the address of
        `gateware.device.spram.CODE_PORT`, the others words to be written from there on, low byte
        first. Ignored unless open.
    open, check, reload : In(1)
        Strobes: take bytes from the host; check what there is, if open; read the flash again.
    state : Out(CodeState), crc : Out(32)
        ``crc`` is that of the last check.
    ready : Out(1)
        The state is READY.
    codes : Out(CODE_PORT)
    """

    def __init__(self, layout: CodeLayout, crc: int) -> None:
        if not layout.blocks:
            raise ValueError("There must be codes to load")
        self._layout, self._crc = layout, crc
        super().__init__(
            {
                "bytes": In(stream.Signature(8, always_ready=True)),
                "start": Out(1),
                "stop": Out(1),
                "write": In(1),
                "address": In(16),
                "data": In(8),
                "open": In(1),
                "check": In(1),
                "reload": In(1),
                "state": Out(CodeState),
                "crc": Out(32),
                "ready": Out(1),
                "codes": Out(CODE_PORT),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = Crc32()
        port: Any = self.codes
        # One flip-flop for each state, each next value out of strobes from registers.
        reading, checking, ready, wrong, absent, opened = (
            Signal(init=state is CodeState.READING, name=state.name.lower()) for state in CodeState
        )
        begin, full, check, judged, right = Signal(init=1), Signal(), Signal(), Signal(2), Signal()
        rewind, step = Signal(), Signal(2)
        end = self._pointer(m, rewind, checking, step)
        other = self._bytes(m, reading, opened, begin)
        last = self._check(m, crc, checking, step, end)
        m.d.comb += [
            rewind.eq(begin | self.open | full | check),
            crc.clear.eq(full | check),
            self.ready.eq(ready),
            self.crc.eq(crc.crc),
        ]
        leave = begin | self.open
        m.d.sync += [
            begin.eq(self.reload),
            full.eq(port.w_en & reading & end),
            check.eq(opened & self.check),
            judged.eq(Cat(last, judged[0])),
            right.eq(crc.crc == self._crc),
            reading.eq(begin | (reading & ~(other | full | leave))),
            checking.eq(full | check | (checking & ~(judged[1] | leave))),
            ready.eq((checking & judged[1] & right) | (ready & ~leave)),
            wrong.eq((checking & judged[1] & ~right) | (wrong & ~leave)),
            absent.eq((reading & other) | (absent & ~leave)),
            opened.eq(self.open | (opened & ~(check | begin))),
            self.start.eq(begin),
            self.stop.eq(other | full | self.open),
            port.load.eq(~ready),
        ]
        for state, flag in zip(
            CodeState, (reading, checking, ready, wrong, absent, opened), strict=True
        ):
            with m.If(flag):
                m.d.sync += self.state.eq(state)
        return m

    def _pointer(self, m: Module, rewind: Signal, checking: Signal, step: Signal) -> Value:
        """The address goes through all words of all blocks; gives whether it is at the last."""
        port: Any = self.codes
        word, block = port.addr[:14], port.addr[14:]
        ends = Array(Const(b.words - 1, 14) for b in self._layout.blocks)
        at_end, at_last = Signal(), Signal()
        m.d.sync += [
            at_end.eq(word == ends[block]),
            at_last.eq(block == len(self._layout.blocks) - 1),
            step.eq(Mux(checking, step + 1, 0)),
        ]
        # A word is at hand for 4 cycles or more, so that `at_end` is that of this word.
        with m.If(rewind):
            m.d.sync += port.addr.eq(0)
        with m.Elif(port.w_en | (step == 3)):
            m.d.sync += [word.eq(Mux(at_end, 0, word + 1)), block.eq(block + at_end)]
        return at_end & at_last

    def _bytes(self, m: Module, reading: Signal, opened: Signal, begin: Signal) -> Signal:
        """Bytes of either source become words; gives whether the flash has another header."""
        port: Any = self.codes
        header = Array(Const(b, 8) for b in self._layout.header(self._crc))
        place, odd, head, absent = Signal(range(HEADER_BYTES + 1)), Signal(), Signal(), Signal()
        wanted, low = Signal(8), Signal(8)
        beyond, byte, second = Signal(), Signal(8), Signal()
        flash, host = reading & self.bytes.valid, opened & self.write
        m.d.comb += [
            beyond.eq(place[-1]),
            byte.eq(Mux(opened, self.data, self.bytes.payload)),
            second.eq(Mux(opened, self.address[0], odd)),
        ]
        m.d.sync += [
            head.eq(self.address[1:] == 0),
            wanted.eq(header[place[:4]]),
            absent.eq(flash & ~beyond & (self.bytes.payload != wanted)),
            port.w_en.eq(second & ((flash & beyond) | (host & ~head))),
        ]
        with m.If(flash | host):
            m.d.sync += [low.eq(byte), port.w_data.eq(Cat(low, byte))]
        with m.If(begin):
            m.d.sync += [place.eq(0), odd.eq(0)]
        with m.Elif(flash):
            m.d.sync += [place.eq(place + ~beyond), odd.eq(odd ^ beyond)]
        with m.If(host & head):
            m.d.sync += port.addr.word_select(self.address[0], 8).eq(self.data)
        return absent

    def _check(self, m: Module, crc: Crc32, checking: Signal, step: Signal, end: Value) -> Signal:
        """Two bytes of every word go into the CRC; gives the strobe after the last one."""
        m.d.comb += [
            crc.valid.eq(checking & step[1]),
            crc.data.eq(self.codes.r_data.word_select(step[0], 8)),
        ]
        last = Signal()
        m.d.comb += last.eq(checking & (step == 3) & end)
        return last
