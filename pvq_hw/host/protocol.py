"""The packets between a host and a board: one specification for host, golden model and circuit.

A packet is ``P V``, kind, tag, length (2 bytes), payload, CRC (2 bytes); `docs/protocol.md` has the
tables. The CRC is CRC-16/IBM-3740 over kind to payload, sent high byte first, so that the CRC over
kind to CRC is 0. All other numbers are little-endian.
"""

import binascii
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pvq_hw.arith.formats import IntFormat
from pvq_hw.choices import UART
from pvq_hw.errors import CheckError, InputError
from pvq_hw.host.wire_format import MAX_PAYLOAD, WireFormat
from pvq_hw.target.baud import byte_bits

__all__ = [
    "CRC_INIT",
    "CRC_POLYNOMIAL",
    "DESCRIPTION_ROM",
    "ERROR_BYTES",
    "MAGIC",
    "MAX_PAYLOAD",
    "MOST_REPEATS",
    "OVERHEAD",
    "REPEATING_VERSION",
    "REPEAT_BYTES",
    "TOP_BYTES",
    "VERSION",
    "Counters",
    "Description",
    "ErrorCode",
    "Kind",
    "Measurement",
    "Packet",
    "PacketDecoder",
    "WireFormat",
    "check_repeated",
    "crc16",
    "output_sums",
]

VERSION = 1
REPEATING_VERSION = 2  # that of boards which take REPEAT; else the same
MOST_REPEATS = 1 << 16
MAGIC = b"PV"
CRC_POLYNOMIAL = 0x1021
CRC_INIT = 0xFFFF
DESCRIPTION_ROM = "description"
"""Name of the memory that an updatable board's description is in."""

OVERHEAD = 8  # bytes of a packet that are not payload
TOP_BYTES = 4  # payload of `Kind.TOP`: index and value
REPEAT_BYTES = 2  # behind the frame of `Kind.REPEAT`: how many further frames
ERROR_BYTES = 2  # payload of `Kind.ERROR`: code and kind


class Kind(IntEnum):
    """What a packet is; replies have the top bit set.

    0x10 to 0x14 are for boards that load their codes after configuration.
    """

    DESCRIBE = 0x01
    INFER = 0x02
    CLASSIFY = 0x03
    STATUS = 0x04
    REPEAT = 0x05
    CODES_STATUS = 0x10
    CODES_OPEN = 0x11
    CODES_WRITE = 0x12
    CODES_CHECK = 0x13
    CODES_RELOAD = 0x14
    DESCRIPTION = 0x81
    RESULTS = 0x82
    TOP = 0x83
    COUNTERS = 0x84
    MEASURED = 0x85
    CODES = 0x90
    ERROR = 0xFF


class ErrorCode(IntEnum):
    """Why a board refused a packet: first byte of an ERROR's payload; the kind follows it."""

    BAD_CRC = 1
    BAD_LENGTH = 2
    BAD_KIND = 3
    OVERRUN = 4
    TRUNCATED = 5
    NOT_READY = 6


def crc16(data: bytes) -> int:
    """CRC-16/IBM-3740: polynomial 0x1021, initial value 0xFFFF, nothing reflected or inverted."""
    return binascii.crc_hqx(data, CRC_INIT)


@dataclass(frozen=True)
class Packet:
    """One packet: ``kind`` and ``tag`` are bytes; a reply carries the tag of its request."""

    kind: int
    tag: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """The packet as bytes on the line."""
        if len(self.payload) > MAX_PAYLOAD:
            raise InputError(
                f"Payload must have at most {MAX_PAYLOAD:,} bytes, not {len(self.payload):,}"
            )
        body = struct.pack("<BBH", self.kind, self.tag, len(self.payload)) + self.payload
        return MAGIC + body + struct.pack(">H", crc16(body))


