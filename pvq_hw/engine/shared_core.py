"""Several layers on one set of lanes: specification, program and memory contents of the engine.

The lanes compute one layer after the other. Codes, multipliers and biases of all layers follow one
another in one memory each; activations stay in the lanes' banks, which have a region for the
network's input and two that the layers' results take in turns. What differs from layer to layer is
a word of the program.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.documents import Document
from pvq_hw.engine.code_stream import FLASH_BITS, stream_cycles
from pvq_hw.engine.core import (
    CORES,
    CoreBase,
    CoreImage,
    InnerStream,
    IntArray,
)
from pvq_hw.engine.pulse_code import CODES, Code
from pvq_hw.engine.pulse_core import (
    CoreSpec,
    make_core,
    result_places,
    serial_interval,
    sums_of_pulses,
)
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.target.block_ram import select_registers
from pvq_hw.target.families import family as find_family
from pvq_hw.target.multipliers import multiplier_for, multiplier_named

__all__ = [
    "EIGHT_BITS",
    "Finish",
    "SharedLayer",
    "SharedSpec",
    "make_shared_core",
    "make_spec",
    "refuse_shared",
    "share",
    "share_layers",
]

Spec = TypeVar("Spec", bound="SharedSpec")

EIGHT_BITS = "it has 8-bit weights; a small N/K of its own, such as 0.5, takes fewer cycles there"
_LOGIC_WORDS = 64  # of a program that becomes LUTs: half of its bits are the same in all words
_WIDEST = 15  # bits of an activation that is read, so that one with a sign more has 16


@dataclass(frozen=True)
class SharedLayer(Document):
    """One layer of a shared engine.

    Parameters
    ----------
    name : str
        The layer's in the network.
    n, rows : int
        Columns and rows.
    x, out : IntFormat
    words : int
        Slot words.
    shift : int
        Bits by which its sums are shifted. Multipliers and biases are scaled so that the layers
        have few different ones.
    pulses : int
        ``sum |y|``.
    codes : int
        Lane codes that place a pulse.
    weights : int
        How many the network's layer has; 0 for a pooling, which is computed as a layer of ones and
        has no pulses that count.
    """

    name: str
    n: int
    rows: int
    x: IntFormat
    out: IntFormat
    words: int
    shift: int
    pulses: int
    codes: int
    weights: int

    @property
    def sum_out(self) -> IntFormat:
        """Format of what its sums become, before a table where it has one."""
        return self.out

    @property
    def results(self) -> int:
        """Activations that it gives in a frame."""
        return self.rows

    @property
    def times(self) -> int:
        """Times that its words are read in a frame."""
        return 1

    @property
    def copies(self) -> bool:
        """Whether it is no layer of the network's."""
        return False

    @property
    def order(self) -> IntArray | None:
        """The places of its activations in the order in which they are given; None where that is
        their own."""
        return None


@dataclass(frozen=True)
class Finish:
    """How sums become activations: ``out.clamp(sum >> shift)``; see
    `gateware.arith.requantizer.Saturate`."""

    out: IntFormat
    shift: int
    sum_bits: int


