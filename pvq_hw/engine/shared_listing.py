"""The program of a shared engine step by step: what each does, how long, and how busy ports are."""

from dataclasses import dataclass

from pvq_hw.documents import Document
from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.shared_core import SharedSpec

__all__ = ["ListedStep", "listing"]


@dataclass(frozen=True)
class ListedStep(Document):
    """A step of a program in a frame.

    Parameters
    ----------
    name, kind : str
        The layer's; ``"layer"``, ``"average"``, ``"sum"`` or ``"copy"``.
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


def listing(spec: SharedSpec) -> list[ListedStep]:
    """Every step of an engine's program."""
    found = []
    steps = zip(spec.layers, spec.step_cycles(), spec.program(), strict=True)
    for number, (layer, cycles, word) in enumerate(steps):
        last, fetched, written = number == len(spec.layers) - 1, 0, 0
        kind, adds = "layer" if layer.weights else "average", layer.codes * layer.times
        reads = f"region {spec.region(number)}"
        gives = "output" if last else f"region {spec.region(number + 1)}"
        if isinstance(spec, MapSpec):
            own, places = spec.layers[number], spec.places
            kind = ("copy" if own.copies else "sum") if own.joins else kind
            fetched = own.times * own.parts * own.fetched
            written = 0 if last else own.given_words
            adds = own.codes * own.positions
            reads = ", ".join(str(places[k + 1]) for k in spec.read_by(number))
            gives = "output" if last else str(places[number + 1])
        found.append(
            ListedStep(
                layer.name, kind, cycles, layer.words * layer.times, fetched, written, adds,
                reads, gives, word,
            )
        )  # fmt: skip
    return found
