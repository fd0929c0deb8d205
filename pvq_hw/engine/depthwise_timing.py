"""Exact cycles of a depthwise core; see `gateware.core.depthwise_core`."""

from collections.abc import Generator
from typing import Protocol

from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.raster import Question, raster_steps

__all__ = ["depthwise_steps"]


class _Wire(Protocol):
    offers: list[int]
    readies: list[int]
    moved: list[int]

    def settle(self) -> None: ...


def depthwise_steps(
    spec: DepthwiseSpec,
    i: _Wire,
    o: _Wire,
    used: list[int],
    frames: int,
    questions: list[Question],
) -> Generator[None, None, None]:
    """`raster_steps` of windows that wait for places for their results."""
    emitted, credits, delay = 0, spec.credits, spec.output_delay  # asked for once, not each window
    pops = o.moved

    def read(now: int) -> int | None:
        nonlocal emitted
        if emitted >= credits:
            if emitted - credits >= len(pops):
                return None
            now = max(now, pops[emitted - credits] + 1)
        o.offers.append(now + delay)
        emitted += 1
        return now

    return raster_steps(spec.raster, i, read, used, frames, questions)
