"""Bytes over SPI: what fills the line where there are none, and how it is told from them.

A controller clocks bytes both ways at once, whether there is something to say or not. So each end
sends `FILL` where it has no byte, which is left out by the other, and a byte that is `FILL` or
`ESCAPE` as `ESCAPE` and the byte with `FLIP` in it changed: the octet stuffing of RFC 1662,
section 4.2, with its flag as the fill.
"""

__all__ = ["ESCAPE", "FILL", "FLIP", "Unstuffer", "stuffed"]

FILL, ESCAPE = 0x7E, 0x7D
FLIP = 0x20

_TABLE = [bytes((ESCAPE, n ^ FLIP)) if n in (FILL, ESCAPE) else bytes((n,)) for n in range(256)]


def stuffed(data: bytes) -> bytes:
    """The bytes as they go over the line."""
    return b"".join([_TABLE[byte] for byte in data])


class Unstuffer:
    """Takes what comes over the line apart, as the circuit does."""

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, data: bytes) -> bytes:
        """The bytes that were sent; fill may come anywhere."""
        found = bytearray()
        for byte in data.replace(bytes((FILL,)), b""):
            if byte == ESCAPE and not self._escaped:
                self._escaped = True
            else:
                found.append(byte ^ FLIP if self._escaped else byte)
                self._escaped = False
        return bytes(found)
