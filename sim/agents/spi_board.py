"""A simulated board at the SPI pins: what `pvq_hw.host.spi_port.SpiPort` takes for a controller."""

import queue
import threading
from typing import Any

from sim.agents.pins import PinSimulation
from sim.agents.spi_controller import SpiController

__all__ = ["SpiBoard"]


class SpiBoard:
    """Runs the simulation of a top's pins in a thread while the context is open.

    Time passes on the board while bytes are transferred, and only then.

    Parameters
    ----------
    top : Top
    """

    def __init__(self, top: Any) -> None:
        self._line = SpiController(burst=1 << 16, poll=False)
        self._pins = PinSimulation(top, self._line, limit=1 << 62)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._asked = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "SpiBoard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._thread.join()

    def transfer(self, data: bytes) -> bytes:
        """As `pvq_hw.host.spi_port.SpiBus` has it; raises what ended the simulation."""
        self._requests.put(data)
        reply = self._replies.get()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def close(self) -> None:
        """The context ends the simulation."""

    def _run(self) -> None:
        try:
            self._pins.run(self._poll)
        except BaseException as error:  # is the caller's to raise, not the thread's
            self._replies.put(error)

    def _poll(self) -> bool:
        """Hands over what came in a transaction and waits for the next; whether to stop."""
        if not self._line.empty:
            return False
        if self._asked:
            self._replies.put(bytes(self._line.octets))
            self._line.octets.clear()
        request = self._requests.get()
        self._asked = request is not None
        if request:
            self._line.exchange(request)
        return not self._asked
