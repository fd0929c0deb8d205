"""The requests that load codes: from packets to `gateware.link.code_loader`, and what to answer."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.device.spram import CODE_PORT
from gateware.link.code_loader import CodeLoader
from gateware.link.control import CODES
from gateware.link.flash import FLASH_PINS, FlashReader
from gateware.link.packet import HEADER
from pvq_hw.engine.spram_image import CodeLayout
from pvq_hw.host.code_state import CodeState
from pvq_hw.host.protocol import ErrorCode, Kind

__all__ = ["CodeControl"]


class CodeControl(wiring.Component):
    """Carries out CODES_STATUS to CODES_RELOAD; reads the flash after reset.

    Parameters
    ----------
    layout : CodeLayout
    crc : int
        Of the right codes.
    flash_offset, wake_clocks : int
        See `gateware.link.flash.FlashReader`.

    Members
    -------
    header : In(HEADER)
        Of the packet under way; steady for 3 cycles before ``right``.
    write, address, data : In
        Its payload bytes.
    right : In(1)
        Strobe: the packet is whole and its CRC fits.
    quiet : In(1)
        No frame is in the accelerator.
    mine : Out(1), fine : Out(1), error : Out(ErrorCode)
        Whether the header's kind is one of these; whether it may be carried out; else why not.
    ready : Out(1)
        Frames may go in.
    status : Out(CODES)
        For the reply.
    codes : Out(CODE_PORT)
    flash : Out(FLASH_PINS)
    """

    def __init__(self, layout: CodeLayout, crc: int, flash_offset: int, wake_clocks: int) -> None:
        self._loader = CodeLoader(layout, crc)
        self._reader = FlashReader(flash_offset, wake_clocks)
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
                "codes": Out(CODE_PORT),
                "flash": Out(FLASH_PINS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.loader = loader = self._loader
        m.submodules.reader = reader = self._reader
        connect(m, reader.o, loader.bytes)
        connect(m, loader.codes, flipped(self.codes))
        connect(m, reader.pins, flipped(self.flash))
        m.d.comb += [
            reader.start.eq(loader.start),
            reader.stop.eq(loader.stop),
            loader.address.eq(self.address),
            loader.data.eq(self.data),
            self.ready.eq(loader.ready),
            self.status.state.eq(loader.state),
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
            # An address, and one word or more.
            sized.eq(Mux(write, ~length[0] & (length[2:] != 0), length == 0)),
            opened.eq(loader.state == CodeState.OPEN),
            self.mine.eq(status | start | write | check | reload),
            self.fine.eq(
                sized & (status | ((write | check) & opened) | ((start | reload) & self.quiet))
            ),
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
