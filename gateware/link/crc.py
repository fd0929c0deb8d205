"""CRCs as circuits: the packets' (`pvq_hw.host.protocol.crc16`) and the codes' (`zlib.crc32`)."""

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from pvq_hw.host.protocol import CRC_INIT, CRC_POLYNOMIAL

__all__ = ["Crc16", "Crc32"]

_CRC32_POLYNOMIAL = 0xEDB88320  # reflected


class Crc16(wiring.Component):
    """A byte-wide CRC-16/IBM-3740: one byte a cycle, the result one cycle later.

    Members
    -------
    clear : In(1)
        Starts anew; ``valid`` is ignored meanwhile.
    valid, data : In
        A byte.
    crc : Out(16)
        A byte that equals its upper half shifts it up by 8: so the CRC comes out, high byte first.
    """

    def __init__(self) -> None:
        super().__init__(
            {"clear": In(1), "valid": In(1), "data": In(8), "crc": Out(16, init=CRC_INIT)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mixed = Signal(8)
        m.d.comb += mixed.eq(self.data ^ self.crc[8:])
        following: list[Value] = [*Const(0, 8), *self.crc[:8]]
        for i in range(8):
            for bit in range(16):
                if _around(1 << i) >> bit & 1:
                    following[bit] = following[bit] ^ mixed[i]
        with m.If(self.clear):
            m.d.sync += self.crc.eq(CRC_INIT)
        with m.Elif(self.valid):
            m.d.sync += self.crc.eq(Cat(*following))
        return m


def _around(byte: int) -> int:
    """What a byte that is shifted out of the register leaves in it."""
    value = byte << 8
    for _ in range(8):
        value = value << 1 ^ (CRC_POLYNOMIAL if value >> 15 & 1 else 0)
    return value & 0xFFFF


class Crc32(wiring.Component):
    """A byte-wide CRC-32/ISO-HDLC, `zlib.crc32`: one byte a cycle, the result one cycle later.

    Parameters
    ----------
    start : int
        The CRC of what is taken to have come before.

    Members
    -------
    clear : In(1)
        Starts anew; ``valid`` is ignored meanwhile.
    valid, data : In
        A byte.
    crc : Out(32)
    """

    def __init__(self, start: int = 0) -> None:
        self._start = start ^ 0xFFFFFFFF
        super().__init__({"clear": In(1), "valid": In(1), "data": In(8), "crc": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        register = Signal(32, init=self._start)
        mixed = Signal(8)
        m.d.comb += [mixed.eq(self.data ^ register[:8]), self.crc.eq(~register)]
        following: list[Value] = [*register[8:], *Const(0, 8)]
        for i in range(8):
            for bit in range(32):
                if _reflected(1 << i) >> bit & 1:
                    following[bit] = following[bit] ^ mixed[i]
        with m.If(self.clear):
            m.d.sync += register.eq(self._start)
        with m.Elif(self.valid):
            m.d.sync += register.eq(Cat(*following))
        return m


def _reflected(byte: int) -> int:
    """What a byte that is shifted out of the reflected register leaves in it."""
    for _ in range(8):
        byte = byte >> 1 ^ (_CRC32_POLYNOMIAL if byte & 1 else 0)
    return byte