@CORES.kind
@dataclass(frozen=True, kw_only=True)
class SharedSpec(CoreBase):
    """Numbers of an engine that computes several layers; what is not said here: `CoreBase`.

    ``n`` and ``x`` are the first layer's, ``rows``, ``out`` and ``shift`` the last one's; widths
    hold all layers'.

    Parameters
    ----------
    code : Code
        The code of all layers; its ``lanes`` is P.
    layers : tuple of SharedLayer
        In order: each reads what the one before gave.
    code_buffer : int
        With ``code_memory == "flash"``, code words that are kept, a power of two: all words come
        from the SPI flash for every frame. Else 0.
    flash_bits : int
        Bits that the flash gives a clock of its own then: 1, 2 or 4. Else 1.
    """

    code_memories: ClassVar[tuple[str, ...]] = ("block", "spram", "flash")
    kind: ClassVar[str] = "shared"
    engine: ClassVar[str] = "shared"
    weight_memory: ClassVar[str] = "codes"
    encoding: ClassVar[str] = "pvq"

    code: Code
    layers: tuple[SharedLayer, ...]
    code_buffer: int = 0
    flash_bits: int = 1

    def __post_init__(self) -> None:
        where = f"Core {self.name!r}"
        if not self.layers or len(self.layers) > 1 << 10:
            raise InputError(f"{where} must have 1 to 1024 layers, not {len(self.layers)}")
        last = self.layers[-1]
        if (self.rows, self.out, self.shift) != (last.rows, last.out, last.shift):
            raise InputError(f"{where} must give what its last layer gives")
        self._check_chain(where)
        for layer in self.layers:
            for key, most in (
                ("n", 20),
                ("rows", 20),
                ("words", 24),
                ("pulses", 40),
                ("weights", 40),
            ):
                value = getattr(layer, key)
                if not int(most < 40) <= value < 1 << most:
                    raise InputError(f"{where}: {key} of layer {layer.name!r} must not be {value}")
            if not 1 <= layer.shift <= 62:
                raise InputError(f"{where}: layer {layer.name!r} must have a shift of 1 to 62")
            if layer.x.bits > _WIDEST or layer.x.binary or layer.out.binary:
                raise InputError(f"{where}: layer {layer.name!r} must have other activations")
        if (self.groups, self.frames, self.row_windows, self.flush_cycles) != (1, 1, 0, 0):
            raise InputError(f"{where} must take one frame at a time, of one gain a row")
        if not self.multiplies.stored or self.bank_memory != "block":
            raise InputError(f"{where} must have a multiplier, and its banks in block RAM")
        self._check_buffer(where)
        super().__post_init__()

    def _check_buffer(self, where: str) -> None:
        """Raises InputError unless there is a buffer where codes come from the flash."""
        depth, streamed = self.code_buffer, self.code_memory == "flash"
        if not streamed and depth:
            raise InputError(f"{where}: code_buffer must be 0 unless codes come from the flash")
        if streamed and not (2 <= depth <= 1 << 16 and depth & (depth - 1) == 0):
            raise InputError(f"{where}: code_buffer must be a power of two from 2 on, not {depth}")
        allowed = FLASH_BITS if streamed else (1,)
        if self.flash_bits not in allowed:
            rule = " or ".join(", ".join(map(str, allowed)).rsplit(", ", 1))
            raise InputError(f"{where}: flash_bits must be {rule}, not {self.flash_bits}")
        if streamed and depth < self.least_buffer:
            raise InputError(
                f"{where}: code_buffer must be {self.least_buffer} words or more, not {depth}"
            )

    def _check_chain(self, where: str) -> None:
        """Raises InputError unless each layer takes what the one before gives."""
        if (self.n, self.x) != (self.layers[0].n, self.layers[0].x):
            raise InputError(f"{where} must take what its first layer takes")
        for before, layer in pairwise(self.layers):
            if (before.rows, before.out) != (layer.n, layer.x):
                raise InputError(f"{where}: layer {layer.name!r} must take what is before it")

    # -- shapes -----------------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        """P."""
        return self.code.lanes

    @property
    def words(self) -> int:
        """Slot words of a frame, those of all layers."""
        return sum(layer.words for layer in self.layers)

    @property
    def all_rows(self) -> int:
        """Rows of all layers."""
        return sum(layer.rows for layer in self.layers)

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return sum(layer.weights for layer in self.layers)

    @property
    def shared_by(self) -> tuple[str, ...]:
        """The network's layers with weights, in order."""
        return tuple(layer.name for layer in self.layers if layer.weights)

    @property
    def inner_streams(self) -> tuple[InnerStream, ...]:
        """What the layers of the network before the last one give."""
        return tuple(
            InnerStream(f"layer{number}", layer.name, layer.results, layer.out, layer.order)
            for number, layer in enumerate(self.layers[:-1])
            if not layer.copies
        )

    @property
    def choices(self) -> dict[str, Any]:
        """What a planner chooses of it besides lanes and gap bits, as options of its maker."""
        return {"code_memory": self.code_memory, **self.buffer_choice}

    @property
    def buffer_choice(self) -> dict[str, Any]:
        """The part of `choices` that says how many words are kept of codes from the flash, and how
        many bits a clock it gives."""
        chosen = {"code_buffer": self.code_buffer, "flash_bits": self.flash_bits}
        return chosen if self.code_memory == "flash" else {}

    @property
    def least_buffer(self) -> int:
        """Words that must be kept of codes from the flash: of layers that read theirs once, any
        number."""
        return 2

    @property
    def stream_memory(self) -> str:
        """Name of the memory whose words come from the flash, where codes do."""
        return self.memory_name("weights")

    @property
    def stream_runs(self) -> tuple[tuple[int, int], ...]:
        """The words that come from the flash, in order: so many of rows' multipliers and biases,
        then so many of codes, and so on."""
        return ((0, self.words),)

    @property
    def stream_words(self) -> int:
        """Words that come from the flash for a frame, where codes do."""
        return sum(map(sum, self.stream_runs))

    @property
    def params_places(self) -> int:
        """Words from the flash whose multipliers and biases are kept; 0 where all are stored."""
        return 0

    @property
    def code_address_bits(self) -> int:
        """Bits of an address of the code memory."""
        depth = self.code_buffer if self.code_memory == "flash" else self.words
        return max(1, (depth - 1).bit_length())

    @property
    def freed_bits(self) -> int:
        """Bits of the number of words whose places are given back at once."""
        return 1

    @property
    def fits_spram(self) -> bool:
        """Whether it has maps, each of which fits into an SPRAM."""
        return False

    @property
    def joined(self) -> bool:
        """Whether products of several rows are added."""
        return False

    @property
    def chosen(self) -> bool:
        """Whether the largest of several rows' sums is taken."""
        return False

    @property
    def mixed(self) -> bool:
        """Whether some layers read signed activations and others unsigned ones."""
        return len({layer.x.signed for layer in self.layers}) > 1

    @property
    def bank_bits(self) -> int:
        """Bits of an activation in a bank."""
        return max(layer.x.bits for layer in self.layers)

    @property
    def lane_x(self) -> IntFormat:
        """What a lane's leaf reads: of mixed layers with a sign more."""
        if self.mixed:
            return IntFormat(self.bank_bits + 1, True)
        return IntFormat(self.bank_bits, self.layers[0].x.signed)

    @property
    def leaf_bits(self) -> int:
        """Bits of a leaf, signed."""
        return self.lane_x.bits + (not self.lane_x.signed) + self.code.max_shift

    @property
    def regions(self) -> int:
        """Regions of a bank: the input's, and two for the results between layers."""
        return min(3, len(self.layers))

    @property
    def region_bits(self) -> int:
        """Bits of a region's number, the upper ones of a bank's address."""
        return (self.regions - 1).bit_length()

    def region(self, number: int) -> int:
        """The region that layer ``number`` reads."""
        return 0 if number == 0 else 2 - number % 2

    @property
    def address_bits(self) -> int:
        """Bits of an address within a region."""
        most = max(self.code.bank_depth(layer.n) for layer in self.layers)
        return max(1, (most - 1).bit_length())

    @property
    def bank_words(self) -> int:
        """Depth of a bank's memory."""
        ends = [
            (self.region(number) << self.address_bits) + self.code.bank_depth(layer.n)
            for number, layer in enumerate(self.layers)
        ]
        return max(ends)

    @property
    def word_bits(self) -> int:
        """Width of a slot word."""
        return self.code.word_bits

    # -- program ----------------------------------------------------------------------------

    @property
    def finishes(self) -> tuple[Finish, ...]:
        """The different ways in which sums become activations, in the order of the layers."""
        found = [Finish(layer.sum_out, layer.shift, self.sum_bits) for layer in self.layers]
        return tuple(dict.fromkeys(found))

    @property
    def program_fields(self) -> dict[str, int]:
        """Fields of a word of the program and their bits, the least significant first.

        ``before`` is the address of the last slot word but one, ``single`` says that there is one
        word only, ``last`` that results leave the engine; ``source`` and ``target`` are regions,
        ``signed`` is the activations' sign, ``finish`` the number of one of `finishes`.
        """
        return {
            "before": max(1, (self.words - 1).bit_length()),
            "single": 1,
            "last": 1,
            "source": self.region_bits,
            "target": self.region_bits,
            "signed": 1,
            "finish": (len(self.finishes) - 1).bit_length(),
        }

    @cached_property
    def program_bits(self) -> int:
        """Width of a word of the program."""
        return sum(self.program_fields.values())

    @property
    def program_memory(self) -> str:
        """``"logic"`` or ``"block"``."""
        return "logic" if len(self.layers) <= _LOGIC_WORDS else "block"

    def steps(self) -> list[dict[str, int]]:
        """The program: the fields of every layer's word."""
        found, start = [], 0
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            found.append(
                {
                    "before": max(0, start + layer.words - 2),
                    "single": int(layer.words == 1),
                    "last": int(last),
                    "source": self.region(number),
                    "target": 0 if last else self.region(number + 1),
                    "signed": int(layer.x.signed),
                    "finish": self.finishes.index(
                        Finish(layer.sum_out, layer.shift, self.sum_bits)
                    ),
                }
            )
            start += layer.words
        return found

    def program(self) -> list[int]:
        """The words of the program, one a layer."""
        words = []
        for step in self.steps():
            word = at = 0
            for key, bits in self.program_fields.items():
                word |= step[key] << at
                at += bits
            words.append(word)
        return words

    @property
    def memories(self) -> dict[str, tuple[int, int]]:
        """ROMs by name: (width in bits, depth in words)."""
        rows = self.all_rows
        return {
            self.memory_name("weights"): (self.word_bits, self.words),
            self.memory_name("mult"): (self.mult_bits, rows),
            self.memory_name("bias"): (self.bias_bits, rows),
            self.memory_name("program"): (self.program_bits, len(self.layers)),
        }

    def memory_kind(self, name: str) -> str:
        """Where a memory's words are."""
        program = name == self.memory_name("program")
        return self.program_memory if program else super().memory_kind(name)

    def contents(self, image: CoreImage) -> dict[str, list[int]]:
        """ROM words by name, unsigned: what the memory files hold."""
        return super().contents(image) | {self.memory_name("program"): self.program()}

    def layer_at(self, memory: str, word: int) -> str:
        """The name of the layer that a word of a memory belongs to."""
        sizes = {
            self.memory_name("weights"): [layer.words for layer in self.layers],
            self.memory_name("program"): [1] * len(self.layers),
        }
        ends = accumulate(sizes.get(memory, [layer.rows for layer in self.layers]))
        pairs = zip(self.layers, ends, strict=True)
        return next(layer.name for layer, end in pairs if word < end)

    @property
    def parameter_bits(self) -> int:
        """Stored bits of multipliers and biases."""
        return self.all_rows * (self.mult_bits + self.bias_bits)

    # -- latencies in cycles, after the cycle in which a word's address is given to the ROM --

    @property
    def sum_stage(self) -> int:
        """When a word's tree sum is there."""
        shifted = int(self.code.shift_bits > 0)
        return self.code_latency + 2 + self.bank_latency + shifted + self.tree_levels

    @property
    def result_stage(self) -> int:
        """When a row's result, saturated, is there after its last word."""
        return self.product_stage + self.bias_chunks + 1

    @property
    def last_result_stage(self) -> int:
        """When all results of a row are there."""
        return self.result_stage

    @property
    def turn_cycles(self) -> int:
        """Cycles from a layer's last word to the next one's first: its last result is written,
        then the next layer's step of the program is read, then compared with."""
        return self.result_stage + 3

    @property
    def frame_cycles(self) -> int:
        """Cycles of a frame while nothing waits; with codes from the flash, at least so many."""
        return self.paced(sum(self.step_cycles()))

    def paced(self, cycles: int) -> int:
        """Cycles of a frame, or those in which the flash gives its codes, if these are more."""
        return max(cycles, stream_cycles(self) if self.code_memory == "flash" else 0)

    def step_cycles(self) -> list[int]:
        """Cycles of every layer."""
        return [layer.words + self.turn_cycles - 1 for layer in self.layers]

    # -- golden model -----------------------------------------------------------------------

    def parts(self, image: CoreImage) -> list[CoreImage]:
        """The contents of the memories, layer by layer."""
        if len(image.codes) != self.words or len(image.bias) != self.all_rows:
            raise InputError(
                f"Core {self.name!r} has {len(image.codes)} words and {len(image.bias)} rows, not "
                f"{self.words} and {self.all_rows}"
            )
        words = [0, *accumulate(layer.words for layer in self.layers)]
        rows = [0, *accumulate(layer.rows for layer in self.layers)]
        return [
            CoreImage(image.codes[a:b], image.mult[c:d], image.bias[c:d])
            for (a, b), (c, d) in zip(pairwise(words), pairwise(rows), strict=True)
        ]

    def trace(self, image: CoreImage, x: npt.ArrayLike) -> dict[str, IntArray]:
        """What every layer gives, (frames, rows) by its name, from the memory contents alone."""
        value = np.asarray(x, dtype=np.int64).reshape(-1, self.n)
        found = {}
        for layer, part in zip(self.layers, self.parts(image), strict=True):
            y = self.code.decode(part.codes, (layer.rows, layer.n))
            negatives, _ = sums_of_pulses(self.code, part.codes)
            total = (value @ y.T - negatives) * np.array(part.mult) + np.array(part.bias)
            value = np.asarray(layer.out.clamp(total >> layer.shift), dtype=np.int64)
            found[layer.name] = value
        return found

    def compute(self, image: CoreImage, x: npt.ArrayLike) -> IntArray:
        """Exact model from the memory contents: (frames, n) -> (frames, rows)."""
        return self.trace(image, x)[self.layers[-1].name]

    def decode(self, image: CoreImage) -> IntArray:
        """The weights of all layers one after the other, (1, weights); raises InputError on words
        nothing encodes to."""
        layers = zip(self.layers, self.parts(image), strict=True)
        found = [self.code.decode(part.codes, (x.rows, x.n)).ravel() for x, part in layers]
        return np.concatenate(found)[None, :]

    def row_slots(self, image: CoreImage) -> tuple[int, ...]:
        """Words of every row of every layer."""
        last = self.code.word_bits - 1
        ends = [-1, *(i for i, w in enumerate(image.codes) if w >> last)]
        return tuple(b - a for a, b in pairwise(ends))


