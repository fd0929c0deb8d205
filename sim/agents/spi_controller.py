"""A controller at the SPI pins of a board, cycle by cycle: an independent model of mode 0.

Like `sim.agents.serial_line.SerialLine` it is told once a cycle what was on the wire, and says what
to drive until the next clock edge.
"""

from collections import deque
from collections.abc import Iterator

from pvq_hw.host.octets import FILL, Unstuffer, stuffed

__all__ = ["SpiController"]

_POLLED = 16


class SpiController:
    """Exchanges bytes in transactions; where nothing is to be sent it asks with fill.

    Parameters
    ----------
    period : float
        Of its clock, in cycles of the board's; need not be whole.
    phase : float
        At which the first transaction begins.
    lead, gap : float
        Cycles from the falling ``cs_n`` to the first rising clock, and between transactions.
    burst : int
        Bytes of a transaction at most.
    poll : bool
        Whether it asks where nothing is to be sent.

    Attributes
    ----------
    level : int
        To drive on the board's ``cs_n``, ``clk`` and ``copi``, lowest first.
    octets, received : bytearray
        What came from the board, and that without its stuffing.
    """

    def __init__(
        self,
        period: float = 6.0,
        phase: float = 0.0,
        *,
        lead: float = 4.0,
        gap: float = 5.0,
        burst: int = 64,
        poll: bool = True,
    ) -> None:
        self._half, self._phase, self._lead, self._gap = period / 2, phase, lead, gap
        self._burst, self._poll = burst, poll
        self._queue: deque[tuple[bytes, int] | float] = deque()
        self._unstuffer = Unstuffer()
        self._now, self._cipo, self._active = 0, 0, False
        self._cs_n, self._clk, self._copi = 1, 0, 0
        self._wave = self._waves()
        self._next = next(self._wave)
        self.octets, self.received = bytearray(), bytearray()

    @property
    def level(self) -> int:
        return self._cs_n | self._clk << 1 | self._copi << 2

    @property
    def empty(self) -> bool:
        """Whether everything is sent."""
        return not self._queue and not self._active

    def send(self, data: bytes) -> None:
        """Queues bytes, stuffed, in as many transactions as they take."""
        self.exchange(stuffed(data))

    def exchange(self, octets: bytes) -> None:
        """Queues bytes as they are."""
        self._queue.extend(
            (octets[at : at + self._burst], 8) for at in range(0, len(octets), self._burst)
        )

    def pause(self, bits: float) -> None:
        """Queues so many periods without a transaction."""
        self._queue.append(bits * 2 * self._half)

    def cut(self, octet: int, bits: int) -> None:
        """Queues a transaction that ends within its only byte."""
        self._queue.append((bytes((octet,)), bits))

    def clock(self, cipo: int) -> None:
        """One clock edge, at which the board's ``cipo`` was seen."""
        self._now += 1
        self._cipo = cipo
        while self._next <= self._now:
            self._next = next(self._wave)

    def _waves(self) -> Iterator[float]:
        """Changes the wires; gives the time of the next change."""
        now = self._phase
        while True:
            yield now
            self._active = bool(self._queue)
            if not self._queue and not self._poll:
                now += 1
                continue
            item = self._queue.popleft() if self._queue else (bytes((FILL,)) * _POLLED, 8)
            if isinstance(item, float):
                now += item
                continue
            for wait in self._transaction(*item):
                now += wait
                yield now
            self._cs_n, self._copi, self._active = 1, 0, False
            now += self._gap

    def _transaction(self, octets: bytes, bits: int) -> Iterator[float]:
        """The same, as times from change to change."""
        self._cs_n, wait = 0, self._lead
        for octet in octets:
            got = 0
            for bit in range(bits):
                self._copi = octet >> (7 - bit) & 1
                yield wait
                self._clk, got, wait = 1, got << 1 | self._cipo, self._half
                yield self._half
                self._clk = 0
            if bits == 8:
                self.octets.append(got)
                self.received += self._unstuffer.feed(bytes((got,)))
        yield self._half
