"""The golden model of a board's top: bytes in, bytes out, in plain Python."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pvq_hw.host.code_memory import CODE_KINDS, CodeMemory
from pvq_hw.host.live_memory import LiveMemory
from pvq_hw.host.protocol import (
    REPEAT_BYTES,
    TOP_BYTES,
    Counters,
    Description,
    ErrorCode,
    Kind,
    Measurement,
    Packet,
    PacketDecoder,
    WireFormat,
    output_sums,
)

__all__ = ["Responder"]

IntArray = npt.NDArray[np.int64]


class Responder:
    """Answers as the circuit does, when every reply is awaited before the next frame is sent.

    Then nothing overruns, and the replies come in the order of the requests.

    Parameters
    ----------
    description : Description
    predict : callable
        int64 (count,) -> int64 (outputs,): the accelerator.
    codes : CodeMemory, optional
        Of a board that loads its codes; or a `LiveMemory`, of one whose weights are loaded while
        it runs.
    cycles : callable, optional
        Cycles that so many frames take; of a board that measures.
    """

    def __init__(
        self,
        description: Description,
        predict: Callable[[IntArray], IntArray],
        codes: CodeMemory | None = None,
        cycles: Callable[[int], int] = lambda frames: frames,
    ) -> None:
        self.codes, self.cycles = codes, cycles
        self.description = description
        self.predict = predict
        self._decoder = PacketDecoder()
        self.counts = {"frames": 0, "bad_crc": 0, "truncated": 0}

    def feed(self, data: bytes) -> bytes:
        """The replies to the packets that ``data`` completes."""
        replies = b""
        for byte in data:
            for packet in self._decoder.feed(bytes((byte,))):
                replies += self._answer(packet).encode()
            for packet in self._decoder.bad:
                self.counts["bad_crc"] += 1
                replies += self._error(packet, ErrorCode.BAD_CRC).encode()
            self._decoder.bad.clear()
        return replies

    def idle(self) -> bytes:
        """The reply to a line that was quiet for the time-out."""
        started = self._decoder.started
        self._decoder.idle()
        if started is None:
            return b""
        self.counts["truncated"] += 1
        return self._error(started, ErrorCode.TRUNCATED).encode()

    def _error(self, packet: Packet, code: ErrorCode) -> Packet:
        return Packet(Kind.ERROR, packet.tag, bytes((code, packet.kind)))

    def _answer(self, packet: Packet) -> Packet:
        lengths = {
            Kind.DESCRIBE: 0,
            Kind.STATUS: 0,
            Kind.INFER: self.description.input.frame_bytes,
            Kind.CLASSIFY: self.description.input.frame_bytes,
        }
        if self.description.measures:
            lengths[Kind.REPEAT] = self.description.input.frame_bytes + REPEAT_BYTES
        if self.codes is not None and packet.kind in CODE_KINDS:
            refused = self.codes.carry_out(Kind(packet.kind), packet.payload)
            if refused is not None:
                return self._error(packet, refused)
            return Packet(Kind.CODES, packet.tag, self.codes.status.encode())
        if packet.kind not in lengths:
            return self._error(packet, ErrorCode.BAD_KIND)
        kind = Kind(packet.kind)
        if len(packet.payload) != lengths[kind]:
            return self._error(packet, ErrorCode.BAD_LENGTH)
        live = self.codes if isinstance(self.codes, LiveMemory) else None
        if kind is Kind.DESCRIBE:
            if live is not None and not live.ready:
                return self._error(packet, ErrorCode.NOT_READY)
            told = self.description if live is None else live.description
            return Packet(Kind.DESCRIPTION, packet.tag, told.encode())
        if kind is Kind.STATUS:
            counters = Counters(overruns=0, framing_errors=0, **self.counts)
            return Packet(Kind.COUNTERS, packet.tag, counters.encode())
        if self.codes is not None and not self.codes.ready:
            return self._error(packet, ErrorCode.NOT_READY)
        self.counts["frames"] += 1
        if kind is Kind.REPEAT:
            return Packet(Kind.MEASURED, packet.tag, self._measure(packet.payload).encode())
        out = self.predict(self.description.input.decode(packet.payload))
        if kind is Kind.INFER:
            return Packet(Kind.RESULTS, packet.tag, self.description.output.encode(out))
        best = int(np.argmax(out))
        return Packet(Kind.TOP, packet.tag, top_payload(self.description.output, best, out[best]))

    def _measure(self, payload: bytes) -> Measurement:
        """What comes of a frame, and how many further ones like it."""
        frame, count = payload[:-REPEAT_BYTES], payload[-REPEAT_BYTES:]
        frames = 1 + int.from_bytes(count, "little")
        outputs = self.predict(self.description.input.decode(frame))
        sums = output_sums(self.description.output, outputs, frames)
        return Measurement(frames, self.cycles(frames), sums)


def top_payload(output: WireFormat, index: int, value: int) -> bytes:
    """Index of the largest output and its value, 2 bytes each."""
    wide = WireFormat(1, output.format).encode([value])
    fill = b"\xff" if output.format.signed and wide[-1] & 0x80 else b"\0"
    return index.to_bytes(2, "little") + wide.ljust(TOP_BYTES - 2, fill)
