"""The other end of a board's SPI flash pins, cycle by cycle: an independent model of the chip.

Like the agents of `sim.agents.streams` it is told once a cycle what was on the wires.
"""

from typing import Any

from pvq_hw.errors import CheckError

__all__ = ["SpiFlash", "seen_pins"]

_WAKE = 0xAB
# Read data, and fast read dual and quad output: clocks before the first bit, and bits a clock.
_READS = {0x03: (32, 1), 0x3B: (40, 2), 0x6B: (40, 4)}
_ONES = 0b1111  # IO3 to IO0, where nobody drives them: pulled up


def seen_pins(pins: Any) -> list[Any]:
    """The wires of `gateware.link.flash.flash_pins` that `SpiFlash.clock` is told of."""
    turned = [pins.copi_oe] if "copi_oe" in pins.signature.members else []
    return [pins.cs_n, pins.clk, pins.copi, *turned]


class SpiFlash:
    """A flash that knows four commands, as those of the W25Q family: 0xAB, 0x03, 0x3B and 0x6B, in
    SPI mode 0.

    Parameters
    ----------
    contents : mapping of int to bytes
        By address; what is not said reads 0xFF.
    wake_cycles : int
        tRES1: from the release of the chip select after 0xAB until commands are understood.
    delay : int
        Cycles from the clock's fall until the output follows.
    asleep : bool
        Whether it is in deep power-down, as after the configuration of an FPGA.
    quad : bool
        Whether its quad-enable bit is set, without which it doesn't take 0x6B.

    Attributes
    ----------
    level : int
        To drive on the board's ``cipo``: IO1, or where the FPGA says which pins it drives, IO0
        lowest.
    commands : list of int
        The bytes that began each selection.
    """

    def __init__(
        self,
        contents: dict[int, bytes],
        wake_cycles: int = 100,
        delay: int = 1,
        asleep: bool = True,
        quad: bool = True,
    ) -> None:
        self._contents, self._wake_cycles, self._asleep = contents, wake_cycles, asleep
        self._reads = {command: way for command, way in _READS.items() if quad or way[1] < 4}
        self._delay = [_ONES] * delay
        self._cycle = self._ready_at = 0
        self._cs_n, self._clk = 1, 0
        self._bits: list[int] = []
        self._out, self._width = _ONES, 0  # bits that it gives now
        self.level = 1
        self.commands: list[int] = []

    def byte(self, address: int) -> int:
        """What the flash holds at an address."""
        for start, data in self._contents.items():
            if start <= address < start + len(data):
                return data[address - start]
        return 0xFF

    def clock(self, cs_n: int, clk: int, copi: int, copi_oe: int | None = None) -> None:
        """One clock edge of the board, at which these levels were seen; ``copi_oe`` where several
        bits a clock are read."""
        self._cycle += 1
        if self._width > 1 and copi_oe != 0:
            raise CheckError("Flash must be alone on the pins that it gives data on")
        if not cs_n and copi_oe == 0 and len(self._bits) < 32:
            raise CheckError("Flash must be given its command and address on a pin that is driven")
        if cs_n != self._cs_n:
            self._select(cs_n, clk)
        elif not cs_n and clk > self._clk:
            self._rise(copi)
        elif not cs_n and clk < self._clk:
            self._fall()
        self._cs_n, self._clk = cs_n, clk
        self._delay.append(self._out)
        out = self._delay.pop(0)
        self.level = out >> 1 & 1 if copi_oe is None else out

    def _select(self, cs_n: int, clk: int) -> None:
        if clk:
            raise CheckError("Flash must be selected and released while its clock is low")
        if cs_n and self._asleep and self._bits[:8] == [int(b) for b in f"{_WAKE:08b}"]:
            self._asleep, self._ready_at = False, self._cycle + self._wake_cycles
        self._bits, self._out, self._width = [], _ONES, 0

    def _rise(self, copi: int) -> None:
        self._bits.append(copi)
        if len(self._bits) == 8:
            command = self._number(0, 8)
            self.commands.append(command)
            if command not in (_WAKE, *_READS):
                raise CheckError(f"Flash was given {command:#04x}, a command that it does not know")
            if command in _READS and not self._asleep and self._cycle < self._ready_at:
                raise CheckError("Flash was given a command before it had time to wake up")

    def _fall(self) -> None:
        count = len(self._bits)
        start, width = self._reads.get(self._number(0, 8), (0, 0)) if count >= 8 else (0, 0)
        if width and count >= start and not self._asleep:
            place = (count - start) * width
            byte = self.byte(self._number(8, 32) + place // 8 & 0xFFFFFF)
            given = byte >> (8 - width - place % 8) & (1 << width) - 1
            self._out = given << 1 | _ONES - 2 if width == 1 else given | _ONES & -1 << width
            self._width = width

    def _number(self, start: int, end: int) -> int:
        return int("".join(map(str, self._bits[start:end])), 2)
