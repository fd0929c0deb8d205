"""Counters of a line buffer that walk from window to window and from word to word.

All states they can have are listed by the geometry. Shown is that reset and configuration are the
first of them, and, by running the cells from each of them, that one leads to the next: the walk of
windows with each start and with nothing else, that of words with each cycle in which a window is
read. So every window of every map is read, in order, each once, from the places in which the
geometry has its activations.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.errors import CheckError, InputError
from sim.proof.cones import Bits, Cones
from sim.proof.netlist import Netlist
from sim.proof.steps import States, Step

__all__ = ["check_window_walk"]

IntArray = npt.NDArray[np.int64]

_MOST = 1 << 22  # states that are run


def check_window_walk(netlist: Netlist, spec: WindowSpec, path: str, where: str) -> int:
    """Shows what the module says; returns how many words of windows there are.

    Parameters
    ----------
    netlist : Netlist
    spec : WindowSpec
        Of the units that are read, one at a time.
    path : str
        What the names of the line buffer's nets begin with: ``"writer.reader."``.
    where : str
        What begins the message: ``"Core 'conv0'"``.

    Raises
    ------
    CheckError
        Some state leads to another one than the geometry says.
    InputError
        The counters are built in another way, or have too many states.
    """
    units = _Units(spec)
    if len(units.top) * spec.unit_words > _MOST:
        raise InputError("windows of so large a map are not followed")
    if not units.needs_are_known():
        raise CheckError(f"{where}: windows must wait for what they need, and for no more")
    walk = _Walk(netlist, units, path + "walk.", where)
    walk.check_start()
    walk.check_pause()
    for number in range(spec.unit_words):
        walk.check_word(number)
    return len(units.top) * spec.unit_words


class _Units:
    """The units of some maps, one map behind the other, until rows have the first ones' places."""

    def __init__(self, spec: WindowSpec) -> None:
        self.spec, g = spec, spec.geometry
        height, (rows, columns) = g.input_shape[0], g.output_size
        maps = spec.rows // int(np.gcd(height, spec.rows))
        numbers = np.indices((maps, rows, columns, spec.phases)).reshape(4, -1)
        turn, row, column, self.phase = numbers
        self.first = turn * height  # row of the first map that this one begins with
        self.top = row * g.stride[0] - g.pads[0][0]
        self.left = column * g.stride[1] - g.pads[1][0]
        self.right = self.left + g.span[1] - 1
        bands = spec.bands()
        self.low = np.array([band.low for band in bands])[row]
        self.span = np.array([band.span for band in bands])[row]
        self.release = np.array([band.release for band in bands])[row]
        self.last = (column == columns - 1) & (self.phase == spec.phases - 1)

    def needs_are_known(self) -> bool:
        """Whether every word that is read of a map is within the rows and columns that its unit
        waits for, and rows are given back up to the first one that the next unit needs."""
        low = self.first + self.low
        released = np.where(self.last, self.release, 0)
        rows = int(self.first[-1]) + self.spec.geometry.input_shape[0]
        known = np.array_equal(low + released, np.append(low[1:], rows)) and low[0] == 0
        for number in range(self.spec.unit_words):
            y, x, *_ = self._place(number)
            inside, _ = self.read(number)
            needed = (y >= self.low) & (y <= self.low + self.span) & (x <= self.right)
            known = known and bool(needed[inside].all())
        return known and bool((self.low + self.span < self.spec.geometry.input_shape[0]).all())

    def base(self, row: IntArray) -> IntArray:
        """Where a row of each unit's map begins: in words, or in pixels of a power of two words."""
        spec, words = self.spec, self.spec.pixel_words
        unit = 1 if words & (words - 1) else words
        return (self.first + row) % spec.rows * (spec.row_words // unit)

    def position(self) -> States:
        """Registers of the unit that starts next."""
        return {
            "next_right": self.right,
            "next_y": self.top,
            "next_base": self.base(self.top),
            "next_offset": self.left * self.spec.pixel_words,
            "next_phase": self.phase,
        }

    def word(self, number: int) -> States:
        """Registers as a unit's word is read."""
        y, x, row, column, w = self._place(number)
        return {
            "x": x,
            "y": y,
            "base": self.base(y),
            "offset": x * self.spec.pixel_words + w,
            "phase": self.phase,
            "step_word_count": w if self.spec.order == "pixel" else 0,
            "step_column_count": column,
            "step_row_count": row,
        }

    def read(self, number: int) -> tuple[npt.NDArray[np.bool_], IntArray]:
        """Whether a unit's word is within the map, and its place in the memory."""
        y, x, _, _, w = self._place(number)
        (height, width, _), spec = self.spec.geometry.input_shape, self.spec
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        place = (self.first + y) % spec.rows * spec.row_words + x * spec.pixel_words + w
        return inside, place

    def _place(self, number: int) -> tuple[IntArray, IntArray, int, int, Any]:
        """Row, column, kernel row, kernel column, and number of the word within its pixel."""
        g = self.spec.geometry
        within: Any = self.phase
        if self.spec.order == "pixel":
            number, within = divmod(number, self.spec.pixel_words)
        row, column = divmod(number, g.kernel[1])
        y, x = self.top + row * g.dilation[0], self.left + column * g.dilation[1]
        return y, x, row, column, within


class _Walk:
    """The claims about one line buffer."""

    def __init__(self, netlist: Netlist, units: _Units, path: str, where: str) -> None:
        self._n, self._units, self._path, self._where = netlist, units, path, where
        self._cones = Cones(netlist)
        position = {path + name: value for name, value in units.position().items()}
        self._position = {n: v for n, v in position.items() if self._register(n)}
        counters = ("step_word_count", "step_column_count", "step_row_count")
        self._counters = [path + n for n in counters if self._register(path + n)]
        place = [path + n for n in ("x", "y", "base", "offset", "phase")]
        self._place = [n for n in place if self._register(n)]
        self._closing, self._release = path + "closing", path + "release_"
        run = self._next(netlist.net(path + "valid"), resets=True)
        self._run = next((name for name, bits in netlist.nets.items() if bits == run), "")
        flags = [self._run, self._closing, self._release]
        if not all(map(self._register, flags)):
            raise InputError("windows of a map are not walked as expected")
        names = [*self._position, *self._counters, *self._place, *flags]
        self._sizes = {name: len(netlist.net(name)) for name in names}
        wanted = {name: self._next(netlist.net(name)) for name in names}
        for name in ("address", "inside_", "valid", "last"):
            wanted[name] = self._next(netlist.net(path + name))
        self._needs = {}
        if path + "span" in netlist.nets:  # else it is a constant
            wanted["span"] = netlist.net(path + "span")
            self._needs = {"span": units.span}
        cut = {name: netlist.net(name) for name in (*names, path + "start")}
        self._step = Step(netlist, cut, wanted)

    def _register(self, name: str) -> bool:
        bits = self._n.nets.get(name, ["0"])
        return all(self._cones.is_register(bit) for bit in bits)

    def _next(self, bits: Bits, *, resets: bool = False) -> Bits:
        return [self._cones.before(bit, resets=resets) for bit in bits]

    def _expect(self, found: States, expected: States, what: str) -> None:
        for name, value in expected.items():
            mask = (1 << self._sizes[name]) - 1 if name in self._sizes else -1
            if not np.array_equal(found[name], np.broadcast_to(value, found[name].shape) & mask):
                short = name.removeprefix(self._path)
                raise CheckError(f"{self._where}: {what} must have another {short!r}")

    def _word(self, number: int) -> States:
        """Counters and place of a word."""
        found = {self._path + name: value for name, value in self._units.word(number).items()}
        return {name: found[name] for name in (*self._counters, *self._place)}

    def check_start(self) -> None:
        """Configuration and reset are the first unit's start, and its start goes to its first word
        and to the next unit."""
        first = {name: int(value[0]) for name, value in self._position.items()}
        first |= dict.fromkeys([*self._counters, self._run, self._closing], 0)
        for name, value in first.items():
            bits = [self._n.init.get(bit) for bit in self._n.net(name)]
            if bits != [str(value >> k & 1) for k in range(len(bits))]:
                raise CheckError(f"{self._where}: the walk of windows must start with the first")
        busy = self._position | {self._path + "start": 1, self._run: 1, self._closing: 1}
        other = {name: ~value for name, value in first.items()} | {self._run: 0}
        for state in (busy, other):
            self._expect(self._step(state, rst=1), first, "windows after reset")
        found = self._step(self._position | {self._path + "start": 1})
        self._expect(found, self._needs, "a window that starts next")
        self._expect(found, self._started(), "a window that starts")

    def _started(self) -> States:
        """Registers after a unit's start."""
        following = {name: np.roll(value, -1) for name, value in self._position.items()}
        flags = {
            self._run: 1,
            self._closing: self._units.last,
            self._release: self._units.release,
        }
        return following | self._word(0) | flags

    def check_pause(self) -> None:
        """Where nothing is read and nothing starts, nothing moves."""
        same = dict(self._position) | dict.fromkeys(self._counters, 0)
        quiet = {self._run: 0, self._closing: 0, "valid": 0}
        self._expect(self._step(dict(self._position)), same | quiet, "a pause between windows")

    def check_word(self, number: int) -> None:
        """A word's place, and what it leads to: the next one, or a pause, or the next unit."""
        last = number == self._units.spec.unit_words - 1
        inside, place = self._units.read(number)
        state = self._position | self._word(number) | {self._run: 1, self._closing: 1}
        found = self._step(state | {self._release: self._units.release})
        what = f"word {number} of a window"
        self._expect(found, {"inside_": inside, "valid": 1, "last": int(last)}, what)
        found["address"] = np.where(inside, found["address"], place)
        self._expect(found, {"address": place}, what)
        kept = {self._run: int(not last), self._closing: int(not last)} | self._position
        kept |= {self._release: self._units.release}
        following = dict.fromkeys(self._counters, 0) if last else self._word(number + 1)
        self._expect(found, kept | following, what)
        if last:
            found = self._step(self._position | self._word(number)
                               | {self._run: 1, self._path + "start": 1})  # fmt: skip
            self._expect(found, self._started(), "a window that starts behind another")
