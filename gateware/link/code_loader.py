"""Fills memories from the flash or the host, and lets frames in when their contents are right."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.device.spram import code_port
from gateware.link.crc import Crc32
from pvq_hw.engine.live_image import LiveLayout
from pvq_hw.engine.spram_image import HEADER_BYTES, CodeLayout
from pvq_hw.host.code_state import CodeState

__all__ = ["CodeLoader"]


class CodeLoader(wiring.Component):
    """Loads, reads all words back, compares their CRC-32 with that of the right contents.

    After reset it reads the flash, where the layout says that it may be there. The header must be
    the one that these codes have, else there is nothing to load: ABSENT. Then all words are
    written, read back and checked, in ``layout.check_steps`` cycles each: READY, or WRONG. Without
    a flash the memories have the contents of the bitstream, and are checked at once. The host may
    load at any time: `open`, bytes, `check`. What it wrote is checked in the same way, so that
    bytes may come twice, in any order and wrong in between.

    With two banks it loads and checks the one that is not in service. Once that is right, and
    nothing has been under way for 3 cycles, the two change places.

    Parameters
    ----------
    layout : CodeLayout or LiveLayout
    crc : int
        CRC-32 of the right words, as in the file's header.
    banks : int
        1, or 2.

    Members
    -------
    bytes : In(stream of 8 bits), always ready
        From the flash, at least 8 cycles apart.
    start, stop : Out(1)
        Strobes for the flash's reader.
    write, address, data : In
        A byte from the host, at least 4 cycles apart. The first ``layout.address_bytes`` are the
        address of `gateware.device.spram.code_port`, the others words to be written from there on,
        low byte first. Ignored unless open.
    open, check, reload : In(1)
        Strobes: take bytes from the host; check what there is, if open; read the flash again, or
        check the memories again (with two banks those that are not in service).
    state : Out(CodeState), crc : Out(32)
        ``crc`` is that of the last check.
    ready : Out(1)
        Frames may go in: the state is READY, or with two banks was so since the reset.
    quiet : In(1)
        Nothing reads the memories in service. Of two banks only.
    waiting : Out(1)
        The banks change places once it is quiet: no frame may begin.
    bank : Out(1)
        The one in service, of two.
    codes : Out(`gateware.device.spram.code_port`)
    """

    def __init__(self, layout: CodeLayout | LiveLayout, crc: int, banks: int = 1) -> None:
        if not layout.blocks:
            raise ValueError("There must be codes to load")
        self._layout, self._crc, self._spare = layout, crc, banks == 2
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
                "quiet": In(1),
                "waiting": Out(1),
                # Of two banks the bitstream fills the first, which is checked first.
                "bank": Out(1, init=int(self._spare)),
                "codes": Out(code_port(layout.block_bits, layout.word_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = Crc32(self._layout.seed)
        port: Any = self.codes
        flash = self._layout.flash
        # One flip-flop for each state, each next value out of strobes from registers.
        reading, checking, ready, wrong, absent, opened = (
            Signal(init=flash and state is CodeState.READING, name=state.name.lower())
            for state in CodeState
        )
        begin, full, check, judged, right = Signal(init=1), Signal(), Signal(), Signal(2), Signal()
        rewind, step = Signal(), Signal(range(self._layout.check_steps))
        end = self._pointer(m, rewind, checking, step)
        other = self._bytes(m, reading, opened, begin)
        last = self._check(m, crc, checking, step, end)
        leave = begin | self.open
        found: Value = checking & judged[1] & right
        if self._spare:
            found = self._exchange(m, found, leave)
        m.d.comb += [
            rewind.eq(begin | self.open | full | check),
            crc.clear.eq(full | check),
            self.crc.eq(crc.crc),
        ]
        if flash:
            m.d.sync += [
                full.eq(port.w_en & reading & end),
                reading.eq(begin | (reading & ~(other | full | leave))),
                absent.eq((reading & other) | (absent & ~leave)),
                self.start.eq(begin),
                self.stop.eq(other | full | self.open),
            ]
        else:
            m.d.sync += full.eq(begin)
        m.d.sync += [
            begin.eq(self.reload),
            check.eq(opened & self.check),
            judged.eq(Cat(last, judged[0])),
            right.eq(crc.crc == self._crc),
            checking.eq(full | check | (checking & ~(judged[1] | leave))),
            ready.eq(found | (ready & ~leave)),
            wrong.eq((checking & judged[1] & ~right) | (wrong & ~leave)),
            opened.eq(self.open | (opened & ~(check | begin))),
            port.load.eq(~ready),
        ]
        if self._spare:
            m.d.sync += self.ready.eq(self.ready | found)
        else:
            m.d.comb += self.ready.eq(ready)
        for state, flag in zip(
            CodeState, (reading, checking, ready, wrong, absent, opened), strict=True
        ):
            with m.If(flag):
                m.d.sync += self.state.eq(state)
        return m

    def _exchange(self, m: Module, right: Value, leave: Value) -> Signal:
        """The banks change places some time after a check that was right; gives the strobe."""
        calm, now = Signal(3), Signal()
        m.d.comb += now.eq(self.waiting & calm.all() & self.quiet & ~leave)
        m.d.sync += [
            self.waiting.eq(~leave & (right | (self.waiting & ~now))),
            calm.eq(Mux(self.waiting & self.quiet, Cat(1, calm)[:3], 0)),
            self.bank.eq(self.bank ^ now),
        ]
        return now

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
        with m.Elif(port.w_en | (step == self._layout.check_steps - 1)):
            m.d.sync += [word.eq(Mux(at_end, 0, word + 1)), block.eq(block + at_end)]
        return at_end & at_last

    def _bytes(self, m: Module, reading: Signal, opened: Signal, begin: Signal) -> Value:
        """Bytes of either source become words; gives whether the flash has another header."""
        port: Any = self.codes
        layout = self._layout
        size, head_bits = layout.word_bytes, (layout.address_bytes - 1).bit_length()
        turn, head = Signal(range(size)), Signal()
        word = Signal(8 * size)
        host = opened & self.write
        byte, take, absent = self._source(m, reading, opened, begin, host & ~head)
        last = turn == size - 1
        m.d.comb += port.w_data.eq(word)
        m.d.sync += [head.eq(self.address[head_bits:] == 0), port.w_en.eq(take & last)]
        with m.If(take):
            m.d.sync += [word.eq(Cat(word, byte)[8:]), turn.eq(Mux(last, 0, turn + 1))]
        with m.If(begin):
            m.d.sync += turn.eq(0)
        with m.If(host & head):
            m.d.sync += turn.eq(0)
            for k in range(min(layout.address_bytes, -(-len(port.addr) // 8))):
                with m.If(self.address[:head_bits] == k):
                    m.d.sync += port.addr[8 * k : 8 * k + 8].eq(self.data)
        return absent

    def _source(
        self, m: Module, reading: Signal, opened: Signal, begin: Signal, host: Value
    ) -> tuple[Value, Value, Value]:
        """A byte, whether it is a word's, and whether the flash has another header."""
        if not isinstance(self._layout, CodeLayout):
            return self.data, host, Const(0, 1)
        header = Array(Const(b, 8) for b in self._layout.header(self._crc))
        place, absent = Signal(range(HEADER_BYTES + 1)), Signal()
        wanted, byte, beyond = Signal(8), Signal(8), Signal()
        flash = reading & self.bytes.valid
        m.d.comb += [
            beyond.eq(place[-1]),
            byte.eq(Mux(opened, self.data, self.bytes.payload)),
        ]
        m.d.sync += [
            wanted.eq(header[place[:4]]),
            absent.eq(flash & ~beyond & (self.bytes.payload != wanted)),
        ]
        with m.If(begin):
            m.d.sync += place.eq(0)
        with m.Elif(flash):
            m.d.sync += place.eq(place + ~beyond)
        return byte, (flash & beyond) | host, absent

    def _check(self, m: Module, crc: Crc32, checking: Signal, step: Signal, end: Value) -> Signal:
        """The bytes of every word go into the CRC; gives the strobe after the last one."""
        size, steps = self._layout.word_bytes, self._layout.check_steps
        bits = (size - 1).bit_length()
        word = Signal(8 * size)
        m.d.comb += word.eq(self.codes.r_data)
        turns: list[Value] = [Const(0, 8)] * (1 << bits)
        for k in range(size):
            turns[(steps - size + k) % len(turns)] = word.word_select(k, 8)
        m.d.comb += [
            crc.valid.eq(checking & (step >= steps - size)),
            crc.data.eq(Array(turns)[step[:bits]]),
        ]
        last = Signal()
        m.d.comb += last.eq(checking & (step == steps - 1) & end)
        return last
