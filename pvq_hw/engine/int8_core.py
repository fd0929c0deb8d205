"""Specification and memory contents of a core with plain 8-bit weights.

P weights in a ROM word and P activations in a RAM word meet in P multipliers, one word a cycle.
Streams, control and requantizer are those of a core of pulses (`pvq_hw.engine.core`), so both kinds
stand in one network, and the engine that multiplies is measured beside the one that does not.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.engine.core import (
    CORES,
    CoreBase,
    CoreImage,
    IntArray,
    core_fields,
    core_image,
    is_threshold,
)
from pvq_hw.engine.reserve import require_placed, reserved_widths, with_room
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.target.architectures import architecture
from pvq_hw.target.families import family as find_family
from pvq_hw.target.multipliers import MULTIPLIERS, multiplier_for, multiplier_named

__all__ = ["WEIGHT_BITS", "Int8Spec", "make_int8_core", "weight_segments"]

WEIGHT_BITS = 8


@CORES.kind
@dataclass(frozen=True, kw_only=True)
class Int8Spec(CoreBase):
    """Numbers of a core with 8-bit weights; validated when made. What is not said here:
    `CoreBase`.

    A row takes ``ceil(n / lanes)`` words, whatever its weights. Activations are stored as
    unsigned ones: signed ones plus ``2**(bits - 1)``, which inverts their top bit, binary ones as
    0 for -1 and 1 for +1. A constant of the row makes that good, and for binary ones, whose
    value is ``2 * u - 1``, the multiplier is twice the layer's.

    Parameters
    ----------
    lanes : int
    products : str
        Lane multipliers: ``"mult18"`` (one MULT18X18D a lane), ``"mac16"`` (an SB_MAC16 for two
        lanes) or ``"logic"`` (LUTs).
    weight_latency : int
        Cycles from address to weights, at least one more than to activations: a deep ROM
        is several, and the choice between them wants registers of its own.
    """

    kind: ClassVar[str] = "int8"
    weight_memory: ClassVar[str] = "weights"
    encoding: ClassVar[str] = "int8"

    lanes: int
    products: str = "mult18"
    code_latency: int = 1  # control sees a word as its activations' address is given
    weight_latency: int = 6

    def __post_init__(self) -> None:
        self.check_ranges(_RANGES)
        super().__post_init__()
        where = f"Core {self.name!r}"
        if self.lanes > self.n:
            raise InputError(f"{where}: lanes must be 1 to {self.n}, not {self.lanes}")
        lanes = {name: way.lane_bits for name, way in MULTIPLIERS.kinds().items() if way.lane_bits}
        if self.products not in lanes:
            raise InputError(
                f"{where}: products must be one of {tuple(lanes)}, not {self.products!r}"
            )
        if self.x.bits > lanes[self.products]:
            raise InputError(
                f"{where}: activations must have 1 to {lanes[self.products]} bits, "
                f"not {self.x.bits}"
            )
        if self.multiplier_interval > self.row_words:
            raise InputError(
                f"{where}: multiplier_interval must be at most the {self.row_words} words of a row"
            )
        if self.wait < 0:
            raise InputError(
                f"{where}: weight_latency must be above bank_latency, not {self.weight_latency}"
            )

    # -- shapes --------------------------------------------------------------------------------

    @property
    def row_words(self) -> int:
        """Words of a row."""
        return -(-self.n // self.lanes)

    @property
    def words(self) -> int:
        """Words of a frame, which is cycles per frame."""
        return self.rows * self.row_words

    @property
    def word_bits(self) -> int:
        """Width of a word of weights."""
        return WEIGHT_BITS * self.lanes

    def weight_roms(self, blocks: str) -> tuple[int, ...]:
        """Depths of the ROMs that the words are in, one behind the other: `weight_segments`."""
        return weight_segments(self.words, blocks)

    @property
    def address_bits(self) -> int:
        """Bits of an address within a half of the activation memory."""
        return max(1, (self.row_words - 1).bit_length())

    @property
    def bank_words(self) -> int:
        """Depth of the activation memory, both halves: the second starts at a power of two."""
        return (1 << self.address_bits) + self.row_words

    @property
    def flipped(self) -> int:
        """The bit of an activation that is inverted to make it unsigned, as a mask."""
        return 1 << (self.x.bits - 1) if self.x.signed else 0

    @property
    def product_bits(self) -> int:
        """Bits of a lane's product, signed."""
        return WEIGHT_BITS + self.x.bits

    # -- latencies in cycles, after the cycle in which a word's address is given to the ROM ----

    @property
    def wait(self) -> int:
        """Cycles by which the address of the activations waits for the weights."""
        return self.weight_latency - self.code_latency - self.bank_latency

    @property
    def product_delay(self) -> int:
        """Cycles from operands to a lane's product."""
        return multiplier_named(self.products).lane_delay or 1 + (self.x.bits - 1).bit_length()

    @property
    def sum_stage(self) -> int:
        """When a word's tree sum is there."""
        return self.weight_latency + self.product_delay + self.tree_levels

    # -- golden model --------------------------------------------------------------------------

    def compute(self, image: CoreImage, x: npt.ArrayLike) -> IntArray:
        """Exact model from the memory contents: (frames, n) -> (frames, rows)."""
        array = np.asarray(x, dtype=np.int64).reshape(-1, self.n)
        stored = (array + 1) >> 1 if self.x.binary else array + self.flipped
        acc = stored @ self.decode(image).T
        total = acc * self.multipliers(image)[:, 0] + np.array(image.bias, dtype=np.int64)
        return np.asarray(self.out.clamp(total >> self.shift), dtype=np.int64)

    def decode(self, image: CoreImage) -> IntArray:
        """The weights (rows, n) of the image's words; raises InputError on broken ones."""
        self.check_words(image)
        raw = b"".join(w.to_bytes(self.lanes, "little") for w in image.codes)
        table = np.frombuffer(raw, dtype=np.int8).reshape(self.rows, self.row_words, self.lanes)
        return _from_lanes(table.astype(np.int64), self.n)

    def row_slots(self, image: CoreImage) -> tuple[int, ...]:
        """Words of every row."""
        return (self.row_words,) * self.rows