def refuse_shared(layer: object, x: TensorSpec, output: TensorSpec) -> str:
    """Why a layer of a network can't be on a shared engine, in words; empty where it can.

    Parameters
    ----------
    layer : Layer
        Of the network.
    x, output : TensorSpec
        What it reads and gives.
    """
    if not isinstance(layer, Dense):
        kind = str(getattr(layer, "kind", "") or type(layer).__name__).lower()
        return f"it is of kind {kind}: only dense layers share an engine"
    if layer.encoding != "pvq":
        return EIGHT_BITS
    if layer.groups > 1:
        return "it has several gains a row"
    if x.format.binary or output.format.binary:
        return "its activations are signs"
    if x.format.bits > _WIDEST:
        return f"it reads activations of {x.format.bits} bits"
    return ""


def make_shared_core(
    layers: Sequence[tuple[Dense, TensorSpec]],
    lanes: int,
    *,
    gap_bits: int | None = None,
    shift_bits: int = 0,
    code: str = "pulse",
    family: str = "ecp5",
    name: str = "engine",
    **options: Any,
) -> tuple[SharedSpec, CoreImage]:
    """Specification and contents of an engine of several layers.

    Parameters
    ----------
    layers : sequence of (Dense, TensorSpec)
        Each with its input, in order; each reads what the one before gives.
    lanes : int
        P, at least 1.
    gap_bits : int, optional
        Those that suit the layer of most pulses unless given.
    shift_bits, code, family, name, **options
        As `pvq_hw.engine.pulse_core.make_core` takes them.

    Raises
    ------
    InputError
        A layer can't be on a shared engine.
    """
    return share_layers(
        layers, lanes, make_spec, gap_bits=gap_bits, shift_bits=shift_bits, code=code,
        family=family, name=name, **options,
    )  # fmt: skip


