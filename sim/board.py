"""The simulated pins of an accelerator's board, behind a pseudo-terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gateware.accelerator.accelerator import Accelerator as Circuit
from gateware.board.flow import live_bus
from gateware.link.top import Top
from pvq_hw.engine.code_stream import has_stream
from pvq_hw.engine.spram_image import has_spram
from pvq_hw.errors import InputError
from pvq_hw.flow.board import describe_output
from pvq_hw.output.accelerator import Accelerator
from sim.agents.pty_board import PtyBoard

__all__ = ["simulated_port"]

_CLOCKS_PER_BIT = 4
_IDLE_CLOCKS = 4096


@contextmanager
def simulated_port(accelerator: Accelerator) -> Iterator[str]:
    """The name of a port behind which the accelerator's top is simulated while the context lasts.

    The clock is 4 times the baud rate, so that few cycles pass for a bit; nothing else differs from
    the top that is built.

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
    board = replace(board, clock_hz=_CLOCKS_PER_BIT * board.baud)
    live = live_bus(accelerator) if plan.live else None
    top = Top(
        Circuit(plan.graph, accelerator.image.cores, live=live), board, _IDLE_CLOCKS,
        stored=plan.updatable, live=live,
    )  # fmt: skip
    with PtyBoard(top) as pins:
        yield pins.path
        if pins.error is not None:
            raise pins.error