def weight_segments(words: int, blocks: str) -> tuple[int, ...]:
    """Depths of the ROMs that the weights are cut into, none of which is cut again."""
    step = architecture(blocks).segment_words
    return tuple(min(step, words - start) for start in range(0, words, step))


_RANGES = (
    ("groups", 1, 1),
    ("frames", 1, 1),
    ("in_width", 1, 1),
    ("out_width", 1, 1),
    ("code_latency", 1, 1),
    ("lanes", 1, 1024),
    ("weight_latency", 2, 6),
)


def _to_lanes(weights: IntArray, lanes: int) -> IntArray:
    """(rows, n) -> (rows, words, lanes). A part of a word is at its upper lanes: activations are
    shifted in from above, and what the lower lanes still hold meets weights of 0."""
    rows, n = weights.shape
    rest = n % lanes
    whole = weights[:, : n - rest].reshape(rows, -1, lanes)
    if not rest:
        return whole
    part = np.zeros((rows, 1, lanes), dtype=np.int64)
    part[:, 0, lanes - rest :] = weights[:, n - rest :]
    return np.concatenate((whole, part), axis=1)


def _from_lanes(table: IntArray, n: int) -> IntArray:
    """Inverse of `_to_lanes`; raises InputError where a lane without a column has a weight."""
    rows, _, lanes = table.shape
    rest = n % lanes
    if not rest:
        return table.reshape(rows, n)
    if np.any(table[:, -1, : lanes - rest]):
        raise InputError("Weights must be 0 in lanes without a column")
    whole = table[:, :-1].reshape(rows, n - rest)
    return np.concatenate((whole, table[:, -1, lanes - rest :]), axis=1)


def _words(weights: IntArray, lanes: int) -> tuple[int, ...]:
    table = _to_lanes(weights, lanes).reshape(-1, lanes).astype(np.int8)
    return tuple(int.from_bytes(row.tobytes(), "little") for row in table)