def make_spec(layers: Sequence[SharedLayer], **fields: Any) -> SharedSpec:
    return SharedSpec(**(fields | {"layers": tuple(layers)}))


def share_layers(
    layers: Sequence[tuple[Dense, TensorSpec]],
    lanes: int,
    make: Callable[..., Spec],
    *,
    adjust: Callable[[int, CoreSpec, CoreImage], tuple[CoreSpec, CoreImage]] | None = None,
    gap_bits: int | None = None,
    shift_bits: int = 0,
    code: str = "pulse",
    family: str = "ecp5",
    name: str = "engine",
    min_slots: int = 1,
    together: Sequence[int] | None = None,
    **options: Any,
) -> tuple[Spec, CoreImage]:
    """`make_shared_core`, with what makes the specification of layers and fields, and may adjust
    every layer's words. What is multiplied has at least ``min_slots`` of them: a row, or as many of
    a layer's rows as are ``together``."""
    if not layers:
        raise InputError("A shared engine must have at least one layer")
    for layer, x in layers:
        why = refuse_shared(layer, x, layer.output)
        if why:
            raise InputError(f"Layer {layer.name!r} can't be on a shared engine: {why}")
    device, kind = find_family(family), CODES.named(code, "The shared engine's code")
    if gap_bits is None:
        y = max((layer.y for layer, _ in layers), key=lambda y: int(np.abs(y).sum()))
        gap_bits = kind.fitting(y, lanes, 1, shift_bits).gap_bits
    options.setdefault("multiplier", _multiplier(layers, device.multiplier))
    asked: dict[str, Any] = {
        "gap_bits": gap_bits,
        "shift_bits": shift_bits,
        "code": code,
        "family": family,
        "multiplier": options["multiplier"],
    }
    rows = together or [1] * len(layers)
    if multiplier_named(options["multiplier"]).paced:
        widest = max(int(layer.mult.max()).bit_length() for layer, _ in layers)
        slots = [
            s for (layer, _), count in zip(layers, rows, strict=True)
            for s in _slots(kind(lanes, gap_bits, shift_bits), layer, count)
        ]  # fmt: skip
        options.setdefault("multiplier_interval", serial_interval(slots, widest))
        min_slots = max(min_slots, options["multiplier_interval"])
    parts = [
        make_core(*_padded(layer, x, lanes), lanes, **(asked | _least(options, min_slots, count)))
        for (layer, x), count in zip(layers, rows, strict=True)
    ]
    if adjust is not None:
        parts = [adjust(number, spec, image) for number, (spec, image) in enumerate(parts)]
    return _merged(layers, parts, make, family, name, options)


