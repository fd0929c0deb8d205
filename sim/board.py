"""The simulated pins of an accelerator's board, behind a port."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gateware.accelerator.accelerator import Accelerator as Circuit
from gateware.board.flow import live_bus
from gateware.link.top import Top
from pvq_hw.choices import SPI
from pvq_hw.engine.code_stream import has_stream
from pvq_hw.engine.spram_image import has_spram
from pvq_hw.errors import InputError
from pvq_hw.flow.board import describe_output
from pvq_hw.host.serial_port import Port
from pvq_hw.host.spi_port import SpiPort
from pvq_hw.output.accelerator import Accelerator
from sim.agents.pty_board import PtyBoard
from sim.agents.spi_board import SpiBoard

__all__ = ["simulated_port"]

_CLOCKS_PER_BIT = 4
_IDLE_CLOCKS = 4096


@contextmanager
def simulated_port(accelerator: Accelerator) -> Iterator[str | Port]:
    """A port behind which the accelerator's top is simulated while the context lasts: the name of a
    pseudo-terminal, or of SPI the port itself.

    The clock is 4 times the baud rate, of SPI 6 times, so that few cycles pass for a bit; nothing
    else differs from the top that is built.

    Raises
    ------
    InputError
        The accelerator's codes come from a flash, which this has not.
    """
    plan = accelerator.plan
    if has_spram(plan.specs) or has_stream(plan.specs):
        raise InputError(
            f"Codes of {accelerator.network.name} come from a flash, which this has not"
        )
    board = describe_output(accelerator)
    if plan.link != SPI:
        board = replace(board, clock_hz=_CLOCKS_PER_BIT * board.baud)
    live = live_bus(accelerator) if plan.live else None
    top = Top(
        Circuit(plan.graph, accelerator.image.cores, live=live), board, _IDLE_CLOCKS,
        stored=plan.updatable, live=live, link=plan.link,
    )  # fmt: skip
    if plan.link == SPI:
        with SpiBoard(top) as bus:
            yield SpiPort(bus, rest=0.0)
        return
    with PtyBoard(top) as pins:
        yield pins.path
        if pins.error is not None:
            raise pins.error
