"""The other end of a board's serial line, cycle by cycle: an independent model of a UART.

Like the agents of `sim.agents.streams` it is told once a cycle what was on the wire, and says what
to drive until the next clock edge.
"""

from collections import deque

from pvq_hw.errors import CheckError

__all__ = ["SerialLine"]


class SerialLine:
    """Sends and receives bytes, 8N1, least significant bit first.

    Parameters
    ----------
    clocks_per_bit : float
        Of this end; need not be whole, so that a rate error can be simulated.

    Attributes
    ----------
    level : int
        To drive on the board's ``rx``.
    received : bytearray
        What the board sent.
    """

    def __init__(self, clocks_per_bit: float) -> None:
        self._bit = clocks_per_bit
        self._out: deque[int] = deque()
        self._left = 0.0
        self._sampling: list[int] | None = None
        self._age = 0
        self.level = 1
        self.received = bytearray()

    @property
    def empty(self) -> bool:
        """Whether everything is sent."""
        return not self._out and self._left <= 0

    def send(self, data: bytes) -> None:
        """Queues bytes, back to back."""
        for byte in data:
            self._out.extend((0, *(byte >> i & 1 for i in range(8)), 1))

    def send_levels(self, levels: list[int]) -> None:
        """Queues raw levels of one bit time each: noise, a break, a missing stop bit."""
        self._out.extend(levels)

    def pause(self, bits: int) -> None:
        """Queues an idle line."""
        self._out.extend([1] * bits)

    def forget(self) -> None:
        """Drops what is queued, and what comes in."""
        self._out.clear()
        self._sampling = None

    def clock(self, tx: int) -> None:
        """One clock edge, at which the board's ``tx`` was seen."""
        self._receive(tx)
        self._left -= 1
        if self._left < 1 and self._out:
            # The fraction is carried over, so that the mean rate is exact.
            self._left = max(self._left, 0) + self._bit
            self.level = self._out.popleft()
        elif self._left < 0:
            self.level = 1

    def _receive(self, tx: int) -> None:
        if self._sampling is None:
            if tx == 0:
                self._sampling, self._age = [], 0
            return
        self._age += 1
        if self._age < (len(self._sampling) + 0.5) * self._bit:
            return
        self._sampling.append(tx)
        if len(self._sampling) == 10:
            start, *bits, stop = self._sampling
            if start or not stop:
                raise CheckError(f"Board's byte must start with 0 and end with 1: {self._sampling}")
            self.received.append(sum(bit << i for i, bit in enumerate(bits)))
            self._sampling = None