class PacketDecoder:
    """Finds the packets in a stream of bytes, as the circuit does: else it hunts for the magic.

    Attributes
    ----------
    bad : list of Packet
        Packets with a wrong CRC since the caller last looked; the payload is left empty.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.bad: list[Packet] = []

    @property
    def started(self) -> Packet | None:
        """The packet under way, as far as its kind and tag are known (0 before), or None."""
        if len(self._buffer) < len(MAGIC):
            return None
        head = bytes(self._buffer[2:4]).ljust(2, b"\0")
        return Packet(head[0], head[1])

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that ``data`` completes."""
        self._buffer += data
        found = []
        while self._hunt():
            kind, tag, length = struct.unpack_from("<BBH", self._buffer, len(MAGIC))
            total = OVERHEAD + length
            if len(self._buffer) < total:
                break
            body = bytes(self._buffer[len(MAGIC) : total])
            del self._buffer[:total]
            if crc16(body):
                self.bad.append(Packet(kind, tag))
            else:
                found.append(Packet(kind, tag, body[4:-2]))
        return found

    def idle(self) -> None:
        """The line was quiet for the time-out: what is under way is dropped."""
        self._buffer.clear()

    def _hunt(self) -> bool:
        """Drops bytes up to the magic; whether a whole header is there."""
        at = self._buffer.find(MAGIC)
        if at < 0:
            at = len(self._buffer) - self._buffer.endswith(MAGIC[:1])
        del self._buffer[:at]
        return len(self._buffer) >= OVERHEAD - 2


def check_repeated(frame_bytes: int) -> None:
    """Raises InputError for a frame that doesn't fit into a REPEAT."""
    most = MAX_PAYLOAD - REPEAT_BYTES
    if frame_bytes > most:
        raise InputError(
            f"A frame that is repeated must have at most {most:,} bytes, not {frame_bytes:,}: "
            "leave out --measure"
        )


@dataclass(frozen=True)
class Description:
    """What a board says of itself: payload of a DESCRIPTION.

    Parameters
    ----------
    input, output : WireFormat
    clock_hz, baud : int
    window : int
        Frames that a host may send before the first reply; each reply credits one more.
    identity : bytes
        First 8 bytes of the manifest's SHA-256: tells networks apart.
    version : int
        Of this protocol: 1, or 2 of a board that takes `Kind.REPEAT`.
    """

    input: WireFormat
    output: WireFormat
    clock_hz: int
    baud: int
    window: int
    identity: bytes
    version: int = VERSION

    def __post_init__(self) -> None:
        if len(self.identity) != 8:
            raise InputError(f"Identity must have 8 bytes, not {len(self.identity)}")
        if not 1 <= self.window <= 64:
            raise InputError(f"Window must be 1 to 64 frames, not {self.window}")
        if self.measures:
            check_repeated(self.input.frame_bytes)

    _LAYOUT = "<BBHBBHBBII8s"
    SIZE = struct.calcsize(_LAYOUT)

    @property
    def measures(self) -> bool:
        """Whether the board takes `Kind.REPEAT`."""
        return self.version >= REPEATING_VERSION

    def encode(self) -> bytes:
        """The payload: `SIZE` bytes."""
        sides = []
        for side in (self.input, self.output):
            sides += [side.count, side.format.bits, int(side.format.signed)]
        head = (self.version, self.window, *sides)
        return struct.pack(self._LAYOUT, *head, self.clock_hz, self.baud, self.identity)

    @classmethod
    def decode(cls, payload: bytes) -> "Description":
        """Inverse of `encode`; InputError on anything else, another version included."""
        if not payload or payload[0] not in (VERSION, REPEATING_VERSION):
            version = payload[0] if payload else "none"
            raise InputError(
                f"Board must speak version {VERSION} or {REPEATING_VERSION} of the protocol, not "
                f"{version}"
            )
        if len(payload) != cls.SIZE:
            raise InputError(f"Description must have {cls.SIZE} bytes, not {len(payload)}")
        version, window, n, x_bits, x_signed, m, o_bits, o_signed, clock, baud, identity = (
            struct.unpack(cls._LAYOUT, payload)
        )
        if not (clock and baud):
            raise InputError(f"Board's clock and baud must be positive, not {clock} and {baud}")
        x = WireFormat(n, IntFormat(x_bits, bool(x_signed)))
        o = WireFormat(m, IntFormat(o_bits, bool(o_signed)))
        return cls(x, o, clock, baud, window, identity, version)

    def require(self, expected: "Description") -> None:
        """Raises CheckError unless the board holds the expected network, at the expected rate."""
        if self.identity != expected.identity:
            raise CheckError(
                f"Board must hold network {expected.identity.hex()}, not {self.identity.hex()}; "
                "load the bitstream with `pvq-hw program`"
            )
        for name in ("input", "output", "baud"):
            has, wants = getattr(self, name), getattr(expected, name)
            if has != wants:
                raise CheckError(f"Board's {name} must be {wants}, not {has}")

    def frames_per_second(
        self, interval_cycles: int = 0, *, top: bool = False, link: str = UART
    ) -> float:
        """Rate over the line, both ways at once: that of request, reply or circuit."""
        reply = TOP_BYTES if top else self.output.frame_bytes
        size = OVERHEAD + max(self.input.frame_bytes, reply)
        seconds = size * byte_bits(link) / self.baud
        return 1 / max(seconds, interval_cycles / self.clock_hz)


