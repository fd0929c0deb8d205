"""FlatBuffers that nobody vouches for.

Written here since the format's Python library has no verifier: its accessors follow any offset,
negative ones too. Every place is compared with the length of the buffer before it is read, and
vectors are views of the buffer, so nothing is allocated for what a file only claims. Offsets may
lead to one place again and again, so that what is looked through is counted: `Table.vector`.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Buffer", "FlatbufferError", "Table"]


_READS = 8  # times that a buffer may be read; whole files read theirs once
_FREE = 1 << 20  # bytes that any buffer may be read of


class FlatbufferError(Exception):
    """An offset, size or count that leads out of the buffer, or to one place time and again."""


@dataclass(frozen=True)
class Buffer:
    """The bytes of a file, read at places that are checked."""

    data: bytes
    _read: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    def charge(self, size: int) -> None:
        """Counts bytes that are read; raises FlatbufferError once they are far more than there
        are."""
        self._read[0] += size
        if self._read[0] > _READS * len(self.data) + _FREE:
            raise FlatbufferError("its tables share names, scales or indices far too often")

    def number(self, place: int, code: str) -> Any:
        """The little-endian number at ``place``; ``code`` as `struct` has it."""
        size = struct.calcsize("<" + code)
        self.check(place, size)
        return struct.unpack_from("<" + code, self.data, place)[0]

    def check(self, place: int, size: int) -> None:
        """Raises FlatbufferError unless ``size`` bytes are at ``place``."""
        if place < 0 or size < 0 or place + size > len(self.data):
            raise FlatbufferError(
                f"{size:,} bytes at {place:,} are beyond its {len(self.data):,} bytes"
            )

    def target(self, place: int) -> int:
        """Where the forward offset at ``place`` leads."""
        return int(place + self.number(place, "I"))

    def root(self) -> "Table":
        """The table that the buffer begins with."""
        return Table(self, self.target(0))


@dataclass(frozen=True)
class Table:
    """A table: fields by number, as the schema counts them; absent ones have their default."""

    buffer: Buffer
    place: int

    def field(self, number: int) -> int | None:
        """Place of a field; None where the table lacks it."""
        read = self.buffer.number
        index = self.place - read(self.place, "i")
        entry = 4 + 2 * number
        if entry + 2 > read(index, "H"):
            return None
        offset = read(index + entry, "H")
        return self.place + offset if offset else None

    def scalar(self, number: int, code: str, default: Any = 0) -> Any:
        """A number, or ``default``."""
        place = self.field(number)
        return default if place is None else self.buffer.number(place, code)

    def table(self, number: int) -> "Table | None":
        """A table within this one."""
        place = self.field(number)
        return None if place is None else Table(self.buffer, self.buffer.target(place))

    def vector(self, number: int, dtype: str, *, charged: bool = True) -> npt.NDArray[Any]:
        """A vector of numbers, as a view of the buffer; empty where it is absent. It is charged
        for unless nobody looks at its values."""
        kind = np.dtype("<" + dtype)
        place = self.field(number)
        if place is None:
            return np.zeros(0, dtype=kind)
        start = self.buffer.target(place)
        count = self.buffer.number(start, "I")
        self.buffer.check(start + 4, count * kind.itemsize)
        if charged:
            self.buffer.charge(count * kind.itemsize)
        return np.frombuffer(self.buffer.data, dtype=kind, count=count, offset=start + 4)

    def tables(self, number: int, what: str, limit: int) -> list["Table"]:
        """A vector of tables, at most ``limit``."""
        place = self.field(number)
        if place is None:
            return []
        start = self.buffer.target(place)
        count = self.buffer.number(start, "I")
        if count > limit:
            raise FlatbufferError(f"it has {count:,} {what}; at most {limit:,} are read")
        self.buffer.check(start + 4, 4 * count)
        places = range(start + 4, start + 4 + 4 * count, 4)
        return [Table(self.buffer, self.buffer.target(place)) for place in places]

    def text(self, number: int) -> str:
        """A string; bytes that are not UTF-8 are replaced."""
        return self.vector(number, "u1").tobytes().decode(errors="replace")
