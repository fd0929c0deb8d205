"""What is watched of a graph of units: the output of every layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.units import CoreUnit, Fifo, Fork
from pvq_hw.errors import InputError
from sim.backends.design import Design, Link, design_files

__all__ = ["Tap", "graph_design", "graph_taps"]


@dataclass(frozen=True)
class Tap:
    """A unit's output, described as a core's is.

    Parameters
    ----------
    name : str
        Of the unit.
    n, x : int, IntFormat
        Of its first input.
    rows, out : int, IntFormat
        Of its output: activations of a frame, and their format.
    words : int
        Cycles of work on a frame, about.
    """

    name: str
    n: int
    x: IntFormat
    rows: int
    out: IntFormat
    words: int
    frames: int = 1
    output_delay: int = 32


def graph_taps(graph: GraphSpec) -> list[Tap]:
    """A tap for every unit that gives a layer's output, in the order of the layers."""
    taps = []
    for unit in graph.units:
        if isinstance(unit, Fork | Fifo):
            continue
        (taken, given), (x, out) = unit.sizes(), unit.formats()
        words = unit.frames * unit.core.words if isinstance(unit, CoreUnit) else 4 * max(taken)
        taps.append(Tap(unit.name, taken[0], x[0], given, out, words))
    return taps


def graph_design(graph: GraphSpec, folder: Path) -> Design:
    """The design in an output folder's ``verilog/`` and ``image/``; see
    `sim.backends.design.design_of`."""
    top, sources, memories = design_files(graph.cores, folder)
    links = tuple(Link(t.name, (t.name,), t.rows, t.out, 1) for t in graph_taps(graph))
    n, form = graph.x
    _check_links(graph, links)
    return Design(top, sources, memories, n, form, links, 1)


def _check_links(graph: GraphSpec, links: Sequence[Link]) -> None:
    if not links or links[-1].name != graph.last.name:
        raise InputError("A graph must end with a layer")
