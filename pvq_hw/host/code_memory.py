"""The golden model of a board's code memories: what requests do to them, in plain Python."""

import struct
import zlib

from pvq_hw.engine.spram_image import CodeLayout
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.host.protocol import ErrorCode, Kind
from pvq_hw.target.block_ram import SPRAM_DEPTH

__all__ = ["CODE_KINDS", "CodeMemory"]

CODE_KINDS = (
    Kind.CODES_STATUS,
    Kind.CODES_OPEN,
    Kind.CODES_WRITE,
    Kind.CODES_CHECK,
    Kind.CODES_RELOAD,
)


class CodeMemory:
    """The SPRAMs and the state of their contents, once all that was begun is done.

    Parameters
    ----------
    layout : CodeLayout
    crc : int
        Of the right codes.
    flash : bytes
        What the flash holds from the codes' offset on.
    """

    def __init__(self, layout: CodeLayout, crc: int, flash: bytes = b"") -> None:
        self._layout, self.crc, self._flash = layout, crc, flash
        self._words = {
            number << 14 | at: 0 for number, b in enumerate(layout.blocks) for at in range(b.words)
        }
        self.status = CodeStatus(CodeState.READING, 0)
        self._reload()

    def carry_out(self, kind: Kind, payload: bytes) -> ErrorCode | None:
        """Does what a request asks for; gives the reason where it is refused."""
        if not (self._holds_words(payload) if kind is Kind.CODES_WRITE else not payload):
            return ErrorCode.BAD_LENGTH
        if kind in (Kind.CODES_WRITE, Kind.CODES_CHECK) and self.status.state is not CodeState.OPEN:
            return ErrorCode.NOT_READY
        if kind is Kind.CODES_OPEN:
            self.status = CodeStatus(CodeState.OPEN, self.status.crc)
        elif kind is Kind.CODES_WRITE:
            self._write(payload)
        elif kind is Kind.CODES_CHECK:
            self._check()
        elif kind is Kind.CODES_RELOAD:
            self._reload()
        return None

    @property
    def ready(self) -> bool:
        """Whether frames are taken."""
        return self.status.state is CodeState.READY

    def _holds_words(self, payload: bytes) -> bool:
        """Whether there is an address, and one word or more."""
        return len(payload) >= 4 and len(payload) % 2 == 0

    def _write(self, payload: bytes) -> None:
        address, *words = struct.unpack(f"<{len(payload) // 2}H", payload)
        for word in words:
            if address in self._words:
                self._words[address] = word
            number, at = divmod(address, SPRAM_DEPTH)
            last = self._layout.blocks[min(number, len(self._layout.blocks) - 1)].words - 1
            address = (
                ((number + 1) % 4) << 14 if at == last else number << 14 | (at + 1) % (1 << 14)
            )

    def _check(self) -> None:
        crc = zlib.crc32(struct.pack(f"<{len(self._words)}H", *self._words.values()))
        state = CodeState.READY if crc == self.crc else CodeState.WRONG
        self.status = CodeStatus(state, crc)

    def _reload(self) -> None:
        header = self._layout.header(self.crc)
        if self._flash[: len(header)] != header:
            self.status = CodeStatus(CodeState.ABSENT, self.status.crc)
            return
        data = self._flash[len(header) :][: self._layout.size].ljust(self._layout.size, b"\xff")
        words = struct.unpack(f"<{len(data) // 2}H", data)
        self._words = dict(zip(self._words, words, strict=True))
        self._check()
