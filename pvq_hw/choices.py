"""Names that the command line offers and other modules give a meaning: each list stands once.

No large module is imported here, so that help is quick.
"""

from collections.abc import Sequence

from pvq_hw.errors import InputError

__all__ = [
    "BOARD_FLOW",
    "CORE_FLOWS",
    "DEVICE_FLOW",
    "FLOWS",
    "GAINS",
    "INTERFACES",
    "LINKS",
    "LINK_WORDS",
    "MENDS",
    "OBJECTIVES",
    "PLACERS",
    "QUANTIZERS",
    "SPI",
    "UART",
    "check_choice",
]

OBJECTIVES = ("speed", "latency", "size", "energy")
"""What a choice within a loss may be best at."""

PLACERS = ("heap", "sa", "static")
"""nextpnr's: analytical, its usual one; simulated annealing; static."""

QUANTIZERS = ("calibrated", "plain", "given")

GAINS = ("least-squares", "norm")
"""Rules of the plain quantizer's gains."""

MENDS = ("none", "biases", "scales", "both")
"""What the plain quantizer corrects."""

CORE_FLOWS = ("fusesoc", "edalize", "litex", "apio", "vivado")
DEVICE_FLOW = "device"
BOARD_FLOW = "board"
FLOWS = (*CORE_FLOWS, DEVICE_FLOW, BOARD_FLOW)
"""What an accelerator is exported for: as a core of other flows, or with its board's top."""

INTERFACES = ("stream", "axis", "csr")
"""What its ports are then."""

LINKS = UART, SPI = "uart", "spi"
"""What a host talks to a board over."""

LINK_WORDS = {UART: "the serial link", SPI: "SPI"}


def check_choice(what: str, value: object, known: Sequence[str]) -> None:
    """Raises InputError, which begins with ``what``, unless the value is among ``known``."""
    if value not in known:
        raise InputError(
            f"{what} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r:.60}"
        )
