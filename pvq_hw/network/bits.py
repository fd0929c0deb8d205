"""Reading and writing of packed files: bounded, and InputError when something is missing."""

from pvq_hw.errors import InputError

__all__ = ["BitReader", "ByteReader", "pack_bits", "varint"]


def varint(value: int) -> bytes:
    """LEB128: seven bits per byte, the low ones first, the top bit set on all but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack_bits(fields: list[tuple[int, int]]) -> bytes:
    """Fields (value, width) one after the other, most significant bit first, zeros to the byte."""
    text = "".join(format(value, f"0{width}b") for value, width in fields if width)
    size = -(-len(text) // 8)
    return int(text.ljust(8 * size, "0"), 2).to_bytes(size, "big") if text else b""


class ByteReader:
    """Reads bytes in order; ``what`` names the file in errors."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._position = 0
        self._what = what

    @property
    def left(self) -> int:
        """Bytes that are left."""
        return len(self._data) - self._position

    def fail(self, why: str) -> InputError:
        """The error to raise: one line that says where."""
        return InputError(f"{self._what} is broken at byte {self._position}: {why}")

    def peek(self) -> int:
        """The next byte, which stays; there must be one."""
        return self._data[self._position]

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > self.left:
            raise self.fail(f"{size} bytes must follow, but {self.left} do")
        self._position += size
        return self._data[self._position - size : self._position]

    def varint(self, most: int) -> int:
        """The next LEB128 number, at most ``most``, in its shortest form."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if value > most:
                raise self.fail(f"a number must be at most {most}")
            if byte < 0x80:
                if not byte and shift:
                    raise self.fail("a number must be written in its shortest form")
                return value
            shift += 7
            if shift > 63:
                raise self.fail(f"a number must be at most {most}")


class BitReader:
    """Reads fields that `pack_bits` wrote, taking whole bytes from a `ByteReader` as it goes."""

    def __init__(self, data: ByteReader) -> None:
        self._data = data
        self._value = 0
        self._held = 0

    def take(self, width: int) -> int:
        """The next ``width`` bits as an unsigned number."""
        missing = -(-(width - self._held) // 8)
        if missing > 0:
            self._value = self._value << (8 * missing) | int.from_bytes(
                self._data.take(missing), "big"
            )
            self._held += 8 * missing
        self._held -= width
        value = self._value >> self._held
        self._value &= (1 << self._held) - 1
        return value

    def close(self) -> None:
        """The bits that fill the last byte must be 0."""
        if self._value:
            raise self._data.fail("padding must be 0")
