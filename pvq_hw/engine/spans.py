"""When each unit of a graph is at work, from the exact times of all transfers."""

from collections.abc import Mapping
from dataclasses import dataclass

from pvq_hw.documents import Document
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.timing import run_frames

__all__ = ["Span", "unit_spans"]


@dataclass(frozen=True)
class Span(Document):
    """A unit's work on one frame, or round of V frames, in cycles from the first transfer of the
    accelerator's input.

    Parameters
    ----------
    unit : str
    frame : int
    start : int
        The first transfer that it takes.
    first : int
        The first result that it gives.
    end : int
        The last one.
    """

    unit: str
    frame: int
    start: int
    first: int
    end: int


def unit_spans(graph: GraphSpec, images: Mapping[str, CoreImage], frames: int = 2) -> list[Span]:
    """When each computing unit works on the first frames, its input always valid and its output
    always ready; raises CheckError where the graph stands still."""
    wires = run_frames(graph, images, frames)
    origin = wires[graph.input].moved[0]
    found = []
    for unit in graph.units:
        if unit.passes:
            continue
        for frame in range(frames):
            taken, given = (
                [wires[name].moved for name in names] for names in (unit.inputs, unit.outputs)
            )
            starts = [moved[frame * (len(moved) // frames)] for moved in taken]
            firsts = [moved[frame * (len(moved) // frames)] for moved in given]
            ends = [moved[(frame + 1) * (len(moved) // frames) - 1] for moved in given]
            times = (min(starts) - origin, min(firsts) - origin, max(ends) - origin)
            found.append(Span(unit.name, frame, *times))
    return found
