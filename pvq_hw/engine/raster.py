"""Windows of maps whose pixels come as in a raster, one map behind the other.

Activations come channels fastest. The rows of the map above are in one memory, the columns to the
left in another, and whatever comes in makes a whole window: of its channel, or of all channels
where a pixel comes in a transfer. A window is there with its last pixel, and where that is beyond
the map, with as many pixels of the next one. If these have not come when the map has, its last
windows are read with pixels of nothing in their place: results never wait for the next map.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from pvq_hw.arith.formats import IntFormat
from pvq_hw.geometry import Geometry

__all__ = ["Question", "Raster", "raster_refusal", "raster_steps"]


@dataclass(frozen=True)
class Raster:
    """Windows that are read with each step, of which a pixel has as many as transfers.

    Parameters
    ----------
    geometry : Geometry
        See `raster_refusal`.
    x : IntFormat
    width : int
        Activations of a transfer; divides the channels.
    each : int
        Times that a window is read.
    latency : int
        Of the memories, in cycles.
    queue_memory, lines_memory, columns_memory : str
        ``"block"`` or ``"logic"``: of the activations that wait, the rows above, and the columns
        to the left. Of so few words that one would be read again before it is written, the last
        two are shift registers.
    """

    geometry: Geometry
    x: IntFormat
    width: int = 1
    each: int = 1
    latency: int = 2
    queue_memory: str = "block"
    lines_memory: str = "block"
    columns_memory: str = "block"

    @property
    def bits(self) -> int:
        """Bits of a transfer."""
        return self.width * self.x.bits

    @property
    def steps(self) -> int:
        """Transfers of a pixel."""
        return self.geometry.input_shape[2] // self.width

    @property
    def rows(self) -> int:
        """Windows that are read at a position."""
        return self.steps * self.each

    @property
    def taps(self) -> int:
        """Pixels of a window."""
        return self.geometry.kernel[0] * self.geometry.kernel[1]

    @property
    def pixels(self) -> int:
        """Pixels of a map."""
        return self.geometry.input_shape[0] * self.geometry.input_shape[1]

    @property
    def first(self) -> int:
        """The pixel of a map with which its first window is there."""
        (kh, kw), ((top, _), (left, _)) = self.geometry.kernel, self.geometry.pads
        return (kh - 1 - top) * self.geometry.input_shape[1] + kw - 1 - left

    @property
    def turn(self) -> int:
        """Pixels from a row's last window to the first one of the next row."""
        (down, across), width = self.geometry.stride, self.geometry.input_shape[1]
        return down * width - (self.geometry.output_size[1] - 1) * across

    @property
    def tail(self) -> int:
        """Pixels behind a map's last one that its last windows wait for; 0 where none do."""
        g = self.geometry
        (rows, columns), (down, across) = g.output_size, g.stride
        last = self.first + (rows - 1) * down * g.input_shape[1] + (columns - 1) * across
        return max(0, last + 1 - self.pixels)

    @property
    def enough(self) -> int:
        """Transfers that must wait for the next map to begin while the last windows of the one
        before are read: these then need no others."""
        return self.tail * self.steps + 1

    @property
    def queue_depth(self) -> int:
        """Transfers that can wait, a power of two."""
        return max(16, 1 << (self.enough + 3).bit_length())

    @property
    def lines(self) -> tuple[int, int]:
        """Width and depth of the memory of the rows above; width 0 where there are none."""
        height = self.geometry.kernel[0] - 1
        return height * self.bits, self.geometry.input_shape[1] * self.steps

    @property
    def columns(self) -> tuple[int, int]:
        """Width and depth of the memory of the columns to the left; width 0 where there are
        none."""
        kh, kw = self.geometry.kernel
        return kh * (kw - 1) * self.bits, self.steps

    def in_registers(self, size: tuple[int, int]) -> bool:
        """Whether `lines` or `columns` are shift registers."""
        return size[1] <= self.latency


def raster_refusal(geometry: Geometry, x: IntFormat) -> str:
    """Why windows can't be read as pixels come; empty where they can."""
    height, width, _ = geometry.input_shape
    (kh, kw), pads = geometry.kernel, geometry.pads
    if geometry.dilation != (1, 1):
        return "it is dilated"
    if sum(pads[0]) >= kh or sum(pads[1]) >= kw:
        return "its padding is as large as its kernel"
    if (kh - 1 - pads[0][0]) * width + kw - 1 - pads[1][0] >= height * width:
        return "its map is smaller than its kernel"
    if x.binary:
        return "its activations are binary"
    return ""


# -- timing --------------------------------------------------------------------------------------


class _Wire(Protocol):
    moved: list[int]
    readies: list[int]

    def settle(self) -> None: ...


@dataclass(eq=False)
class Question:
    """Whether a transfer comes before ``time``. What nothing else can tell any more is denied, the
    earliest question first: whatever would make it come is later."""

    time: int
    denied: bool = False


def raster_steps(
    raster: Raster,
    i: _Wire,
    read: Callable[[int], int | None],
    used: list[int],
    frames: int,
    questions: list[Question],
) -> Generator[None, None, None]:
    """One step a cycle while there are activations and places for results.

    ``read`` is told the first cycle in which a window could be read, and returns the one in which
    it is, or None while that isn't known; ``used`` gets the cycles in which activations leave the
    queue; ``questions`` holds those that wait for an answer.
    """
    total = frames * raster.pixels * raster.steps
    rows, columns = raster.geometry.output_size
    across, positions = raster.geometry.stride[1], rows * columns
    steps, each, moved = raster.steps, raster.each, i.moved
    i.readies += [0] * min(raster.queue_depth, total)
    now, index, pause, walked = -1, 0, 0, 0
    takes = True
    walking = False
    while (takes and len(used) < total) or walking:
        emits = (takes and index == raster.first) or (walking and pause == 0)
        for _ in range(steps):
            now += 1
            if takes:
                while len(moved) <= len(used):
                    yield
                now = max(now, moved[len(used)] + 1)
            for extra in range(each if emits else 0):
                while (when := read(now + (extra > 0))) is None:
                    yield
                now = when
            if takes:
                used.append(now)
                if len(i.readies) < total:
                    i.readies.append(now + 1)
        i.settle()
        boundary = not takes or index == raster.pixels - 1
        if takes:
            index = 0 if boundary else index + 1
        if emits:
            walked = (walked + 1) % positions
            walking = walked > 0
            pause = (raster.turn if walked % columns == 0 else across) - 1
        elif walking:
            pause -= 1
        before = len(used) - takes
        takes = True
        if boundary and walking:
            # Whether enough have come before this cycle for the next map to begin.
            wanted = before + raster.enough - 1
            question = Question(now, wanted >= total)
            questions.append(question)
            while not (
                question.denied or len(i.moved) > wanted or (len(i.moved) and i.moved[-1] >= now)
            ):
                yield
            questions.remove(question)
            takes = len(i.moved) > wanted and i.moved[wanted] < now
