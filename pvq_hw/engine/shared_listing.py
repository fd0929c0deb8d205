"""The program of a shared engine step by step: what each does, how long, and how busy ports are."""

from dataclasses import dataclass
from typing import Any

from pvq_hw.documents import Document
from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.registry import Face

__all__ = ["ListedStep", "listing"]


@dataclass(frozen=True)
class ListedStep(Document):
    """A step of a program in a frame.

    Parameters
    ----------
    name, kind : str
        The layer's; ``"layer"``, ``"average"``, ``"maximum"``, ``"table"``, ``"sum"`` or
        ``"copy"``.
    cycles : int
    words : int
        Cycles in which a word of codes is read.
    fetched, written : int
        Cycles in which the memory that it reads, and the one that it writes, has a word of a map;
        0 of an engine whose banks are its maps.
    adds : int
        Pulses that are added.
    reads, gives : str
        Where its activations are, and where its results go.
    program : int
        The word of the program.
    """

    name: str
    kind: str
    cycles: int
    words: int
    fetched: int
    written: int
    adds: int
    reads: str
    gives: str
    program: int

    @property
    def bound(self) -> str:
        """What most of its cycles pass with."""
        return "codes" if self.words >= self.fetched else "fetching"


listing: Face[[], list[ListedStep]] = Face("core", "program")
"""Every step of the program of a core that computes several layers."""

_moves: Face[[int], dict[str, Any]] = Face("core", "steps of a program")
"""What a step is, the words of maps that it moves, what it adds, and where from and where to."""


@listing.of(SharedSpec)
def _listing(spec: SharedSpec) -> list[ListedStep]:
    steps = zip(spec.layers, spec.step_cycles(), spec.program(), strict=True)
    return [
        ListedStep(
            name=layer.name, cycles=cycles, words=layer.words * layer.times, program=word,
            **_moves(spec, number),
        )
        for number, (layer, cycles, word) in enumerate(steps)
    ]  # fmt: skip


@_moves.of(SharedSpec)
def _of_regions(spec: SharedSpec, number: int) -> dict[str, Any]:
    layer, last = spec.layers[number], number == len(spec.layers) - 1
    return {
        "kind": "layer" if layer.weights else "average",
        "fetched": 0,
        "written": 0,
        "adds": layer.codes * layer.times,
        "reads": f"region {spec.region(number)}",
        "gives": "output" if last else f"region {spec.region(number + 1)}",
    }


@_moves.of(MapSpec)
def _of_maps(spec: MapSpec, number: int) -> dict[str, Any]:
    layer, last, places = spec.layers[number], number == len(spec.layers) - 1, spec.places
    kind = "layer" if layer.weights else "average"
    kind = ("copy" if layer.copies else "sum") if layer.joins else kind
    kind = "table" if layer.table else kind
    kind = "maximum" if layer.most else kind + ", maximum" * (layer.pool != "")
    return {
        "kind": kind,
        "fetched": layer.windows * layer.fetched,
        "written": 0 if last else layer.given_words,
        "adds": layer.codes * layer.positions * layer.again,
        "reads": ", ".join(str(places[k + 1]) for k in spec.read_by(number)),
        "gives": "output" if last else str(places[number + 1]),
    }
