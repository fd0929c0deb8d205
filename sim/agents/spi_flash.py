"""The other end of a board's SPI flash pins, cycle by cycle: an independent model of the chip.

Like the agents of `sim.agents.streams` it is told once a cycle what was on the wires.
"""

from pvq_hw.errors import CheckError

__all__ = ["SpiFlash"]

_WAKE, _READ = 0xAB, 0x03


class SpiFlash:
    """A flash that knows two commands, as those of the W25Q family: 0xAB and 0x03, in SPI mode 0.

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

    Attributes
    ----------
    level : int
        To drive on the board's ``cipo``.
    commands : list of int
        The bytes that began each selection.
    """

    def __init__(
        self,
        contents: dict[int, bytes],
        wake_cycles: int = 100,
        delay: int = 1,
        asleep: bool = True,
    ) -> None:
        self._contents, self._wake_cycles, self._asleep = contents, wake_cycles, asleep
        self._delay = [1] * delay
        self._cycle = self._ready_at = 0
        self._cs_n, self._clk = 1, 0
        self._bits: list[int] = []
        self._out, self._selected_at = 1, 0
        self.level = 1
        self.commands: list[int] = []

    def byte(self, address: int) -> int:
        """What the flash holds at an address."""
        for start, data in self._contents.items():
            if start <= address < start + len(data):
                return data[address - start]
        return 0xFF

    def clock(self, cs_n: int, clk: int, copi: int) -> None:
        """One clock edge of the board, at which these levels were seen."""
        self._cycle += 1
        if cs_n != self._cs_n:
            self._select(cs_n, clk)
        elif not cs_n and clk > self._clk:
            self._rise(copi)
        elif not cs_n and clk < self._clk:
            self._fall()
        self._cs_n, self._clk = cs_n, clk
        self._delay.append(self._out)
        self.level = self._delay.pop(0)

    def _select(self, cs_n: int, clk: int) -> None:
        if clk:
            raise CheckError("Flash must be selected and released while its clock is low")
        if cs_n and self._asleep and self._bits[:8] == [int(b) for b in f"{_WAKE:08b}"]:
            self._asleep, self._ready_at = False, self._cycle + self._wake_cycles
        self._bits, self._out = [], 1

    def _rise(self, copi: int) -> None:
        self._bits.append(copi)
        if len(self._bits) == 8:
            command = self._number(0, 8)
            self.commands.append(command)
            if command not in (_WAKE, _READ):
                raise CheckError(f"Flash was given {command:#04x}, a command that it does not know")
            if command == _READ and not self._asleep and self._cycle < self._ready_at:
                raise CheckError("Flash was given a command before it had time to wake up")

    def _fall(self) -> None:
        count = len(self._bits)
        if count >= 32 and self._number(0, 8) == _READ and not self._asleep:
            place = count - 32
            byte = self.byte(self._number(8, 32) + place // 8 & 0xFFFFFF)
            self._out = byte >> (7 - place % 8) & 1

    def _number(self, start: int, end: int) -> int:
        return int("".join(map(str, self._bits[start:end])), 2)
