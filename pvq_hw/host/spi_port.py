"""A board on SPI, through Linux's spidev, as a `pvq_hw.host.serial_port.Port`."""

import importlib
import re
import time
from typing import Any, Protocol

from pvq_hw.errors import InputError, ToolError
from pvq_hw.host.octets import FILL, Unstuffer, stuffed

__all__ = ["SpiBus", "SpiPort", "is_spi", "open_spi"]

_PATH = re.compile(r"/dev/spidev([0-9]{1,3})\.([0-9]{1,3})")
_MOST = 2048  # bytes of a transaction: spidev's buffer has 4,096 by default
_POLLED = 32
_REST = 2e-4  # seconds between looks at a board that has nothing to say


class SpiBus(Protocol):
    """What a `SpiPort` needs of a controller."""

    def transfer(self, data: bytes) -> bytes:
        """Sends bytes in one transaction and gives as many that came meanwhile."""
        ...

    def close(self) -> None:
        """Frees the controller."""
        ...


class SpiPort:
    """Packets to a board and from it over SPI; the host asks for what the board has to say.

    Parameters
    ----------
    bus : SpiBus
    rest : float
        Seconds between two looks at a board that is silent.
    """

    def __init__(self, bus: SpiBus, rest: float = _REST) -> None:
        self._bus, self._rest = bus, rest
        self._unstuffer = Unstuffer()
        self._coming = b""

    def read(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while not self._coming and time.monotonic() < deadline:
            self._transfer(bytes((FILL,)) * _POLLED)
            if not self._coming:
                time.sleep(self._rest)
        data, self._coming = self._coming, b""
        return data

    def write(self, data: bytes) -> None:
        octets = stuffed(data)
        for at in range(0, len(octets), _MOST):
            self._transfer(octets[at : at + _MOST])

    def close(self) -> None:
        self._bus.close()

    def _transfer(self, octets: bytes) -> None:
        self._coming += self._unstuffer.feed(self._bus.transfer(octets))


def is_spi(path: str) -> bool:
    """Whether a port's name is that of an SPI controller, ``/dev/spidev<bus>.<chip select>``."""
    return _PATH.fullmatch(path) is not None


def open_spi(path: str, hz: int) -> SpiPort:
    """Opens an SPI controller in mode 0 at ``hz`` at most.

    Raises
    ------
    InputError
        spidev is not installed, or the controller isn't there, is in use or can't do that rate.
    """
    return SpiPort(_SpiDev(path, hz))


class _SpiDev:
    def __init__(self, path: str, hz: int) -> None:
        self._path = path
        match = _PATH.fullmatch(path)
        assert match is not None
        try:
            self._device: Any = importlib.import_module("spidev").SpiDev()
        except ImportError:
            raise InputError(
                f"Port {path!r} needs the Python package spidev: pip install 'pvq-hw[spi]'"
            ) from None
        try:
            self._device.open(int(match[1]), int(match[2]))
            self._device.max_speed_hz = hz
            self._device.mode = 0
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"Port {path!r} cannot be opened: {reason}") from None

    def transfer(self, data: bytes) -> bytes:
        try:
            return bytes(self._device.xfer2(list(data)))
        except OSError:
            raise ToolError(f"Port {self._path!r} can no longer be used") from None

    def close(self) -> None:
        self._device.close()
