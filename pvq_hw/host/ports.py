"""Finding the serial port of a board: by USB vendor first, then by what answers DESCRIBE."""

from collections.abc import Callable, Iterator

from serial.tools import list_ports

from pvq_hw.errors import InputError, PvqError
from pvq_hw.host.link import Link
from pvq_hw.host.protocol import Description
from pvq_hw.host.serial_port import Port, open_port

__all__ = ["find_port", "usb_ports"]

# USB vendors whose chips or firmware are the serial bridges of the boards and of usual adapters.
# Nothing is sent to other devices.
_VENDORS = {
    0x0403: "FTDI",
    0x067B: "Prolific",
    0x0D28: "DAPLink",
    0x10C4: "Silicon Labs",
    0x1209: "pid.codes",
    0x1A86: "WCH",
    0x1D50: "OpenMoko",
    0x2E8A: "Raspberry Pi",
}
_SECONDS = 0.3  # a board answers DESCRIBE in a few milliseconds


def usb_ports() -> list[str]:
    """Serial ports on USB that may be a board's, by name."""
    found = [port for port in list_ports.comports() if port.vid in _VENDORS]
    # A chip of several ports has its serial line on the last one more often than not.
    return [port.device for port in sorted(found, key=lambda port: str(port.device), reverse=True)]


def find_port(
    expected: Description,
    *,
    ports: Callable[[], list[str]] = usb_ports,
    opened: Callable[[str, int], Port] = open_port,
) -> str:
    """The port at which a board answers that holds the expected network.

    Each port is asked DESCRIBE once, at the expected rate. A port that is in use, silent, or a
    board's with another network is passed over.

    Raises
    ------
    InputError
        No port answers so; the message says what was found instead.
    """
    names = ports()
    others = []
    for name, said in _answers(names, expected.baud, opened):
        if said.identity == expected.identity:
            return name
        others.append(f"{name} holds network {said.identity.hex()}")
    if not names:
        raise InputError("No serial port on USB was found; give one with --port")
    looked = "; ".join(others) or f"nothing answers at {', '.join(names)}"
    raise InputError(
        f"No board with network {expected.identity.hex()} was found: {looked}; load the bitstream "
        "with `pvq-hw program`, or give the port with --port"
    )


def _answers(
    names: list[str], baud: int, opened: Callable[[str, int], Port]
) -> Iterator[tuple[str, Description]]:
    for name in names:
        try:
            link = Link(opened(name, baud), timeout=_SECONDS, retries=0, baud=baud)
        except PvqError:
            continue
        with link:
            try:
                said = link.describe()
            except PvqError:
                continue
        yield name, said
