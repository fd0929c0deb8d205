"""The requests that load memories: from packets to `gateware.link.code_loader`, and the answers."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.device.spram import code_port
from gateware.link.code_loader import CodeLoader
from gateware.link.control import CODES
from gateware.link.flash import FLASH_PINS, FlashReader
from gateware.link.packet import HEADER
from pvq_hw.engine.live_image import LiveLayout
from pvq_hw.engine.spram_image import CodeLayout
from pvq_hw.host.code_state import CodeState
from pvq_hw.host.protocol import ErrorCode, Kind

__all__ = ["CodeControl", "StreamControl"]


class CodeControl(wiring.Component):
    """Carries out CODES_STATUS to CODES_RELOAD; reads the flash after reset, where there is one.

    Parameters
    ----------
    layout : CodeLayout or LiveLayout
    crc : int
        Of the right codes.
    flash_offset, wake_clocks : int
        See `gateware.link.flash.FlashReader`.
    banks : int
        See `gateware.link.code_loader.CodeLoader`.

    Members
    -------
    header : In(HEADER)
        Of the packet under way; steady for 3 cycles before ``right``.
    write, address, data : In
        Its payload bytes.
    right : In(1)
        Strobe: the packet is whole and its CRC fits.
    quiet : In(1)
        No frame is in the accelerator, and nothing else reads what is loaded.
    mine : Out(1), fine : Out(1), error : Out(ErrorCode)
        Whether the header's kind is one of these; whether it may be carried out; else why not.
    ready : Out(1)
        Frames may go in.
    status : Out(CODES)
        For the reply.
    waiting, bank : Out(1)
        See `gateware.link.code_loader.CodeLoader`.
    codes : Out(`gateware.device.spram.code_port`)
    flash : Out(FLASH_PINS)
        Idle without a flash.
    """

    def __init__(
        self,
        layout: CodeLayout | LiveLayout,
        crc: int,
        flash_offset: int,
        wake_clocks: int,
        banks: int = 1,
    ) -> None:
        self._layout, self._spare = layout, banks == 2
        self._loader = CodeLoader(layout, crc, banks)
        self._reader = FlashReader(flash_offset, wake_clocks) if layout.flash else None
        super().__init__(
            {
                "header": In(HEADER),
                "write": In(1),
                "address": In(16),
                "data": In(8),
                "right": In(1),
                "quiet": In(1),
                "mine": Out(1),
                "fine": Out(1),
                "error": Out(ErrorCode),
                "ready": Out(1),
                "status": Out(CODES),
                "waiting": Out(1),
                "bank": Out(1),
                "codes": Out(code_port(layout.block_bits, layout.word_bits)),
                "flash": Out(FLASH_PINS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.loader = loader = self._loader
        connect(m, loader.codes, flipped(self.codes))
        if self._reader is not None:
            m.submodules.reader = reader = self._reader
            connect(m, reader.o, loader.bytes)
            connect(m, reader.pins, flipped(self.flash))
            m.d.comb += [reader.start.eq(loader.start), reader.stop.eq(loader.stop)]
        m.d.comb += [
            loader.quiet.eq(self.quiet),
            self.waiting.eq(loader.waiting),
            self.bank.eq(loader.bank),
            loader.address.eq(self.address),
            loader.data.eq(self.data),
            self.ready.eq(loader.ready),
            self.status.state.eq(loader.state),
            self.status.state[-1].eq(loader.bank & loader.ready if self._spare else 0),
            self.status.crc.eq(loader.crc),
        ]
        status, start, write, check, reload = (
            Signal(name=kind.name.lower())
            for kind in (
                Kind.CODES_STATUS,
                Kind.CODES_OPEN,
                Kind.CODES_WRITE,
                Kind.CODES_CHECK,
                Kind.CODES_RELOAD,
            )
        )
        sized, opened = Signal(), Signal()
        kind, length = self.header.kind, self.header.length
        # An address, and one word or more.
        some: Value = length[2:] != 0
        if self._layout.word_bytes == 2 and self._layout.address_bytes == 2:
            some = ~length[0] & some
        free = self.quiet | self._spare
        m.d.sync += [
            *(
                flag.eq(kind == code)
                for flag, code in (
                    (status, Kind.CODES_STATUS),
                    (start, Kind.CODES_OPEN),
                    (write, Kind.CODES_WRITE),
                    (check, Kind.CODES_CHECK),
                    (reload, Kind.CODES_RELOAD),
                )
            ),
            sized.eq(Mux(write, some, length == 0)),
            opened.eq(loader.state == CodeState.OPEN),
            self.mine.eq(status | start | write | check | reload),
            self.fine.eq(sized & (status | ((write | check) & opened) | ((start | reload) & free))),
            self.error.eq(
                Mux(
                    ~sized,
                    ErrorCode.BAD_LENGTH,
                    Mux(write | check, ErrorCode.NOT_READY, ErrorCode.OVERRUN),
                )
            ),
            loader.open.eq(self.right & self.fine & start),
            loader.check.eq(self.right & self.fine & check),
            loader.reload.eq(self.right & self.fine & reload),
        ]
        m.d.comb += loader.write.eq(self.write & write)
        return m


class StreamControl(wiring.Component):
    """Tells the state of codes that an accelerator reads from its flash for every frame.

    Of the requests that `CodeControl` has it knows CODES_STATUS: READING before the first pass is
    through, READY while all that was read was right, else WRONG. Nothing loads such codes but a
    programmer of the flash, so other requests are refused as unknown ones.

    Members
    -------
    header, mine, fine, error, ready, status : see `CodeControl`
    waiting : Out(1)
        Low.
    codes_right, codes_wrong : In(1)
        See `gateware.core.shared_core.SharedCore`.
    """

    def __init__(self, crc: int) -> None:
        self._crc = crc
        super().__init__(
            {
                "header": In(HEADER),
                "codes_right": In(1),
                "codes_wrong": In(1),
                "mine": Out(1),
                "fine": Out(1),
                "error": Out(ErrorCode),
                "ready": Out(1),
                "status": Out(CODES),
                "waiting": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        asked = Signal()
        m.d.sync += [
            asked.eq(self.header.kind == Kind.CODES_STATUS),
            self.mine.eq(asked),
            self.fine.eq(asked & (self.header.length == 0)),
        ]
        # The checksum is told while it is the right one.
        m.d.comb += [
            self.error.eq(ErrorCode.BAD_LENGTH),
            self.ready.eq(self.codes_right),
            self.status.state.eq(
                Mux(
                    self.codes_right,
                    CodeState.READY,
                    Mux(self.codes_wrong, CodeState.WRONG, CodeState.READING),
                )
            ),
            self.status.crc.eq(Mux(self.codes_right, self._crc, 0)),
        ]
        return m