def make_int8_core(
    layer: Dense,
    x: TensorSpec,
    lanes: int,
    *,
    family: str = "ecp5",
    name: str | None = None,
    spare: int | None = None,
    placed: Int8Spec | None = None,
    **options: Any,
) -> tuple[Int8Spec, CoreImage]:
    """Specification and contents of the core of a layer with ``encoding == "int8"``.

    Parameters
    ----------
    layer : Dense
        Weights of -128 to 127, one group.
    x : TensorSpec
        The layer's input.
    lanes : int
        P, 1 to N.
    family : str
        Key of `pvq_hw.target.families.FAMILIES`; sets latencies, carry chunks and multipliers.
    name : str, optional
        Stem of the memory files; the layer's name by default, reduced to letters and digits.
    spare, placed : optional
        See `pvq_hw.engine.pulse_core.make_core`.
    **options
        Fields of `Int8Spec` to set otherwise.
    """
    fields = core_fields(layer, x, family, name)
    rows, n = layer.y.shape
    where = f"Layer {layer.name!r}"
    if layer.encoding != "int8":
        raise InputError(f"{where} must be encoded as int8, not {layer.encoding}")
    if layer.groups != 1:
        raise InputError(f"{where} must have one gain per row, not {layer.groups}")
    if np.any((layer.y < -128) | (layer.y > 127)):
        raise InputError(f"{where} must have weights of -128 to 127")
    if not 1 <= lanes <= n:
        raise InputError(f"{where}: lanes must be 1 to {n}, not {lanes}")
    device = find_family(family)
    form = x.format
    chosen = _choices(device.multiplier, layer, form)
    chosen |= {key: options[key] for key in chosen if key in options}
    mult, bias = _params(layer, form, threshold=not multiplier_named(chosen["multiplier"]).stored)
    mult_bits = bits_for(0, int(mult.max(initial=1)))
    widths = _widths(layer, form, mult, bias, spare or 0) | {"mult_bits": mult_bits}
    if spare is not None:
        widths = reserved_widths(
            widths, multiplier=chosen["multiplier"], groups=1, shift=layer.shift,
            out=layer.output.format,
        )  # fmt: skip
        options = {"updatable": True, "params_memory": "block"} | options
    if multiplier_named(chosen["multiplier"]).paced:
        interval = min(-(-n // lanes), widths["mult_bits"] + 1)
        chosen.setdefault("multiplier_interval", interval)
    image = core_image(_words(layer.y, lanes), mult, bias)
    if placed is not None:
        same = {"n": n, "rows": rows, "x": form, "out": layer.output.format}
        same |= {"shift": layer.shift, "multiplier": chosen["multiplier"]}
        del widths["sum_bits"]
        require_placed(layer.name, placed, widths, same)
        return placed, image
    fields |= widths | chosen
    spec = Int8Spec(
        **fields,
        lanes=lanes,
        bank_latency=device.bank_latency,
        weight_latency=architecture(device.blocks).segment_latency,
    )
    spec = replace(spec, **options)
    if "fifo_depth" not in options:
        flight = 1 + -(-(spec.output_delay + 2) // spec.row_words)
        depth = 2 * (1 << (flight - 1).bit_length())
        spec = replace(spec, fifo_depth=min(128, max(16, depth)))
    return spec, image


def _choices(multiplier: str, layer: Dense, x: IntFormat) -> dict[str, Any]:
    """Lane multipliers take a small device's DSP blocks; its requantizer then is serial."""
    way = multiplier_named(multiplier)
    products = multiplier if x.bits <= way.lane_bits else "logic"
    bits = bits_for(0, int(layer.mult.max(initial=1))) + x.binary
    requantizer = multiplier_for(multiplier, bits) if way.plenty else "serial"
    return {"products": products, "multiplier": "none" if is_threshold(layer) else requantizer}


def _params(layer: Dense, x: IntFormat, *, threshold: bool) -> tuple[IntArray, IntArray]:
    """Multipliers and folded constants for activations that are stored unsigned."""
    offset = 1 << (x.bits - 1) if x.signed else 0
    mult = layer.mult[:, 0]
    bias = layer.bias + (1 << (layer.shift - 1)) - offset * layer.y.sum(axis=1) * mult
    if not x.binary:
        return mult, bias
    # 2 * acc + bias is negative where acc + floor(bias / 2) is.
    return (mult, bias >> 1) if threshold else (2 * mult, bias)


def _widths(
    layer: Dense, x: IntFormat, mult: IntArray, bias: IntArray, spare: int = 0
) -> dict[str, int]:
    """Accumulator, bias and sum widths by their bounds: activations are 0 to ``2**bits - 1``. Sums
    may have ``spare`` percent more."""
    top = (1 << x.bits) - 1
    high = np.maximum(layer.y, 0).sum(axis=1) * top
    low = np.minimum(layer.y, 0).sum(axis=1) * top
    sums = np.concatenate((high, low)) * np.tile(mult, 2) + np.tile(bias, 2)
    least, most = int(min(sums.min(), bias.min(), -1)), int(max(sums.max(), bias.max()))
    return {
        "acc_bits": max(
            2,
            bits_for(
                -with_room(-int(min(low.min(), -1)), spare), with_room(int(high.max()), spare)
            ),
        ),
        "bias_bits": bits_for(int(min(bias.min(), -1)), int(bias.max())),
        "sum_bits": max(bits_for(least, most), layer.shift + layer.output.format.bits + 1),
    }
