"""Exact cycles of a depthwise core; see `gateware.core.depthwise_core`."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

from pvq_hw.engine.depthwise_core import DepthwiseSpec

__all__ = ["Question", "depthwise_steps"]


class _Wire(Protocol):
    offers: list[int]
    readies: list[int]
    moved: list[int]

    def settle(self) -> None: ...


@dataclass(eq=False)
class Question:
    """Whether a transfer comes before ``time``. What nothing else can tell any more is denied, the
    earliest question first: whatever would make it come is later."""

    time: int
    denied: bool = False


def depthwise_steps(
    spec: DepthwiseSpec,
    i: _Wire,
    o: _Wire,
    used: list[int],
    frames: int,
    questions: list[Question],
) -> Generator[None, None, None]:
    """One step a cycle while there are activations and places for results.

    ``used`` gets the cycles in which activations leave the queue; ``questions`` holds those that
    wait for an answer.
    """
    total = frames * spec.pixels * spec.channels
    rows, columns = spec.geometry.output_size
    across, positions = spec.geometry.stride[1], rows * columns
    i.readies += [0] * min(spec.queue_depth, total)
    now, index, pause, walked, emitted = -1, 0, 0, 0, 0
    takes = True
    walking = False
    while (takes and len(used) < total) or walking:
        emits = (takes and index == spec.first) or (walking and pause == 0)
        for _ in range(spec.channels):
            now += 1
            if takes:
                while len(i.moved) <= len(used):
                    yield
                now = max(now, i.moved[len(used)] + 1)
            for extra in range(spec.each if emits else 0):
                now += extra > 0
                while emitted - spec.credits >= len(o.moved):
                    yield
                if emitted >= spec.credits:
                    now = max(now, o.moved[emitted - spec.credits] + 1)
                o.offers.append(now + spec.output_delay)
                emitted += 1
            if takes:
                used.append(now)
                if len(i.readies) < total:
                    i.readies.append(now + 1)
        o.settle()
        i.settle()
        boundary = not takes or index == spec.pixels - 1
        if takes:
            index = 0 if boundary else index + 1
        if emits:
            walked = (walked + 1) % positions
            walking = walked > 0
            pause = (spec.turn if walked % columns == 0 else across) - 1
        elif walking:
            pause -= 1
        before = len(used) - takes
        takes = True
        if boundary and walking:
            # Whether enough have come before this cycle for the next map to begin.
            wanted = before + spec.enough - 1
            question = Question(now, wanted >= total)
            questions.append(question)
            while not (
                question.denied or len(i.moved) > wanted or (len(i.moved) and i.moved[-1] >= now)
            ):
                yield
            questions.remove(question)
            takes = len(i.moved) > wanted and i.moved[wanted] < now
