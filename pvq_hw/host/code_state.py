"""What a board says of the codes that it loads after configuration."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from pvq_hw.errors import InputError

__all__ = ["CodeState", "CodeStatus"]

_SECOND = 0x80  # in the byte of the state


class CodeState(IntEnum):
    """Only in READY does a board take frames."""

    READING = 0  # the flash
    CHECKING = 1
    READY = 2
    WRONG = 3  # the checksum
    ABSENT = 4  # the flash holds no codes, or another network's
    OPEN = 5  # for codes from the host


@dataclass(frozen=True)
class CodeStatus:
    """Payload of a CODES: the state, the CRC-32 of the words in memory when last checked, and
    whether the second of two banks is in service."""

    state: CodeState
    crc: int
    second: bool = False

    SIZE = 5

    def encode(self) -> bytes:
        """The payload: `SIZE` bytes."""
        return struct.pack("<BI", self.state | _SECOND * self.second, self.crc)

    @classmethod
    def decode(cls, payload: bytes) -> "CodeStatus":
        """Inverse of `encode`."""
        if len(payload) != cls.SIZE or payload[0] & ~_SECOND > max(CodeState):
            raise InputError(f"Status of codes must be {cls.SIZE} bytes, not {payload[:8].hex()}")
        state, crc = struct.unpack("<BI", payload)
        return cls(CodeState(state & ~_SECOND), crc, bool(state & _SECOND))
