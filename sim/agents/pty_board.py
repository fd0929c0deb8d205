"""A simulated board behind a pseudo-terminal: what `pvq_hw.host.link` opens as a serial port."""

import contextlib
import os
import pty
import threading
import tty
from typing import Any

from sim.agents.pins import PinSimulation
from sim.agents.serial_line import SerialLine
from sim.agents.spi_flash import SpiFlash

__all__ = ["PtyBoard"]

_POLL_CYCLES = 64


class PtyBoard:
    """Runs the simulation of a top's pins in a thread while the context is open.

    Parameters
    ----------
    top : Top
    flash : SpiFlash, optional
        The flash of a top that loads its codes.

    Attributes
    ----------
    path : str
        The pseudo-terminal's name.
    error : BaseException or None
        What ended the simulation early.
    """

    def __init__(self, top: Any, flash: SpiFlash | None = None) -> None:
        line = SerialLine(top.timing.divisor)
        self._pins = PinSimulation(top, line, limit=1 << 62, flash=flash)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._board, self._host = pty.openpty()
        tty.setraw(self._host)
        os.set_blocking(self._board, False)
        self.path = os.ttyname(self._host)
        self.error: BaseException | None = None

    def __enter__(self) -> "PtyBoard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()
        os.close(self._board)
        os.close(self._host)

    def _run(self) -> None:
        try:
            self._pins.run(self._poll)
        except BaseException as error:  # is the test's to raise, not the thread's
            self.error = error

    def _poll(self) -> bool:
        """Moves bytes between the pins and the terminal, now and then; whether to stop."""
        if self._pins.cycle % _POLL_CYCLES == 0:
            line = self._pins.line
            with contextlib.suppress(BlockingIOError):
                line.send(os.read(self._board, 4096))
            if line.received:
                sent = os.write(self._board, line.received)
                del line.received[:sent]
        return self._stop
