"""A network as units joined by wires: what the circuit is made of, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.documents import Document
from pvq_hw.engine.batch import make_unpack
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.units import CoreUnit, Unit, Unpack
from pvq_hw.errors import InputError
from pvq_hw.naming import Names
from pvq_hw.reserved import RESERVED

__all__ = ["GraphSpec", "chain_graph"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GraphSpec(Document):
    """Units in an order in which every wire is given before it is read.

    Parameters
    ----------
    units : tuple of Unit
        Each wire has one giver and one reader; a fork makes several of one.
    input, output : str
        The wires from and to the outside.
    """

    units: tuple[Unit, ...]
    input: str = "i"
    output: str = "o"

    def __post_init__(self) -> None:
        if len({unit.name for unit in self.units}) < len(self.units) or not self.units:
            raise InputError("A graph must have units of different names")
        wires = self._check_wires()
        if list(wires) != [self.output]:
            raise InputError(f"Wires {', '.join(wires)} of the graph are read by no unit")
        for unit in self.units:
            if isinstance(unit, Unpack) and not self.batched(unit)[0].core.flush_cycles:
                raise InputError(f"Unit {unit.name!r} must follow a core that makes batches")

    def _check_wires(self) -> list[str]:
        """Walks the units; returns the wires that nothing reads."""
        first = next((u for u in self.units if self.input in u.inputs), None)
        if first is None:
            raise InputError("A graph must read its input")
        at = first.inputs.index(self.input)
        free: dict[str, tuple[int, IntFormat]] = {
            self.input: (first.sizes()[0][at], first.formats()[0][at])
        }
        side = {self.input: first.side_by_side[0]}
        width = {self.input: first.widths[0]}
        given = {self.input}
        for unit in self.units:
            (taken, size), (read, form) = unit.sizes(), unit.formats()
            takes, gives = unit.side_by_side
            for wire, count, x in zip(unit.inputs, taken, read, strict=True):
                if side.get(wire, takes) != takes:
                    raise InputError(
                        f"Unit {unit.name!r} takes {takes} frames side by side, but wire "
                        f"{wire!r} gives {side[wire]}"
                    )
                if width.get(wire, unit.widths[0]) != unit.widths[0]:
                    raise InputError(
                        f"Unit {unit.name!r} takes {unit.widths[0]} activations a transfer, but "
                        f"wire {wire!r} gives {width[wire]}"
                    )
                if free.pop(wire, None) != (count, x):
                    raise InputError(f"Unit {unit.name!r} must take what wire {wire!r} gives")
            for wire in unit.outputs:
                if wire in given:
                    raise InputError(f"Wire {wire!r} must be given once")
                given.add(wire)
                free[wire] = (size, form)
                side[wire], width[wire] = gives, unit.widths[1]
        return list(free)

    # -- parts ------------------------------------------------------------------------------

    @property
    def cores(self) -> list[CoreBase]:
        """The cores, in order."""
        return [core for unit in self.units for core in unit.cores]

    def batched(self, unpack: Unpack) -> list[CoreUnit]:
        """The cores before an unpacker that take V frames, the first of which makes the batches."""
        givers = {wire: unit for unit in self.units for wire in unit.outputs}
        found: list[CoreUnit] = []
        while not found or not found[0].core.flush_cycles:
            giver = givers.get((found[0] if found else unpack).inputs[0])
            if not isinstance(giver, CoreUnit):
                break
            found.insert(0, giver)
        if not found:
            raise InputError(f"Unit {unpack.name!r} must follow a core")
        return found

    def named(self, images: Sequence[CoreImage]) -> dict[str, CoreImage]:
        """Contents of the cores, in their order, by the cores' names."""
        cores = self.cores
        if len(images) != len(cores):
            raise InputError(f"There must be {len(cores)} cores' contents, not {len(images)}")
        return {core.name: image for core, image in zip(cores, images, strict=True)}

    def unit(self, name: str) -> Unit:
        """The unit of that name; KeyError where there is none."""
        return {unit.name: unit for unit in self.units}[name]

    @property
    def first(self) -> Unit:
        """The unit that reads the input."""
        return next(unit for unit in self.units if self.input in unit.inputs)

    @property
    def last(self) -> Unit:
        """The unit that gives the output."""
        return next(unit for unit in self.units if self.output in unit.outputs)

    @property
    def x(self) -> tuple[int, IntFormat]:
        """Activations of an input frame, and their format."""
        at = self.first.inputs.index(self.input)
        return self.first.sizes()[0][at], self.first.formats()[0][at]

    @property
    def out(self) -> tuple[int, IntFormat]:
        """Activations of an output frame, and their format."""
        return self.last.sizes()[1], self.last.formats()[1]

    @property
    def frames(self) -> int:
        """V: frames in a round, which is what units that take V frames work on at once."""
        return max(unit.frames for unit in self.units)

    @property
    def vectors(self) -> tuple[int, int]:
        """Frames in a transfer of the input, and of the output."""
        return self.first.side_by_side[0], self.last.side_by_side[1]

    @property
    def widths(self) -> tuple[int, int]:
        """Activations of a frame in a transfer of the input, and of the output."""
        return self.first.widths[0], self.last.widths[1]

    @property
    def together(self) -> tuple[int, int]:
        """Activations in a transfer of the input, and of the output: of one frame or of several."""
        (frames, wide), (given, out) = zip(self.vectors, self.widths, strict=True)
        return frames * wide, given * out

    @property
    def frame_transfers(self) -> tuple[int, int]:
        """Transfers of a frame (of those side by side) at the input, and at the output."""
        taken, given = self.widths
        return self.x[0] // taken, self.out[0] // given

    @property
    def transfers(self) -> tuple[int, int]:
        """Transfers of a round at the input, and at the output."""
        (taken, given), (n, rows) = self.vectors, self.frame_transfers
        return n * self.frames // taken, rows * self.frames // given

    @property
    def lags(self) -> bool:
        """Whether a unit may still work on a frame whose results are out."""
        return any(unit.lags for unit in self.units)

    # -- golden model -----------------------------------------------------------------------

    def compute(self, images: Mapping[str, CoreImage], x: npt.ArrayLike) -> dict[str, IntArray]:
        """What every unit gives, (frames, size) by its name, from the memory contents alone.

        Parameters
        ----------
        images : mapping of core name to CoreImage
        x : int array (frames, ...)
        """
        array = np.asarray(x, dtype=np.int64)
        wires = {self.input: array.reshape(len(array), -1)}
        result = {}
        for unit in self.units:
            inputs = [wires.pop(wire) for wire in unit.inputs]
            value = unit.compute_with(images, *inputs).reshape(len(array), -1)
            result[unit.name] = value
            wires |= dict.fromkeys(unit.outputs, value)
        return result


def chain_graph(cores: Sequence[CoreBase]) -> GraphSpec:
    """Cores that follow one another, and an unpacker where the frames of a batch come and go one
    after the other. Of cores of the same name, the later ones get another."""
    names = Names(RESERVED)
    cores = [replace(core, name=names.new(core.name)) for core in cores]
    wires = ["i", *(f"w_{core.name}" for core in cores)]
    units: list[Unit] = [
        CoreUnit(core.name, (wires[k],), (wires[k + 1],), core) for k, core in enumerate(cores)
    ]
    if cores and cores[0].flush_cycles:
        name = names.new(f"{cores[-1].name}_unpacker")
        units.append(make_unpack(name, (wires[-1], f"w_{name}"), cores))
    return GraphSpec(tuple(units), "i", units[-1].outputs[0] if units else "o")
