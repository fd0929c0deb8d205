"""A serial port: pyserial's where it is installed, else the system's own on POSIX."""

import contextlib
import os
import select
import time
from typing import Any, Protocol

from pvq_hw.errors import InputError, ToolError

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


def open_port(path: str, baud: int, *, prefer: str = "") -> Port:
    """Opens ``path`` at ``baud``, 8N1, without flow control, and drops what had been received.

    ``prefer`` may be ``"termios"`` or ``"pyserial"``; by default pyserial is used if it is there.

    Raises
    ------
    InputError
        The port isn't there, isn't a serial port, is in use or can't do that rate.
    ToolError
        pyserial is missing on a system without termios.
    """
    if prefer != "termios":
        try:
            import serial
        except ImportError:
            if prefer == "pyserial":
                raise ToolError("pyserial is missing: pip install 'pvq-hw[serial]'") from None
        else:
            return _PySerialPort(serial, path, baud)
    try:
        import termios
    except ImportError:
        raise ToolError("pyserial is missing: pip install 'pvq-hw[serial]'") from None
    return _TermiosPort(termios, path, baud)


def _refuse(path: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return InputError(f"Port {path!r} cannot be opened: {reason}")


def _gone(path: str) -> ToolError:
    return ToolError(f"Port {path!r} is gone; is the board still plugged in?")


class _PySerialPort:
    def __init__(self, serial: Any, path: str, baud: int) -> None:
        self._path = path
        self._errors = (serial.SerialException, OSError)
        try:
            self._port = serial.Serial(
                path, baud, timeout=0, write_timeout=_WRITE_SECONDS, exclusive=True
            )
            self._port.reset_input_buffer()
        except (*self._errors, ValueError) as error:
            raise _refuse(path, error) from None
        # FTDI chips hold replies back for 16 ms otherwise; not every driver has the switch.
        with contextlib.suppress(Exception):
            self._port.set_low_latency_mode(True)

    def read(self, seconds: float) -> bytes:
        try:
            self._port.timeout = seconds
            first = self._port.read(1)
            return first + self._port.read(self._port.in_waiting) if first else b""
        except self._errors:
            raise _gone(self._path) from None

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except self._errors:
            raise _gone(self._path) from None

    def close(self) -> None:
        self._port.close()


class _TermiosPort:
    def __init__(self, termios: Any, path: str, baud: int) -> None:
        self._path = path
        speed = getattr(termios, f"B{baud}", None)
        if speed is None:
            raise InputError(
                f"Baud must be one that the system knows, not {baud:,}; "
                "pip install 'pvq-hw[serial]' allows any"
            )
        try:
            self._file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise _refuse(path, error) from None
        try:
            mode = termios.CS8 | termios.CREAD | termios.CLOCAL
            special = termios.tcgetattr(self._file)[6]
            termios.tcsetattr(self._file, termios.TCSANOW, [0, 0, mode, 0, speed, speed, special])
            termios.tcflush(self._file, termios.TCIOFLUSH)
        except termios.error as error:
            os.close(self._file)
            raise InputError(
                f"Port {path!r} cannot be opened: it is no serial port ({error.args[-1]})"
            ) from None

    def read(self, seconds: float) -> bytes:
        try:
            ready, _, _ = select.select([self._file], [], [], max(0.0, seconds))
            data = os.read(self._file, 65536) if ready else b""
        except OSError:
            raise _gone(self._path) from None
        if ready and not data:
            raise _gone(self._path)
        return data

    def write(self, data: bytes) -> None:
        deadline = time.monotonic() + _WRITE_SECONDS
        while data:
            try:
                _, ready, _ = select.select([], [self._file], [], 1.0)
                data = data[os.write(self._file, data) :] if ready else data
            except BlockingIOError:
                continue
            except OSError:
                raise _gone(self._path) from None
            if data and time.monotonic() > deadline:
                raise _gone(self._path)

    def close(self) -> None:
        os.close(self._file)