def _slots(code: Code, layer: Dense, together: int) -> list[int]:
    """Words of what is multiplied."""
    slots = np.array(code.encode(layer.y).row_slots).reshape(-1, together)
    return [int(count) for count in slots.sum(axis=1)]


def _least(options: dict[str, Any], min_slots: int, together: int) -> dict[str, Any]:
    """Words that a row has at least, where so many together have ``min_slots``."""
    least = -(-min_slots // together)
    serial = multiplier_named(options["multiplier"]).paced
    return {"min_slots": least} | ({"multiplier_interval": least} if serial else {})


def _multiplier(layers: Sequence[tuple[Dense, TensorSpec]], kind: str) -> str:
    return multiplier_for(kind, max(int(layer.mult.max()).bit_length() for layer, _ in layers))


def _padded(layer: Dense, x: TensorSpec, lanes: int) -> tuple[Dense, TensorSpec]:
    """A layer with columns for all lanes: those beyond its own have no pulses."""
    missing = lanes - layer.y.shape[1]
    if missing <= 0:
        return layer, x
    wide = replace(layer, y=np.pad(layer.y, ((0, 0), (0, missing))))
    return wide, replace(x, shape=(lanes,))


def _shifts(parts: Sequence[CoreSpec], limit: int) -> list[int]:
    """A shift for every layer, no less than its own, of as few different ones as multipliers of
    ``limit`` bits allow."""
    found = [0] * len(parts)
    left = sorted(range(len(parts)), key=lambda k: parts[k].shift + limit - parts[k].mult_bits)
    while left:
        most = parts[left[0]].shift + limit - parts[left[0]].mult_bits
        together = [k for k in left if parts[k].shift <= most]
        for k in together:
            found[k] = max(parts[j].shift for j in together)
        left = [k for k in left if k not in together]
    return found


def _merged(
    layers: Sequence[tuple[Dense, TensorSpec]],
    parts: Sequence[tuple[CoreSpec, CoreImage]],
    make: Callable[..., Spec],
    family: str,
    name: str,
    options: dict[str, Any],
) -> tuple[Spec, CoreImage]:
    """One specification that holds all layers' widths, and the contents one after the other."""
    specs = [spec for spec, _ in parts]
    widest = max(spec.mult_bits for spec in specs)
    way = multiplier_named(options["multiplier"])
    shifts = _shifts(specs, way.mult_bits if way.blocks else widest)
    more = [shift - spec.shift for shift, spec in zip(shifts, specs, strict=True)]
    image = CoreImage(
        codes=tuple(word for _, part in parts for word in part.codes),
        mult=tuple(m << d for (_, part), d in zip(parts, more, strict=True) for m in part.mult),
        bias=tuple(b << d for (_, part), d in zip(parts, more, strict=True) for b in part.bias),
    )
    code = specs[0].code
    described = [
        SharedLayer(
            layer.name, layer.y.shape[1], spec.rows, spec.x, spec.out, spec.words, shift,
            int(np.abs(layer.y).sum()), int(code.placed(part.codes).sum()), layer.y.size,
        )
        for (layer, _), (spec, part), shift in zip(layers, parts, shifts, strict=True)
    ]  # fmt: skip
    spec = share(described, specs, family, name, make=make, **options)
    if "fifo_depth" not in options:
        last = spec.row_slots(image)[-spec.rows :]
        spec = replace(spec, fifo_depth=result_places(spec, last))
    return spec, image


def share(
    layers: Sequence[SharedLayer],
    cores: Sequence[CoreSpec],
    family: str,
    name: str = "engine",
    *,
    make: Callable[..., Spec],
    **options: Any,
) -> Spec:
    """The engine of layers each of which alone would be one of ``cores``, all of one code.

    The layers' shifts may be larger than the cores': widths grow with them.
    """
    device, code = find_family(family), cores[0].code
    words = sum(layer.words for layer in layers)
    rows = sum(layer.rows for layer in layers)
    latency = device.code_latency
    if latency >= 3:
        latency += select_registers(code.word_bits, words, device.blocks)

    def widest(key: str) -> int:
        pairs = zip(layers, cores, strict=True)
        return max(int(getattr(core, key)) + layer.shift - core.shift for layer, core in pairs)

    fields: dict[str, Any] = dict(  # noqa: C408
        name=name,
        n=layers[0].n,
        rows=layers[-1].rows,
        x=layers[0].x,
        out=layers[-1].out,
        code=code,
        acc_bits=max(core.acc_bits for core in cores),
        mult_bits=widest("mult_bits"),
        bias_bits=widest("bias_bits"),
        sum_bits=widest("sum_bits"),
        shift=layers[-1].shift,
        multiplier=cores[0].multiplier,
        multiplier_interval=min(core.multiplier_interval for core in cores),
        code_latency=latency,
        bank_latency=device.bank_latency,
        carry_chunk=device.carry_chunk,
        params_memory="logic" if rows <= device.logic_rows else "block",
        fifo_memory="logic" if device.lutram else "block",
    )
    return make(layers, **(fields | options))
