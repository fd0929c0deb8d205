"""Specifications of the units around the cores: poolings, sums, concatenations, tables, parts
of frames, forks, FIFOs, width converters, the unpacker of batches."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.documents import Document
from pvq_hw.engine import kinds  # noqa: F401 (every kind of core that a document may hold)
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.halves import Halves
from pvq_hw.engine.line_buffer import WindowSpec, check_window
from pvq_hw.engine.lines import LINES_DELAY, Lines, lines_of
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.join import Add, Concat
from pvq_hw.network.table import MOST_ENTRIES, Table
from pvq_hw.network.window import AveragePool, MaxPool
from pvq_hw.registry import Registry
from pvq_hw.target.multipliers import MULTIPLIERS, Multiplier, multiplier_named

__all__ = [
    "DEEP_QUEUE",
    "UNITS",
    "UNPACKER_QUEUE",
    "CoreUnit",
    "Fifo",
    "Fork",
    "Join",
    "Lookup",
    "Pick",
    "Pool",
    "Queued",
    "Scale",
    "Unit",
    "Unpack",
    "WidthConverter",
    "link_converters",
]

IntArray = npt.NDArray[np.int64]

DEEP_QUEUE = 8  # behind a FIFO's memory that is read ahead: 3 more than its latency, or above
UNPACKER_QUEUE = 8  # more than the reads under way in an unpacker


@dataclass(frozen=True)
class Scale(Document):
    """``clamp((sum_i a_i * mult_i + half) >> shift)``: how poolings and joins requantize.

    Parameters
    ----------
    out : IntFormat
    shift : int
    acc_bits : int
        Of the operands, signed.
    mult_bits : int
        Of the unsigned multipliers.
    sum_bits : int
        Holds the sum of the products and the rounding half.
    multiplier : str
        ``"mult18"``, ``"mac16"`` (DSP blocks) or ``"logic"``.
    """

    out: IntFormat
    shift: int
    acc_bits: int
    mult_bits: int
    sum_bits: int
    multiplier: str = "mult18"

    def __post_init__(self) -> None:
        known = sorted(name for name, way in MULTIPLIERS.kinds().items() if way.for_units)
        if self.multiplier not in known:
            raise InputError(f"Multiplier must be one of {known}")
        if not 1 <= self.shift <= 48 or not 1 <= self.mult_bits < 32 or self.sum_bits > 63:
            raise InputError(f"Scaling must have a shift, multipliers and a sum, not {self}")
        if self.mult_bits > self.multiplies.mult_bits:
            raise InputError(f"Multipliers must have fewer bits than {self.mult_bits}")

    @property
    def multiplies(self) -> Multiplier:
        """How it multiplies: what ``multiplier`` names."""
        return multiplier_named(self.multiplier)

    @property
    def size(self) -> int:
        """Width of the multiplier's operands."""
        return self.multiplies.bits

    @property
    def parts(self) -> int:
        """DSP blocks of one multiplier; what it is cut into."""
        return max(1, -(-(self.acc_bits - 1) // (self.size - 1)))

    @property
    def dsps(self) -> int:
        """DSP blocks of one multiplier."""
        return self.parts if self.multiplies.blocks else 0

    @property
    def multiplier_delay(self) -> int:
        """Cycles from the operands to the product."""
        return 3 if self.parts == 1 else 2 + self.parts

    @property
    def delay(self) -> int:
        """Cycles from the operands to the activation."""
        return self.multiplier_delay + 2

    @classmethod
    def of(
        cls, out: IntFormat, shift: int, low: int, high: int, mult: tuple[int, ...], kind: str
    ) -> "Scale":
        """The scale for operands from ``low`` to ``high``, and one product for each of ``mult``."""
        bound = max(abs(low), abs(high), 1) * sum(mult) + (1 << shift)
        if bits_for(0, max(mult)) > multiplier_named(kind).mult_bits:
            kind = "logic"
        return cls(
            out=out,
            shift=shift,
            acc_bits=bits_for(min(low, -1), high),
            mult_bits=bits_for(0, max(mult)),
            sum_bits=max(bits_for(-bound, bound), shift + out.bits + 1),
            multiplier=kind,
        )


@dataclass(frozen=True)
class Unit(Document, ABC):
    """What all units have: a name, the wires that they read and give, and what is asked of them.

    Parameters
    ----------
    name : str
    inputs, outputs : tuple of str
        Names of wires.
    """

    kind: ClassVar[str] = ""

    remembers: ClassVar[bool] = False
    """Whether what it gives for a frame depends on the frames before, since a reset."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def frames(self) -> int:
        """V: frames that it works on side by side."""
        return 1

    @property
    def cores(self) -> tuple[CoreBase, ...]:
        """The core of a layer with weights, if it is one."""
        return ()

    @property
    def side_by_side(self) -> tuple[int, int]:
        """Frames in a transfer of the inputs, and of the outputs."""
        return 1, 1

    @property
    def widths(self) -> tuple[int, int]:
        """Activations of a frame in a transfer of the inputs, and of the outputs."""
        return 1, 1

    @property
    def transfers(self) -> tuple[tuple[int, ...], int]:
        """Transfers of a frame (of V side by side): of each input, and of an output."""
        (taken, size), (wide, out) = self.sizes(), self.widths
        return tuple(count // wide for count in taken), size // out

    @property
    def ports(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the streams that its circuit takes and gives, for each of its wires."""
        return ("i",), ("o",)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of its memories that activations address."""
        return ()

    @property
    def passes(self) -> bool:
        """Whether it gives what another unit has given, unchanged."""
        return False

    @property
    def lags(self) -> bool:
        """Whether it may still work on a frame whose results are out."""
        return False

    @property
    def waiting(self) -> int:
        """Results that can wait in it."""
        return 0

    @property
    def held(self) -> int:
        """Transfers of each output, the last ones, on which its later timing can depend."""
        return 2

    @property
    def rounds(self) -> int:
        """Frames that it may hold."""
        return 1 - -self.waiting // self.transfers[1] if self.waiting else 0

    @property
    def cycles(self) -> int:
        """Cycles of a frame while nothing waits, cores aside: a transfer a cycle."""
        return max(*self.transfers[0], self.transfers[1])

    @abstractmethod
    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of each input, and of an output."""

    @abstractmethod
    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of each input, and of the outputs."""

    def compute(self, *x: npt.ArrayLike) -> IntArray:
        """The golden model, arrays (frames, ...) -> (frames, ...): units that compute nothing pass
        on what they take."""
        return np.asarray(x[0], dtype=np.int64)

    def compute_with(self, images: Mapping[str, CoreImage], *x: npt.ArrayLike) -> IntArray:
        """`compute` of units that need memory contents, by the name of their core."""
        return self.compute(*x)


class Wide(Unit):
    """A unit that takes and gives ``width`` activations a transfer, which divide a frame's."""

    if TYPE_CHECKING:  # a field

        @property
        def width(self) -> int:
            """W."""

    @property
    def widths(self) -> tuple[int, int]:
        """Activations of a frame in a transfer of the inputs, and of the outputs."""
        return self.width, self.width

    def with_width(self, width: int) -> Self:
        """The unit with other transfers."""
        changed: dict[str, Any] = {"width": width}
        return replace(self, **changed)

    def check_width(self, *divided: int) -> None:
        """Raises InputError unless the width divides all of these, such as channels."""
        counts = (*self.sizes()[0], self.sizes()[1], *divided)
        if self.width < 1 or any(count % self.width for count in counts):
            raise InputError(
                f"Unit {self.name!r}: activations a transfer must divide "
                f"{', '.join(map(str, dict.fromkeys(counts)))}, not {self.width}"
            )


class Carrier(Unit):
    """A unit that gives the activations that it takes; it has the fields ``x`` and ``size``."""

    if TYPE_CHECKING:  # fields

        @property
        def x(self) -> IntFormat:
            """Format of the activations."""

        @property
        def size(self) -> int:
            """Activations of a frame."""

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of the input, and of an output."""
        return (self.size,), self.size

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of the input, and of the outputs."""
        return (self.x,), self.x


class Queued(Unit):
    """A unit whose results wait in a queue of ``depth`` places."""

    if TYPE_CHECKING:  # a field

        @property
        def depth(self) -> int:
            """Places."""

    @property
    def waiting(self) -> int:
        """Transfers of results that can wait in it."""
        return self.depth

    @property
    def held(self) -> int:
        """Transfers of the output on which its later timing can depend."""
        return self.depth


UNITS: Registry[Unit] = Registry("unit")
"""Every kind of unit. Its faces: ``timing`` (`pvq_hw.engine.timing`), ``cost`` and ``energy``
(`pvq_hw.plan.unit_resources`), ``circuit`` (`gateware.accelerator.circuits`), ``reference``
(`sim.reference`)."""


@UNITS.kind
@dataclass(frozen=True)
class CoreUnit(Unit):
    """A layer's core; with a window, a convolution.

    Parameters
    ----------
    core : CoreBase
    window : WindowSpec, optional
    """

    kind: ClassVar[str] = "core"

    core: CoreBase
    window: WindowSpec | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            check_window(self.core, self.window)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of its memories that activations address."""
        return self.core.value_memories

    @property
    def cores(self) -> tuple[CoreBase, ...]:
        """Its core."""
        return (self.core,)

    @property
    def maps(self) -> Geometry | None:
        """How windows slide over the input, where it is a map."""
        return self.window.geometry if self.window else self.core.maps

    @property
    def positions(self) -> int:
        """Frames of the core in one of the network: window positions."""
        return int(np.prod(self.maps.output_size)) if self.maps else 1

    @property
    def walks(self) -> int:
        """Times that the core goes through its codes for a frame of the network."""
        return self.window.segment.units if self.window else 1

    @property
    def frames(self) -> int:
        """V: frames that it works on side by side."""
        return self.core.output_frames

    @property
    def side_by_side(self) -> tuple[int, int]:
        """Frames in a transfer of the input, and of the output."""
        return self.core.input_frames, self.core.output_frames

    @property
    def widths(self) -> tuple[int, int]:
        """Activations of a frame in a transfer of the input, and of the output."""
        taken = self.window.taken if self.window else self.core.in_width
        return taken, self.core.out_width

    @property
    def lags(self) -> bool:
        """Whether it may still work on a frame whose results are out: the last activations of a
        map may matter to no window."""
        return self.maps is not None

    @property
    def waiting(self) -> int:
        """Results that can wait in it."""
        return UNPACKER_QUEUE if self.core.row_windows else self.core.credits

    @property
    def held(self) -> int:
        """Transfers of the output on which its later timing can depend."""
        return self.core.fifo_depth

    @property
    def rounds(self) -> int:
        """Frames that it may hold: in the two halves of its banks, and in its queues."""
        core, kept = self.core, self.core.fifo_depth
        if core.row_windows:  # and V results a row in the two halves of what gives them in order
            kept = core.frames * (core.fifo_depth + 2 * core.rows) // core.out_width
            kept += UNPACKER_QUEUE
        return 3 - -kept // self.transfers[1]

    def compute_with(self, images: Mapping[str, CoreImage], *x: npt.ArrayLike) -> IntArray:
        """The core's results, window after window."""
        windows = np.asarray(x[0], dtype=np.int64)
        if self.window is not None:
            windows = self.window.compute(windows).reshape(-1, self.core.n)
        return self.core.compute(images[self.core.name], windows)

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of the input, and of the output."""
        taken = int(np.prod(self.maps.input_shape)) if self.maps else self.core.n
        return (taken,), self.positions * self.core.rows

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of each input, and of the output."""
        return (self.core.x,), self.core.out


@UNITS.kind
@dataclass(frozen=True)
class Pool(Wide, Queued):
    """A pooling. Where no windows overlap, activations are pooled as they come, into a partial
    result for each column of windows; else windows are read from a line buffer.

    Parameters
    ----------
    geometry : Geometry
    x, out : IntFormat
    window : WindowSpec, optional
        The line buffer, in channel order.
    scale : Scale, optional
        Of an average; without, the pooling is the maximum.
    mult : tuple of (count, multiplier)
        As `pvq_hw.network.window.AveragePool` has it.
    include_pads : bool
    depth : int
        Of the queue of results.
    queue_memory : str
        Of that queue.
    memory, latency
        Of the partial results.
    width : int
        W: channels a transfer; 1 with a line buffer.
    """

    kind: ClassVar[str] = "pool"

    geometry: Geometry
    x: IntFormat
    out: IntFormat
    window: WindowSpec | None = None
    scale: Scale | None = None
    mult: tuple[tuple[int, int], ...] = ()
    include_pads: bool = False
    depth: int = 16
    queue_memory: str = "logic"
    memory: str = "block"
    latency: int = 2
    width: int = 1

    def __post_init__(self) -> None:
        where = f"Pooling {self.name!r}"
        self.check_width(self.geometry.input_shape[2])
        if self.window is None and not can_stream(self.geometry, self.latency, self.width):
            raise InputError(
                f"{where} must have a line buffer: windows overlap or pixels are short"
            )
        if self.window is not None and self.window.order != "channel":
            raise InputError(f"{where} must read its windows channel by channel")
        if self.window is not None and self.width != self.window.taken:
            raise InputError(f"{where} must take and give one activation a transfer")
        if self.scale is None and self.x != self.out:
            raise InputError(f"{where} must keep its format")
        if self.scale is not None and self.x.binary:
            raise InputError(f"{where} must not average binary activations")

    @property
    def lags(self) -> bool:
        """Whether it may still work on a frame whose results are out: the last activations of a
        map may matter to no window."""
        return True

    @property
    def scale_delay(self) -> int:
        """Cycles that the multiplication takes."""
        return self.scale.delay if self.scale else 0

    @property
    def result_delay(self) -> int:
        """Cycles from a transfer (streamed) or from the last word's step (line buffer) to the
        write into the queue."""
        wait = self.window.read_delay if self.window else self.latency
        return wait + 1 + self.scale_delay

    @property
    def acc_bits(self) -> int:
        """Bits of partial results, signed where x is, or where the sum may be negative."""
        if self.scale is None:
            return self.x.bits
        taps = self.geometry.kernel[0] * self.geometry.kernel[1]
        low, high = self.x.limits
        return bits_for(low * taps, high * taps)

    @property
    def pixel_transfers(self) -> int:
        """Transfers of a pixel."""
        return self.geometry.input_shape[2] // self.width

    @property
    def partials(self) -> int:
        """Partial results that a streamed pooling keeps, W in a word."""
        return self.geometry.output_size[1] * self.pixel_transfers

    @property
    def chained(self) -> bool:
        """Whether pixels are so short that a partial result would be read before it is written: a
        row of a window is then pooled in registers, and the memory has one word for each row."""
        return self.window is None and self.pixel_transfers < self.latency + 2

    def layer(self) -> MaxPool | AveragePool:
        """The golden model, scales aside."""
        from pvq_hw.network.layer import TensorSpec

        channels = self.geometry.input_shape[2]
        out = TensorSpec(self.name, (*self.geometry.output_size, channels), self.out, 1.0)
        if self.scale is None:
            return MaxPool(self.name, "x", out, self.geometry)
        return AveragePool(
            self.name, "x", out, self.geometry, self.include_pads, self.mult, self.scale.shift
        )

    def compute(self, *x: npt.ArrayLike) -> IntArray:
        """(frames, ...) -> (frames, rows, columns, channels)."""
        return self.layer().compute(np.asarray(x[0]))

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of each input, and of the output."""
        h, w, c = self.geometry.input_shape
        rows, columns = self.geometry.output_size
        return (h * w * c,), rows * columns * c

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of each input, and of the output."""
        return (self.x,), self.out


def can_stream(geometry: Geometry, latency: int, width: int = 1) -> bool:
    """Whether a pooling can do without a line buffer: every activation is in one window at most,
    every window has one inside the map, and a row's partial result is written before it is read."""
    g = geometry
    if g.dilation != (1, 1) or any(k > s for k, s in zip(g.kernel, g.stride, strict=True)):
        return False
    for size, kernel, step, pad, count in zip(
        g.input_shape[:2], g.kernel, g.stride, g.pads, g.output_size, strict=True
    ):
        if kernel <= pad[0] or (count - 1) * step - pad[0] >= size:
            return False
    return g.input_shape[1] * g.input_shape[2] // width >= latency + 2


@UNITS.kind
@dataclass(frozen=True)
class Join(Wide, Queued):
    """A sum of streams, or streams one after the other, brought to one scale.

    Parameters
    ----------
    x : tuple of IntFormat
        Of the inputs.
    out : IntFormat
    size : int
        Activations of the output of a frame.
    mult : tuple of int
    scale : Scale
    runs : tuple of int
        Of a concatenation: activations that are taken from each input in turn; empty for a sum.
    depth : int
        Of the queue of results.
    queue_memory : str
        Of that queue.
    width : int
        W: activations a transfer.
    """

    kind: ClassVar[str] = "join"

    x: tuple[IntFormat, ...]
    out: IntFormat
    size: int
    mult: tuple[int, ...]
    scale: Scale
    runs: tuple[int, ...] = ()
    depth: int = 16
    queue_memory: str = "logic"
    width: int = 1

    def __post_init__(self) -> None:
        where = f"Unit {self.name!r}"
        counts = {len(self.inputs), len(self.x), len(self.mult), len(self.runs or self.x)}
        if len(counts) > 1 or not self.inputs:
            raise InputError(f"{where} must have a format and a multiplier for every input")
        if self.runs and (min(self.runs) < 1 or self.size % sum(self.runs)):
            raise InputError(
                f"{where}: runs {self.runs} must be positive and divide {self.size} activations"
            )
        self.check_width(*self.runs)
        if any(x.binary for x in (*self.x, self.out)):
            raise InputError(f"{where} must not join binary activations")

    @property
    def ports(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the streams that its circuit takes and gives."""
        return tuple(f"i{k}" for k in range(len(self.inputs))), ("o",)

    @property
    def cycles(self) -> int:
        """Cycles of a frame while nothing waits: those of the output, which all inputs share."""
        return self.size // self.width

    @property
    def result_delay(self) -> int:
        """Cycles from a transfer to the write into the queue."""
        return self.scale.delay

    def layer(self) -> Add | Concat:
        """The golden model, scales aside."""
        from pvq_hw.network.layer import TensorSpec

        if not self.runs:
            out = TensorSpec(self.name, (self.size,), self.out, 1.0)
            return Add(self.name, self.inputs, out, self.mult, self.scale.shift)
        lead = self.size // sum(self.runs)
        out = TensorSpec(self.name, (lead, sum(self.runs)), self.out, 1.0)
        return Concat(self.name, self.inputs, out, self.mult, self.scale.shift)

    def compute(self, *x: npt.ArrayLike) -> IntArray:
        """Arrays (frames, ...) -> (frames, size)."""
        arrays = [np.asarray(a, dtype=np.int64).reshape(len(np.asarray(a)), -1) for a in x]
        return self.layer().compute(*arrays).reshape(len(arrays[0]), -1)

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of each input, and of the output."""
        if not self.runs:
            return (self.size,) * len(self.inputs), self.size
        lead = self.size // sum(self.runs)
        return tuple(run * lead for run in self.runs), self.size

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of each input, and of the output."""
        return self.x, self.out


@UNITS.kind
@dataclass(frozen=True)
class Lookup(Wide, Queued):
    """A table of an activation's function, or one for each channel.

    Parameters
    ----------
    x, out : IntFormat
    size : int
        Activations of a frame.
    entries : tuple of tuple of int
        Of every channel's table, or of the one: from the input's smallest value up.
    latency : int
        Of the memory.
    depth : int
        Of the queue of results.
    queue_memory : str
        Of that queue.
    memory : str
        Of the tables: ``"logic"`` (LUTs) or ``"block"``; or ``"lines"``, which needs none: the
        entries lie on two lines.
    width : int
        W: activations a transfer, each with a memory of its own.
    """

    kind: ClassVar[str] = "lookup"

    x: IntFormat
    out: IntFormat
    size: int
    entries: tuple[tuple[int, ...], ...]
    latency: int = 2
    depth: int = 16
    queue_memory: str = "logic"
    memory: str = "block"
    width: int = 1

    def __post_init__(self) -> None:
        where = f"Unit {self.name!r}"
        if self.x.binary or self.out.binary:
            raise InputError(f"{where} must not look binary activations up")
        if any(len(row) != 1 << self.x.bits for row in self.entries):
            raise InputError(f"{where} must have {1 << self.x.bits} entries a table")
        if not self.entries or self.size % len(self.entries) or self.words > 2 * MOST_ENTRIES:
            raise InputError(f"{where} must have 1 table or one for each channel")
        self.check_width(*((len(self.entries),) if len(self.entries) > 1 else ()))
        if not all(self.out.contains(row) for row in self.entries):
            raise InputError(f"{where} must have entries of {self.out.bits} bits")
        if not 1 <= self.latency <= 6 or self.memory not in ("logic", "block", "lines"):
            raise InputError(f"{where} must have a memory of 1 to 6 cycles, logic, block or lines")
        if self.memory == "lines" and (self.lines is None or self.latency != LINES_DELAY):
            raise InputError(f"{where} must have entries on two lines, in {LINES_DELAY} cycles")

    @property
    def lines(self) -> Lines | None:
        """The two lines on which the entries lie, where they do."""
        return lines_of(self.entries[0], self.x, self.out) if len(self.entries) == 1 else None

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of its memories that activations address."""
        if self.memory == "lines":
            return ()
        return tuple(f"table{k or ''}" for k in range(self.width))

    @property
    def tables_each(self) -> int:
        """Tables in a memory: every W-th channel's, or the one."""
        return -(-len(self.entries) // self.width)

    @property
    def words(self) -> int:
        """Words of a memory: the number of its tables rounded up to a power of two."""
        return 1 << (self.x.bits + (self.tables_each - 1).bit_length())

    @property
    def result_delay(self) -> int:
        """Cycles from a transfer to the write into the queue."""
        return self.latency

    def contents(self, lane: int = 0) -> list[int]:
        """Words of the memory of a transfer's activation of that number, by the input's bits below
        the table's number."""
        mask, half = (1 << self.out.bits) - 1, -self.x.limits[0]
        entries = self.entries[lane :: self.width] if len(self.entries) > 1 else self.entries
        words = [v & mask for row in entries for v in (*row[half:], *row[:half])]
        return words + [0] * (self.words - len(words))

    def layer(self) -> Table:
        """The golden model, scales aside."""
        from pvq_hw.network.layer import TensorSpec

        groups = len(self.entries)
        out = TensorSpec(self.name, (self.size // groups, groups), self.out, 1.0)
        return Table(self.name, "x", self.x, out, np.array(self.entries, dtype=np.int64), "")

    def compute(self, *x: npt.ArrayLike) -> IntArray:
        """(frames, ...) -> (frames, size)."""
        array = np.asarray(x[0], dtype=np.int64)
        return self.layer().compute(array).reshape(len(array), -1)

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of the input, and of the output."""
        return (self.size,), self.size

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of the input, and of the output."""
        return (self.x,), self.out


@UNITS.kind
@dataclass(frozen=True)
class Fork(Carrier, Wide):
    """Gives every transfer to each of its outputs, as soon as each takes it.

    Parameters
    ----------
    x : IntFormat
    size : int
        Activations of a frame.
    width : int
        W: activations a transfer.
    """

    kind: ClassVar[str] = "fork"

    x: IntFormat
    size: int
    width: int = 1

    def __post_init__(self) -> None:
        self.check_width()

    @property
    def ports(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the streams that its circuit takes and gives."""
        return ("i",), tuple(f"o{k}" for k in range(len(self.outputs)))

    @property
    def passes(self) -> bool:
        """Whether it gives what another unit has given, unchanged."""
        return True


@UNITS.kind
@dataclass(frozen=True)
class Pick(Unit):
    """Passes a part of every frame on and drops the rest: one of a network's several inputs, or
    a slice of an axis.

    Parameters
    ----------
    x : IntFormat
    size : int
        Activations of a frame at the input.
    start, count, period : int
        The part: of every ``period`` activations ``start`` to ``start + count - 1``.
    """

    kind: ClassVar[str] = "pick"

    x: IntFormat
    size: int
    start: int
    count: int
    period: int

    def __post_init__(self) -> None:
        fits = 0 <= self.start < self.start + self.count <= self.period
        if not fits or self.size % self.period:
            raise InputError(f"Unit {self.name!r} must take a part of {self.size} activations")

    def takes(self, place: int) -> bool:
        """Whether it passes the activation of that place in a frame on."""
        return self.start <= place % self.period < self.start + self.count

    def compute(self, *x: npt.ArrayLike) -> IntArray:
        """(frames, ...) -> (frames, size of the output)."""
        array = np.asarray(x[0], dtype=np.int64)
        whole = array.reshape(len(array), -1, self.period)
        return whole[:, :, self.start : self.start + self.count].reshape(len(array), -1)

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of the input, and of the output."""
        return (self.size,), self.size // self.period * self.count

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Formats of the input, and of the output."""
        return (self.x,), self.x


@UNITS.kind
@dataclass(frozen=True)
class Fifo(Carrier, Wide, Queued):
    """Holds ``depth`` transfers of a branch.

    Parameters
    ----------
    x : IntFormat
    size : int
        Activations of a frame.
    depth : int
    memory : str
        ``"logic"`` or ``"block"``.
    width : int
        W: activations a transfer.
    latency : int
        Of the memory: 1, or up to 4 cycles where block RAMs and the choice among them have
        registers behind them, and what is read waits in a short queue of `DEEP_QUEUE` places.
    """

    kind: ClassVar[str] = "fifo"

    x: IntFormat
    size: int
    depth: int
    memory: str = "logic"
    width: int = 1
    latency: int = 1

    def __post_init__(self) -> None:
        self.check_width()
        if not 2 <= self.depth <= 1 << 20 or self.memory not in ("logic", "block"):
            raise InputError(f"FIFO {self.name!r} must hold 2 transfers or more")
        if not 1 <= self.latency <= 4:
            raise InputError(
                f"FIFO {self.name!r} must have a latency of 1 to 4, not {self.latency}"
            )

    @property
    def delay(self) -> int:
        """Cycles from a transfer's coming until it is offered, where none is before it."""
        return 2 if self.latency == 1 else self.latency + 3

    @property
    def passes(self) -> bool:
        """Whether it gives what another unit has given, unchanged."""
        return True


@UNITS.kind
@dataclass(frozen=True)
class WidthConverter(Carrier):
    """Puts transfers together to wider ones, or gives them in parts, where neighbors differ.

    Parameters
    ----------
    x : IntFormat
    size : int
        Activations of a frame.
    taken, given : int
        Activations in a transfer of the input, and of the output; one divides the other.
    """

    kind: ClassVar[str] = "converter"

    x: IntFormat
    size: int
    taken: int
    given: int

    def __post_init__(self) -> None:
        low, high = sorted((self.taken, self.given))
        if low < 1 or high % low or self.size % high or low == high:
            raise InputError(
                f"Unit {self.name!r} must have two widths of which one divides the other, and "
                f"both {self.size}, not {self.taken} and {self.given}"
            )

    @property
    def widths(self) -> tuple[int, int]:
        """Activations of a frame in a transfer of the input, and of the output."""
        return self.taken, self.given

    @property
    def passes(self) -> bool:
        """Whether it gives what another unit has given, unchanged."""
        return True

    @property
    def parts(self) -> int:
        """Narrow transfers in a wide one."""
        return max(self.taken, self.given) // min(self.taken, self.given)

    @property
    def rounds(self) -> int:
        """Frames that it may hold."""
        return 1


def link_converters(
    x: tuple[int, IntFormat], out: tuple[int, IntFormat], widths: tuple[int, int]
) -> tuple[WidthConverter | None, WidthConverter | None]:
    """What a board's link, which has one activation a transfer, needs before a network whose
    transfers carry so many, and behind it; None where that is one too.

    Raises InputError where frames, of so many activations of these formats, are no whole transfers.
    """
    (size, form), (given, last) = x, out
    wide, leaves = widths
    return (
        WidthConverter("widen", ("i",), ("o",), form, size, 1, wide) if wide > 1 else None,
        WidthConverter("narrow", ("i",), ("o",), last, given, leaves, 1) if leaves > 1 else None,
    )


@UNITS.kind
@dataclass(frozen=True)
class Unpack(Halves, Carrier):
    """Gives the frames of a batch one after the other, behind the last core that takes several;
    drops those that no frame came for.

    Parameters
    ----------
    x : IntFormat
    size : int
        Activations of a frame.
    batch : int
        V.
    places : int
        Batches that can be under way in the cores before it: each one's last frame is told.
    memory : str
        ``"logic"`` or ``"block"``; of two batches' results, a row's V results a word.
    """

    kind: ClassVar[str] = "unpack"

    x: IntFormat
    size: int
    batch: int
    places: int
    memory: str = "block"

    def __post_init__(self) -> None:
        if not 2 <= self.batch <= 16 or not 2 <= self.places <= 1 << 16:
            raise InputError(f"Unit {self.name!r} must unpack 2 to 16 frames of some batches")
        if self.memory not in ("logic", "block"):
            raise InputError(f"Unit {self.name!r}: memory must be block or logic")

    @property
    def frames(self) -> int:
        """V: frames that it works on side by side."""
        return self.batch

    @property
    def side_by_side(self) -> tuple[int, int]:
        """Frames in a transfer of the input, and of the output."""
        return self.batch, 1

    @property
    def waiting(self) -> int:
        """Results that can wait in it."""
        return UNPACKER_QUEUE

    @property
    def rounds(self) -> int:
        """Frames that it may hold: those that the core before it still counts."""
        return 0

    @property
    def side(self) -> int:
        """V."""
        return self.batch

    @property
    def words(self) -> int:
        """Words of a half of its memory."""
        return self.size