@dataclass(frozen=True)
class Counters:
    """What a board counted since its reset, modulo 65,536: payload of a COUNTERS."""

    frames: int
    bad_crc: int
    overruns: int
    truncated: int
    framing_errors: int

    SIZE = 10

    def encode(self) -> bytes:
        """The payload: `SIZE` bytes."""
        counts = (self.frames, self.bad_crc, self.overruns, self.truncated, self.framing_errors)
        return struct.pack("<5H", *counts)

    @classmethod
    def decode(cls, payload: bytes) -> "Counters":
        """Inverse of `encode`."""
        if len(payload) != cls.SIZE:
            raise InputError(f"Counters must have {cls.SIZE} bytes, not {len(payload)}")
        return cls(*struct.unpack("<5H", payload))


@dataclass(frozen=True)
class Measurement:
    """What a board measured of one frame that it ran ``frames`` times, the input always valid and
    the output always ready: payload of a MEASURED.

    Parameters
    ----------
    frames : int
        1 to `MOST_REPEATS`.
    cycles : int
        Of its clock, from the first activation in to the last output out; modulo 2**32.
    sums : (int, int)
        `output_sums` of all outputs.
    """

    frames: int
    cycles: int
    sums: tuple[int, int]

    _LAYOUT = "<HIHH"
    SIZE = struct.calcsize(_LAYOUT)

    def encode(self) -> bytes:
        """The payload: `SIZE` bytes."""
        return struct.pack(self._LAYOUT, self.frames - 1, self.cycles % (1 << 32), *self.sums)

    @classmethod
    def decode(cls, payload: bytes) -> "Measurement":
        """Inverse of `encode`."""
        if len(payload) != cls.SIZE:
            raise InputError(f"Measurement must have {cls.SIZE} bytes, not {len(payload)}")
        further, cycles, *sums = struct.unpack(cls._LAYOUT, payload)
        return cls(further + 1, cycles, (sums[0], sums[1]))


def output_sums(wire: WireFormat, outputs: Any, frames: int) -> tuple[int, int]:
    """The sum of all outputs of a frame's repetitions, and the sum of that sum behind each output,
    both modulo 2**16.

    Values are as they are on the line, signed ones sign-extended. One wrong output changes the
    first sum, two that change places the second.
    """
    size = wire.value_bytes
    payload = wire.encode(outputs)
    values = [
        int.from_bytes(payload[at : at + size], "little", signed=wire.format.signed)
        for at in range(0, len(payload), size)
    ]
    total = sum(values)
    behind = sum((len(values) - at) * value for at, value in enumerate(values))
    weighted = frames * behind + len(values) * total * (frames * (frames - 1) // 2)
    return frames * total % (1 << 16), weighted % (1 << 16)
