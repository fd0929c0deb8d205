"""A line to a board: a serial port, through pyserial, or what `pvq_hw.host.spi_port` opens."""

import contextlib
from typing import Protocol

import serial

from pvq_hw.errors import InputError, ToolError
from pvq_hw.host.spi_port import is_spi, open_spi

__all__ = ["Port", "open_port"]


class Port(Protocol):
    """What `pvq_hw.host.link.Link` needs of a line."""

    def read(self, seconds: float) -> bytes:
        """What has come, after waiting at most ``seconds`` for a first byte; may be empty."""
        ...

    def write(self, data: bytes) -> None:
        """Sends everything."""
        ...

    def close(self) -> None:
        """Frees the port."""
        ...


_WRITE_SECONDS = 10.0


def open_port(path: str, baud: int) -> Port:
    """Opens ``path`` at ``baud``, 8N1, without flow control, and drops what had been received; of
    an SPI controller (``/dev/spidev0.0``) ``baud`` is the rate of its clock at most.

    Raises
    ------
    InputError
        The port isn't there, isn't a serial port, is in use or can't do that rate.
    """
    return open_spi(path, baud) if is_spi(path) else _SerialPort(path, baud)


def _refuse(path: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return InputError(f"Port {path!r} cannot be opened: {reason}")


def _gone(path: str) -> ToolError:
    return ToolError(f"Port {path!r} is gone; is the board still plugged in?")


_ERRORS = (serial.SerialException, OSError)


class _SerialPort:
    def __init__(self, path: str, baud: int) -> None:
        self._path = path
        try:
            self._port = serial.Serial(
                path, baud, timeout=0, write_timeout=_WRITE_SECONDS, exclusive=True
            )
            self._port.reset_input_buffer()
        except (*_ERRORS, ValueError) as error:
            raise _refuse(path, error) from None
        # FTDI chips hold replies back for 16 ms otherwise; not every driver has the switch.
        with contextlib.suppress(Exception):
            self._port.set_low_latency_mode(True)

    def read(self, seconds: float) -> bytes:
        try:
            self._port.timeout = seconds
            first = self._port.read(1)
            return first + self._port.read(self._port.in_waiting) if first else b""
        except _ERRORS:
            raise _gone(self._path) from None

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except _ERRORS:
            raise _gone(self._path) from None

    def close(self) -> None:
        self._port.close()
