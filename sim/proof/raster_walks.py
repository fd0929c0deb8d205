"""The walk through maps whose windows are read as their pixels come.

From reset on all states that it can have are run through, with and without enough activations for
the next map where that decides something. Beside each state stands what has happened: pixels of the
map that comes in, those since the first one of a map whose last windows are still to be read, and
windows that were. Shown is that

- each window is read with the pixel that completes it, row after row, and no other one, so each
  once, in order; its taps within the map are marked, and their pixels came as many before as the
  geometry says;
- a map has as many pixels as it has, and where its last windows wait for pixels behind it, pixels
  of nothing stand in, or the next map's if enough of them wait to end the windows;
- without a step nothing moves; a step is one where there is an activation, or the pixel is of
  nothing, and a place, or no window.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pvq_hw.engine.raster import Raster
from pvq_hw.errors import CheckError, InputError
from sim.proof.cones import Bits, Cones
from sim.proof.netlist import Netlist
from sim.proof.steps import States, Step
from sim.proof.walks import walk

__all__ = ["check_raster_walk"]

_MOST = 1 << 16  # states that are run


def check_raster_walk(netlist: Netlist, raster: Raster, path: str, inside: Bits, where: str) -> int:
    """Shows what the module says; returns how many states there are.

    Parameters
    ----------
    netlist : Netlist
    raster : Raster
    path : str
        What the names of the walk's nets begin with: ``"walk."``.
    inside : bits
        What marks taps within the map, kernel row by kernel row.
    where : str
        What begins the message: ``"Core 'conv0'"``.

    Raises
    ------
    CheckError
        A state leads to another one, or reads another window.
    InputError
        The walk is built in another way, or has too many states.
    """
    found = _RasterWalk(netlist, raster, path, inside, where)
    found.check_reset()
    states = found.explore()
    found.check_pauses(states)
    depth = raster.lines[1]
    if path + "column" in netlist.nets and depth > 1:
        column = {"column": netlist.net(path + "column")}
        places = walk(netlist, path + "advance", column, depth, where)["column"]
        if not np.array_equal(places, np.arange(depth)):
            raise CheckError(f"{where}: places of a row must follow one another")
    return len(states)


@dataclass(frozen=True)
class _Past:
    """What has happened: the transfer of the pixel, the row of its windows and of the transfer, the
    pixel of the map that comes in, that of a map behind whose last one windows are still to be
    read, or -1, and windows that were read."""

    step: int = 0
    each: int = 0
    row: int = 0
    pixel: int = 0
    behind: int = -1
    window: int = 0


class _RasterWalk:
    """The claims about one walk."""

    def __init__(
        self, netlist: Netlist, raster: Raster, path: str, inside: Bits, where: str
    ) -> None:
        self._n, self._raster, self._path, self._where = netlist, raster, path, where
        columns = {path + "column", path + "column_end"}
        named = {tuple(bits): name for name, bits in netlist.nets.items()
                 if name.startswith(path) and name not in columns}  # fmt: skip
        own = {tuple(netlist.nets[name]) for name in columns if name in netlist.nets}
        cells = [cell for cell in netlist.cells if cell.type == "$dff"]
        outputs = [tuple(cell.output) for cell in cells]
        self._names = sorted(named[bits] for bits in outputs if bits in named and bits not in own)
        cones = Cones(netlist)
        wanted = {
            name: [cones.before(bit, resets=False) for bit in netlist.net(name)]
            for name in self._names
        }
        self._inputs = [path + name for name in ("some", "place", "enough")
                        if path + name in netlist.nets]  # fmt: skip
        for name in ("advance", "used", "channel", "row"):
            if path + name in netlist.nets:
                wanted[f"o {name}"] = netlist.net(path + name)
        wanted["o inside"] = inside
        cut = {name: netlist.net(name) for name in (*self._names, *self._inputs)}
        self._step = Step(netlist, cut, wanted)
        g = raster.geometry
        rows, columns_ = g.output_size
        width, (down, across) = g.input_shape[1], g.stride
        # The pixel with which each window is complete.
        self._pixels = [
            raster.first + y * down * width + x * across
            for y in range(rows)
            for x in range(columns_)
        ]
        self._inside = [self._within(y, x) for y in range(rows) for x in range(columns_)]

    def _within(self, y: int, x: int) -> int:
        """The taps of a window that are within the map, as bits; raises CheckError unless their
        pixels came as many before the last one as the window memories say."""
        g = self._raster.geometry
        (height, width, _), (kh, kw) = g.input_shape, g.kernel
        top, left = y * g.stride[0] - g.pads[0][0], x * g.stride[1] - g.pads[1][0]
        last = self._pixels[y * g.output_size[1] + x]
        bits = 0
        for a in range(kh):
            for b in range(kw):
                row, column = top + a, left + b
                if 0 <= row < height and 0 <= column < width:
                    before = (kh - 1 - a) * width + kw - 1 - b
                    if last - before != row * width + column:
                        raise CheckError(f"{self._where}: windows must be those of the map")
                    bits |= 1 << a * kw + b
        return bits

    # -- states ---------------------------------------------------------------------------------

    def _first(self) -> tuple[int, ...]:
        """Registers after configuration; raises InputError where one has no value."""
        found = []
        for name in self._names:
            bits = [self._n.init.get(bit) for bit in self._n.net(name)]
            if None in bits:
                raise InputError("windows of a map are not walked as expected")
            found.append(sum((bit == "1") << k for k, bit in enumerate(bits)))
        return tuple(found)

    def _values(self, states: list[tuple[int, ...]]) -> States:
        return dict(zip(self._names, np.array(states, dtype=np.int64).T, strict=True))

    def _flag(self, state: tuple[int, ...], name: str) -> int:
        """A flag of a state; 1 where it is none, since it is always set."""
        name = self._path + name
        return state[self._names.index(name)] if name in self._names else 1

    def check_reset(self) -> None:
        """That reset leads to the first state: from those where all bits are others, and from
        where some steps have been."""
        first = self._first()
        other = tuple(~value for value in first)
        for inputs in (0, 1):
            given = dict.fromkeys(self._inputs, inputs)
            for state in (other, first):
                found = self._step(self._values([state]) | given, rst=1)
                for name, value in zip(self._names, first, strict=True):
                    if int(found[name][0]) != value:
                        raise CheckError(
                            f"{self._where}: reset must begin with a map's first pixel"
                        )

    def explore(self) -> dict[tuple[int, ...], _Past]:
        """All states that steps lead to, with what has happened."""
        first = self._first()
        known = {first: _Past()}
        frontier = [first]
        while frontier:
            if len(known) > _MOST:
                raise InputError("windows of so large a map are not followed")
            values = self._values([state for state in frontier for _ in range(2)])
            values |= {self._path + "some": 1, self._path + "place": 1}
            values |= {self._path + "enough": np.tile([0, 1], len(frontier))}
            found = self._step(values)
            following = np.stack([found[name] for name in self._names], axis=1).tolist()
            outputs = {name: found[name][::2].tolist() for name in found if name.startswith("o ")}
            fresh = []
            for at, state in enumerate(frontier):
                past = known[state]
                self._check_outputs(state, past, {n: v[at] for n, v in outputs.items()})
                for enough in range(2):
                    reached = tuple(following[2 * at + enough])
                    after = self._after(state, past, reached, enough)
                    if reached not in known:
                        known[reached] = after
                        fresh.append(reached)
                    elif known[reached] != after:
                        raise CheckError(f"{self._where}: its walk must know what has happened")
            frontier = fresh
        return known

    def _check_outputs(self, state: tuple[int, ...], past: _Past, outputs: dict[str, int]) -> None:
        """That a state reads the window that is complete, and says so."""
        takes, emits = self._flag(state, "takes"), self._flag(state, "emits")
        number = past.pixel if past.behind < 0 else past.behind
        complete = number == self._pixels[past.window]
        if emits != complete or (past.behind < 0 and not takes):
            raise CheckError(f"{self._where}: window {past.window} must be read with its pixel")
        raster = self._raster
        advance = int(not emits or past.each == raster.each - 1)
        wanted = {"o advance": advance, "o used": advance & takes, "o channel": past.step}
        if emits:
            wanted |= {"o row": past.row, "o inside": self._inside[past.window]}
        for name, value in wanted.items():
            if outputs.get(name, value) != value:
                short = name.removeprefix("o ")
                raise CheckError(
                    f"{self._where}: window {past.window} must be read with another {short!r}"
                )

    def _after(
        self, state: tuple[int, ...], past: _Past, reached: tuple[int, ...], enough: int
    ) -> _Past:
        """What has happened after a step."""
        raster = self._raster
        takes, emits = self._flag(state, "takes"), self._flag(state, "emits")
        row = past.row + emits
        if emits and past.each < raster.each - 1:
            return replace(past, each=past.each + 1, row=row)
        if past.step < raster.steps - 1:
            return replace(past, each=0, row=row, step=past.step + 1)
        window = (past.window + emits) % len(self._pixels)
        pixel, behind = (past.pixel + takes) % raster.pixels, past.behind
        if behind >= 0:
            behind = -1 if emits and window == 0 else behind + 1
        elif takes and pixel == 0 and window != 0:
            behind = raster.pixels
        self._check_next(_Past(0, 0, 0, pixel, behind, window), reached, enough)
        return _Past(0, 0, 0, pixel, behind, window)

    def _check_next(self, after: _Past, reached: tuple[int, ...], enough: int) -> None:
        """That the next pixel takes activations unless windows of the map before wait for it, and
        in that case if enough wait to end them."""
        takes, begun = self._flag(reached, "takes"), after.pixel > 0
        if takes != (after.behind < 0 or begun or enough):
            raise CheckError(f"{self._where}: a map must begin when those before can end")
        rest = self._pixels[-1] + 1 - after.behind
        if takes and after.behind >= 0 and not begun and rest > self._raster.tail:
            raise CheckError(f"{self._where}: a map's last windows must wait for no other one")

    def check_pauses(self, states: dict[tuple[int, ...], _Past]) -> None:
        """That without a step nothing moves, and when there is one."""
        values, path = self._values(list(states)), self._path
        takes, emits = (
            values.get(path + name, np.ones(len(states), dtype=np.int64))
            for name in ("takes", "emits")
        )
        for some, place, enough in _flags(3):
            given = {path + "some": some, path + "place": place, path + "enough": enough}
            found = self._step(values | given)
            free = self._step(values | given | {path + "some": 1, path + "place": 1})
            steps = (some | (1 - takes)) & (place | (1 - emits))
            for name, value in found.items():
                still = values.get(name, 0 if name in ("o advance", "o used") else value)
                if not np.array_equal(value, np.where(steps == 1, free[name], still)):
                    raise CheckError(f"{self._where}: {name!r} must move with steps alone")


def _flags(count: int) -> Iterator[tuple[int, ...]]:
    """All combinations of so many flags."""
    for number in range(1 << count):
        yield tuple(number >> k & 1 for k in range(count))
