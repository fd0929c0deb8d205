"""A simulated board whose time stands still while the host doesn't read."""

import queue
import threading
from collections.abc import Callable
from typing import Any

from sim.agents.pins import PinSimulation
from sim.agents.serial_line import SerialLine

__all__ = ["PacedBoard"]


class PacedBoard:
    """The `pvq_hw.host.serial_port.Port` of a top's simulated pins: clock cycles pass in `read` and
    `sleep` alone, so what a host sees depends on no machine's speed.

    Parameters
    ----------
    top : Top
    hertz : int
        Clock cycles that make a second, for the host's time-outs.
    spoil : callable, optional
        bytes -> bytes: what becomes of what the host sends, to test a bad line.
    """

    def __init__(self, top: Any, hertz: int, spoil: Callable[[bytes], bytes] = bytes) -> None:
        self._pins = PinSimulation(top, SerialLine(top.timing.divisor), limit=1 << 62)
        self._hertz, self._spoil = hertz, spoil
        self._until, self._stops_at_bytes = 0, False
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def monotonic(self) -> float:
        """Seconds of the simulated board since its reset."""
        return self._pins.cycle / self._hertz

    def sleep(self, seconds: float) -> None:
        """Lets so much time pass."""
        self._advance(seconds, stops_at_bytes=False)

    def read(self, seconds: float) -> bytes:
        """What has come, after ``seconds`` at most."""
        self._advance(seconds, stops_at_bytes=True)
        data = bytes(self._pins.line.received)
        self._pins.line.received.clear()
        return data

    def write(self, data: bytes) -> None:
        """Puts bytes on the line, as ``spoil`` leaves them."""
        self._pins.line.send(self._spoil(data))

    def close(self) -> None:
        """Ends the simulation."""
        if self._thread.is_alive():
            self._asked.put(-1)
            self._thread.join()

    def _advance(self, seconds: float, *, stops_at_bytes: bool) -> None:
        self._stops_at_bytes = stops_at_bytes
        self._asked.put(int(seconds * self._hertz) + 1)
        error = self._done.get()
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._until = self._asked.get()
            if self._until >= 0:
                self._pins.run(self._cycle)
        except BaseException as error:  # is the reader's to raise, not the thread's
            self._done.put(error)

    def _cycle(self) -> bool:
        """Called before every cycle; whether to stop."""
        some = self._stops_at_bytes and bool(self._pins.line.received)
        if self._pins.cycle < self._until and not some:
            return False
        self._done.put(None)
        cycles = self._asked.get()
        self._until = self._pins.cycle + cycles
        return cycles < 0
