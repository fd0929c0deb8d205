"""What all cores have in common: streams, control, requantizer, their numbers and their checks."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.documents import Document
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.naming import identifiers
from pvq_hw.network.layer import Dense, TensorSpec, Weighted
from pvq_hw.registry import Registry, ValueFace
from pvq_hw.target.families import family as find_family
from pvq_hw.target.multipliers import MULTIPLIERS, Multiplier, multiplier_for, multiplier_named

__all__ = [
    "CORES",
    "CoreBase",
    "CoreImage",
    "InnerStream",
    "IntArray",
    "core_fields",
    "core_image",
    "core_multiplier",
    "core_stem",
    "is_threshold",
    "multiplier_delay",
]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CoreImage:
    """Contents of a core's memories.

    Parameters
    ----------
    codes : tuple of int
        Words of the weights: slot words of pulses, or words of plain weights, lane 0 lowest.
    mult : tuple of int
        Multipliers, unsigned, rows x groups, groups fastest; none where the core has none.
    bias : tuple of int
        Folded constants, signed, one per row: the layer's bias, the rounding half and what makes
        up for the way in which the core reads its activations.
    """

    codes: tuple[int, ...]
    mult: tuple[int, ...]
    bias: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class InnerStream:
    """A stream inside a core that computes several layers: what one before the last gives.

    Parameters
    ----------
    instance : str
        Of the module that carries it, within the core's.
    layer : str
        The layer's name in the network.
    results : int
        Activations of a frame, one a transfer.
    out : IntFormat
    order : int array, optional
        Each activation's place in the layer's output, where they come in another order.
    """

    instance: str
    layer: str
    results: int
    out: IntFormat
    order: IntArray | None = None


@dataclass(frozen=True, kw_only=True)
class CoreBase(Document, ABC):
    """Numbers that every kind of core has; validated when made.

    Parameters
    ----------
    name : str
        Stem of the core's memory files.
    n, rows, groups : int
        Columns, rows, gains per row.
    x, out : IntFormat
    frames : int
        V: frames in one bank word.
    row_windows : int
        0: the V frames are a network's. Else they are windows of a map, neighbors in a row of so
        many, and activations come and go one a transfer, in the order of the map.
    flush_cycles : int
        0: V activations come a transfer. Else they come one a transfer, frame after frame; a
        batch that is not full is closed after so many cycles without one, at least 2.
    acc_bits, mult_bits, bias_bits, sum_bits, shift : int
        ``clamp((sum_g acc * mult + bias) >> shift)``; ``sum_bits`` holds the sum.
    in_width, out_width : int
        Activations in a transfer of the input, where that is not the line buffer's affair, and in
        one of the output. They divide columns and rows; above 1 a transfer is of one frame.
    multiplier : str
        Of the requantizer: ``"mult18"``, ``"mac16"``, ``"serial"``, in unrolled cores that give
        all results at once ``"wires"`` (adders of each row's own), or ``"none"`` where all
        multipliers are 1 because the output is a sign, whose threshold is the bias.
    multiplier_interval : int
        Cycles between two products; every group has at least as many words. 1 unless serial.
    code_latency, bank_latency : int
        1 to 6, and 1 to 3 cycles.
    carry_chunk : int
        0, or the longest carry chain of accumulator and bias adder.
    fifo_depth : int
        Places for results, a power of two; see `credits`.
    params_memory, bank_memory, fifo_memory : str
        ``"block"`` or ``"logic"``.
    code_memory : str
        ``"block"``, or ``"spram"``: the UltraPlus's large RAM, loaded after configuration.
        ``"wires"`` of unrolled layers, which read no weights.
    updatable : bool
        Whether all that follows from the weights is in block RAM, and words and widths have room:
        other weights that find room in them go into the same circuit. See
        `pvq_hw.engine.reserve`.
    """

    kind: ClassVar[str]
    engine: ClassVar[str] = "folded"  # which makes it, of `pvq_hw.engine.engines.ENGINES`
    weight_memory: ClassVar[str]  # what the file of the weights' words is called
    code_memories: ClassVar[tuple[str, ...]] = ("block", "spram")
    takes_windows: ClassVar[bool] = False  # V of a map side by side
    takes_wide: ClassVar[bool] = False  # several activations of a frame in a transfer
    holds_window: ClassVar[bool] = False  # in registers, all of a convolution's window at once
    banked: ClassVar[bool] = False  # lanes wait for one another: best with as many pulses each
    serial_too: ClassVar[bool] = False  # its multiplier may be serial and keep pace with its words
    encoding: ClassVar[str] = ""  # of its weights, "pvq" or "int8"; empty where they may be either

    name: str
    n: int
    rows: int
    x: IntFormat
    out: IntFormat
    acc_bits: int
    mult_bits: int
    bias_bits: int
    sum_bits: int
    shift: int
    groups: int = 1
    frames: int = 1
    row_windows: int = 0
    flush_cycles: int = 0
    in_width: int = 1
    out_width: int = 1
    multiplier: str = "mult18"
    multiplier_interval: int = 1
    code_latency: int = 2
    bank_latency: int = 2
    carry_chunk: int = 0
    fifo_depth: int = 16
    params_memory: str = "block"
    bank_memory: str = "block"
    fifo_memory: str = "logic"
    code_memory: str = "block"
    updatable: bool = False

    if TYPE_CHECKING:  # fields of some kinds, properties of others

        @property
        def lanes(self) -> int:
            """P."""

        @property
        def words(self) -> int:
            """Words of a frame, which is cycles per frame."""

    def check_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        """Raises InputError unless each field is an integer within its bounds."""
        values = vars(self)
        for key, low, high in ranges:
            value = values[key]
            if not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"Core {self.name!r}: {key} must be {low} to {high}, not {value}")

    def __post_init__(self) -> None:
        where = f"Core {self.name!r}"
        self.check_ranges(_RANGES)
        if self.n % self.in_width or self.rows % self.out_width:
            raise InputError(
                f"{where}: widths of streams must divide {self.n} columns and {self.rows} rows, "
                f"not {self.in_width} and {self.out_width}"
            )
        if self.fifo_depth & (self.fifo_depth - 1):
            raise InputError(f"{where}: fifo_depth must be a power of two, not {self.fifo_depth}")
        if self.credits < 1:
            raise InputError(
                f"{where}: fifo_depth must be above {self.code_latency + 2}, not {self.fifo_depth}"
            )
        ways = MULTIPLIERS.kinds()
        if self.multiplier not in ways or not ways[self.multiplier].for_rows:
            known = [name for name, way in ways.items() if way.for_rows]
            raise InputError(
                f"{where}: multiplier must be one of {tuple(known)}, not {self.multiplier!r}"
            )
        most = self.multiplies.mult_bits
        if self.mult_bits > most:
            raise InputError(
                f"{where}: multipliers must have at most {most} bits, not {self.mult_bits}"
            )
        if self.multiplies.wired and not self.wires_multipliers:
            raise InputError(f"{where} must give a result for each row at once to wire multipliers")
        if not self.multiplies.stored and (self.groups > 1 or not self.out.binary):
            raise InputError(f"{where} must have a multiplier unless its rows give signs")
        if self.flush_cycles and (self.frames == 1 or self.flush_cycles == 1):
            raise InputError(
                f"{where}: flush_cycles must be 0 with one frame and 2 or more with several, "
                f"not {self.flush_cycles}"
            )
        if self.row_windows and not (self.takes_windows and 1 < self.frames <= self.row_windows):
            raise InputError(
                f"{where}: a row of {self.row_windows} windows must have 2 or more side by side, "
                f"not {self.frames}"
            )
        if self.row_windows and self.flush_cycles:
            raise InputError(f"{where}: flush_cycles must be 0 where windows are side by side")
        for key in ("params_memory", "bank_memory", "fifo_memory"):
            if getattr(self, key) not in ("block", "logic"):
                raise InputError(f"{where}: {key} must be block or logic")
        if self.code_memory not in self.code_memories:
            raise InputError(f"{where}: code_memory must be {' or '.join(self.code_memories)}")
        if self.updatable and (self.code_memory, self.params_memory) != ("block", "block"):
            raise InputError(f"{where}: weights, multipliers and biases must be in block RAM")
        if self.code_memory == "spram" and self.code_latency > 2:
            raise InputError(f"{where}: code_latency must be 1 or 2 with codes in SPRAM")

    # -- shapes -----------------------------------------------------------------------------

    @property
    def value_memories(self) -> tuple[str, ...]:
        """Names of its memories that activations address."""
        return ()

    @property
    def in_spram(self) -> bool:
        """Whether it has an SPRAM for anything."""
        return self.code_memory == "spram"

    @property
    def by_pixel(self) -> bool:
        """Whether it reads a window with each pixel that comes; else a line buffer reads them."""
        return False

    @property
    def maps(self) -> Geometry | None:
        """How windows slide over the maps that are its frames; None where frames are windows."""
        return None

    @property
    def input_frames(self) -> int:
        """Frames in a transfer of the input."""
        return 1 if self.flush_cycles or self.row_windows else self.frames

    @property
    def output_frames(self) -> int:
        """Frames of a network that it works on side by side, and in a transfer of the output."""
        return 1 if self.row_windows else self.frames

    @property
    def all_rows(self) -> int:
        """Rows of all layers that it computes."""
        return self.rows

    @property
    def weights(self) -> int:
        """Weights of all layers that it computes, those of a convolution's other groups counted."""
        return self.rows * self.n

    @property
    @abstractmethod
    def address_bits(self) -> int:
        """Bits of an address within a half of the activations' memory."""

    @property
    @abstractmethod
    def bank_words(self) -> int:
        """Depth of the activations' memory, both halves."""

    @property
    @abstractmethod
    def word_bits(self) -> int:
        """Width of a word of weights."""

    @property
    def gap_bits(self) -> int:
        """Bits of a gap in its codes; 1 where there are none."""
        return 1

    @property
    def shift_bits(self) -> int:
        """Bits of a shift in its codes; 0 where there are none."""
        return 0

    @property
    def inner_streams(self) -> tuple[InnerStream, ...]:
        """What layers before its last one give; none of a core of one layer."""
        return ()

    @property
    def shared_by(self) -> tuple[str, ...]:
        """The network's layers with weights that an engine of several layers computes, in order;
        none of a core of one layer."""
        return ()

    @property
    def alternates(self) -> bool:
        """Whether it takes a frame only when it is through with the one before."""
        return False

    def layer_at(self, memory: str, word: int) -> str:
        """The name of the layer, of several, that a word of a memory belongs to; empty where the
        core has one layer only."""
        return ""

    @property
    def how(self) -> str:
        """How it computes, for people."""
        side = f", {self.frames} windows of its map side by side" if self.row_windows else ""
        return f"lanes: {self.lanes}, code words: {self.words}{side}"

    def weight_roms(self, blocks: str) -> tuple[int, ...]:
        """Depths of the ROMs that the words of weights are in, one behind the other.

        ``blocks`` is one of `pvq_hw.target.architectures.ARCHITECTURES`.
        """
        return (self.words,)

    def memory_name(self, role: str) -> str:
        """What its memory of a role is called, and its file's stem: ``"weights"`` (codes or plain
        ones), ``"mult"`` or ``"bias"``."""
        return f"{self.name}_{self.weight_memory if role == 'weights' else role}"

    def memory_kind(self, name: str) -> str:
        """Where a memory's words are: as ``code_memory`` or ``params_memory`` have it."""
        return self.code_memory if name == self.memory_name("weights") else self.params_memory

    @property
    def memories(self) -> dict[str, tuple[int, int]]:
        """ROMs by name: (width in bits, depth in words)."""
        found = {self.memory_name("weights"): (self.word_bits, self.words)}
        wide = self.requantizers
        if self.multiplies.stored:
            count = self.rows * self.groups // wide
            found[self.memory_name("mult")] = (wide * self.mult_bits, count)
        return found | {self.memory_name("bias"): (wide * self.bias_bits, self.rows // wide)}

    def contents(self, image: CoreImage) -> dict[str, list[int]]:
        """ROM words by name, unsigned: what the memory files hold."""
        mask, wide = (1 << self.bias_bits) - 1, self.requantizers
        found = {self.memory_name("weights"): list(image.codes)}
        if self.multiplies.stored:
            mult = [image.mult[k] for k in self.sum_order] if wide > 1 else image.mult
            found[self.memory_name("mult")] = _packed(mult, wide, self.mult_bits)
        bias = _packed([b & mask for b in image.bias], wide, self.bias_bits)
        return found | {self.memory_name("bias"): bias}

    def image(self, words: Mapping[str, Sequence[int]]) -> CoreImage:
        """Inverse of `contents`."""
        wide, mult = self.requantizers, [1] * (self.rows * self.groups)
        if self.multiplies.stored:
            found = _parted(words[self.memory_name("mult")], wide, self.mult_bits)
            if wide == 1:
                mult = found
            else:
                for k, value in zip(self.sum_order, found, strict=True):
                    mult[k] = value
        half = 1 << (self.bias_bits - 1)
        bias = _parted(words[self.memory_name("bias")], wide, self.bias_bits)
        codes = tuple(words[self.memory_name("weights")])
        return CoreImage(codes, tuple(mult), tuple((b ^ half) - half for b in bias))

    @property
    def requantizers(self) -> int:
        """W: rows whose results are made at once, with W multipliers and biases in a word, the
        first row's lowest."""
        return 1

    @property
    def sum_order(self) -> tuple[int, ...]:
        """Numbers of the sums, groups fastest, in the order in which they are multiplied: W rows'
        of a group at once."""
        wide = self.requantizers
        return tuple(
            (row + j) * self.groups + group
            for row in range(0, self.rows, wide)
            for group in range(self.groups)
            for j in range(wide)
        )

    @property
    def weight_bits(self) -> int:
        """Stored bits of all words of weights."""
        return self.words * self.word_bits

    @property
    def parameter_bits(self) -> int:
        """Stored bits of multipliers and biases."""
        mult = 0 if not self.multiplies.stored else self.groups * self.mult_bits
        return self.rows * (mult + self.bias_bits)

    # -- latencies in cycles, after the cycle in which a word's address is given to the ROM --

    @property
    def tree_levels(self) -> int:
        """Registered levels of the adder tree."""
        return (self.lanes - 1).bit_length()

    @property
    def acc_chunks(self) -> int:
        """Carry chunks of the accumulator."""
        return -(-self.acc_bits // self.carry_chunk) if self.carry_chunk else 1

    @property
    def bias_chunks(self) -> int:
        """Carry chunks of the bias adder."""
        return -(-self.sum_bits // self.carry_chunk) if self.carry_chunk else 1

    @property
    def params_latency(self) -> int:
        """Cycles from the address to the data of the ROMs of multipliers and biases."""
        return 3 if self.params_memory == "block" else 1

    @property
    def multiplies(self) -> Multiplier:
        """How it multiplies: what ``multiplier`` names."""
        return multiplier_named(self.multiplier)

    @property
    def wires_multipliers(self) -> bool:
        """Whether each row has a multiplier of its own, which may be adders."""
        return False

    @property
    def wire_levels(self) -> int:
        """Adders behind one another in such multipliers."""
        return 0

    @property
    def multiplier_parts(self) -> int:
        """DSP blocks of the requantizer's multiplier: a wide accumulator is split."""
        return self.multiplies.parts(self.acc_bits)

    @property
    def multiplier_delay(self) -> int:
        """Cycles from operands to product."""
        return multiplier_delay(self.multiplies, self)

    @property
    def credits(self) -> int:
        """No word is read while so many of the FIFO's places are taken or promised.

        Rows whose end the credit counter has not seen need places as well: it sees them when
        they have left the code ROM, two registers later.
        """
        return self.fifo_depth - self.code_latency - 2

    @property
    def flight(self) -> int:
        """Cycles from a row's promise of a result to the end of the promise, nothing waiting."""
        return self.output_delay - self.code_latency + 2

    @property
    @abstractmethod
    def sum_stage(self) -> int:
        """When a word's tree sum is there."""

    @property
    def row_stage(self) -> int:
        """When the sum of a group, all of its bits, is at the multiplier's operand."""
        return self.sum_stage + 1 + self.acc_chunks

    @property
    def product_stage(self) -> int:
        """When a row's sum of products is at the bias adder."""
        return self.row_stage + self.multiplier_delay + int(self.groups > 1)

    @property
    def output_delay(self) -> int:
        """When a row's result, saturated, is offered at ``o`` if nothing is before it."""
        return self.product_stage + self.bias_chunks + 1 + self.fifo_delay

    @property
    def fifo_delay(self) -> int:
        """Cycles from a result's write into the FIFO until it is offered."""
        return 2

    # -- golden model -----------------------------------------------------------------------

    @abstractmethod
    def compute(self, image: CoreImage, x: npt.ArrayLike) -> IntArray:
        """Exact model from the memory contents: (frames, n) -> (frames, rows)."""

    @abstractmethod
    def decode(self, image: CoreImage) -> IntArray:
        """The weights (rows, n) of the image's words; raises InputError on broken ones."""

    def check_words(self, image: CoreImage) -> None:
        """Raises InputError unless the image has as many words as the core, each as wide."""
        if len(image.codes) != self.words:
            raise InputError(f"Core {self.name!r} has {len(image.codes)} words, not {self.words}")
        if any(word < 0 or word >> self.word_bits for word in image.codes):
            raise InputError(f"Core {self.name!r}: words must have {self.word_bits} bits")

    @abstractmethod
    def row_slots(self, image: CoreImage) -> tuple[int, ...]:
        """Words of every row, its groups together."""

    def multipliers(self, image: CoreImage) -> IntArray:
        """(rows, groups); ones where the core has none."""
        if not self.multiplies.stored:
            return np.ones((self.rows, 1), dtype=np.int64)
        return np.array(image.mult, dtype=np.int64).reshape(self.rows, self.groups)


multiplier_delay: ValueFace[[CoreBase], int] = MULTIPLIERS.face("delay")
"""Cycles from the operands to the product of a row."""


@multiplier_delay.of("none")
def _no_delay(way: Multiplier, spec: CoreBase) -> int:
    return 0


@multiplier_delay.of("serial")
def _serial_delay(way: Multiplier, spec: CoreBase) -> int:
    if spec.multiplier_interval == 1:  # a pipeline of adders
        return 1 + (spec.mult_bits - 1).bit_length()
    units = -(-(spec.mult_bits + 1) // spec.multiplier_interval)
    return spec.mult_bits + 1 + int(units > 1)


@multiplier_delay.of("wires")
def _wire_delay(way: Multiplier, spec: CoreBase) -> int:
    return spec.wire_levels


@multiplier_delay.of("mult18", "mac16")
def _block_delay(way: Multiplier, spec: CoreBase) -> int:
    parts = way.parts(spec.acc_bits)
    return 3 if parts == 1 else 2 + parts


CORES: Registry[CoreBase] = Registry("core")
"""Every kind of core. Its faces: ``timing`` (`pvq_hw.engine.timing`), ``making`` from a layer
(`pvq_hw.engine.kinds`), ``memories``, ``cost`` (`pvq_hw.plan.resources`), ``parts``, ``counts``,
``cycles``, ``energy`` and ``reason`` (`pvq_hw.plan.layer`), ``choices``
(`pvq_hw.plan.candidates`), ``circuit`` (`gateware.accelerator.circuits`); `sim.reference` has
another by the same names."""

_RANGES = (
    ("n", 1, 1 << 20),
    ("rows", 1, 1 << 20),
    ("groups", 1, 1 << 16),
    ("frames", 1, 16),
    ("row_windows", 0, 1 << 20),
    ("flush_cycles", 0, 1 << 20),
    ("in_width", 1, 1 << 12),
    ("out_width", 1, 1 << 12),
    ("acc_bits", 2, 48),
    ("mult_bits", 1, 32),
    ("bias_bits", 1, 62),
    ("sum_bits", 2, 63),
    ("shift", 1, 62),
    ("multiplier_interval", 1, 32),
    ("code_latency", 1, 6),
    ("bank_latency", 1, 3),
    ("carry_chunk", 0, 63),
    ("fifo_depth", 16, 256),
)


def _packed(values: Sequence[int], wide: int, bits: int) -> list[int]:
    """Words of so many values, the first lowest."""
    words = [values[k : k + wide] for k in range(0, len(values), wide)]
    return [sum(v << (j * bits) for j, v in enumerate(word)) for word in words]


def _parted(words: Sequence[int], wide: int, bits: int) -> list[int]:
    """Inverse of `_packed`."""
    mask = (1 << bits) - 1
    return [word >> (j * bits) & mask for word in words for j in range(wide)]


def core_fields(layer: Dense, x: TensorSpec, family: str, name: str | None) -> dict[str, Any]:
    """Fields of a core that follow from its layer and the family alone, whatever its kind.

    Raises InputError where the layer does not fit to its input.
    """
    layer.verify(x)
    device = find_family(family)
    rows, n = layer.y.shape
    return {
        "name": name or core_stem(layer.name),
        "n": n,
        "rows": rows,
        "groups": layer.groups,
        "x": x.format,
        "out": layer.output.format,
        "shift": layer.shift,
        "carry_chunk": device.carry_chunk,
        "params_memory": "logic" if rows * layer.groups <= device.logic_rows else "block",
        "fifo_memory": "logic" if device.lutram else "block",
    }


def core_multiplier(layer: Dense, family: str) -> dict[str, Any]:
    """Width and kind of a core's multipliers, if its sums are the layer's."""
    bits = bits_for(0, int(layer.mult.max(initial=1)))
    own = "none" if is_threshold(layer) else multiplier_for(find_family(family).multiplier, bits)
    return {"mult_bits": bits, "multiplier": own}


def core_image(codes: Iterable[int], mult: IntArray, bias: IntArray) -> CoreImage:
    """Memory contents of arrays."""
    parts = (codes, mult.ravel(), bias)
    return CoreImage(*(tuple(int(value) for value in part) for part in parts))


def is_threshold(layer: Weighted) -> bool:
    """Whether a layer's rows need no multiplier: their sign is that of the sum and the bias."""
    return layer.output.format.binary and bool((layer.mult == 1).all()) and layer.mult.shape[1] == 1


def core_stem(name: str) -> str:
    """The stem of the files of a core that stands alone."""
    return identifiers([name])[0]
