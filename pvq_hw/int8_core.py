"""Specification and memory contents of a core with plain 8-bit weights.

P weights in a ROM word and P activations in a RAM word meet in P multipliers, one word a cycle.
The interface is that of `pvq_hw.core.CoreSpec`, so both kinds of core stand in one chain, and the
engine that multiplies is measured beside the one that does not.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.core import CoreSpec
from pvq_hw.errors import InputError
from pvq_hw.families import family as find_family
from pvq_hw.layers import Dense, TensorSpec
from pvq_hw.numeric import IntFormat, bits_for

__all__ = ["WEIGHT_BITS", "Int8Image", "Int8Spec", "make_int8_core", "weight_segments"]

IntArray = npt.NDArray[np.int64]

WEIGHT_BITS = 8
# Widest unsigned activation of each kind of lane multiplier.
_PRODUCTS = {"mult18": 16, "mac16": 8, "logic": 16}
_MULTIPLIERS = ("mult18", "mac16", "serial")


@dataclass(frozen=True)
class Int8Image:
    """Contents of a core's memories.

    Parameters
    ----------
    weights : tuple of int
        Words of P weights, lane 0 lowest, two's complement; row after row.
    mult : tuple of int
        Multipliers, unsigned, one per row.
    bias : tuple of int
        Folded constants, signed, one per row: the layer's bias, the rounding half and what makes
        up for signed activations being offset to unsigned ones.
    """

    weights: tuple[int, ...]
    mult: tuple[int, ...]
    bias: tuple[int, ...]


@dataclass(frozen=True)
class Int8Spec:
    """Numbers of a core with 8-bit weights; validated when made.

    A row takes ``ceil(n / lanes)`` words, whatever its weights. Signed activations are stored
    plus ``2**(bits - 1)``, which inverts their top bit and costs nothing.

    Parameters
    ----------
    name : str
    n, rows, lanes : int
    x, out : IntFormat
        Binary activations have no place here.
    acc_bits, mult_bits, bias_bits, sum_bits, shift : int
        ``clamp((acc * mult + bias) >> shift)``; ``sum_bits`` holds the sum.
    products : str
        Lane multipliers: ``"mult18"`` (one MULT18X18D a lane), ``"mac16"`` (an SB_MAC16 for two
        lanes) or ``"logic"`` (LUTs).
    multiplier, multiplier_interval
        Of the requantizer, see `pvq_hw.core.CoreSpec`.
    bank_latency, weight_latency : int
        Cycles from address to activations, 1 or 2, and to weights, at least one more: a deep ROM
        is several, and the choice between them wants registers of its own.
    carry_chunk, fifo_depth, params_memory, bank_memory, fifo_memory
        See `pvq_hw.core.CoreSpec`.
    """

    name: str
    n: int
    rows: int
    lanes: int
    x: IntFormat
    out: IntFormat
    acc_bits: int
    mult_bits: int
    bias_bits: int
    sum_bits: int
    shift: int
    products: str = "mult18"
    multiplier: str = "mult18"
    multiplier_interval: int = 1
    bank_latency: int = 2
    weight_latency: int = 5
    carry_chunk: int = 0
    fifo_depth: int = 16
    params_memory: str = "block"
    bank_memory: str = "block"
    fifo_memory: str = "logic"

    def __post_init__(self) -> None:
        where = f"Core {self.name!r}"
        for key, low, high in _RANGES:
            value = getattr(self, key)
            if not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"{where}: {key} must be {low} to {high}, not {value}")
        if self.lanes > self.n:
            raise InputError(f"{where}: lanes must be 1 to {self.n}, not {self.lanes}")
        if self.fifo_depth & (self.fifo_depth - 1):
            raise InputError(f"{where}: fifo_depth must be a power of two, not {self.fifo_depth}")
        if self.multiplier not in _MULTIPLIERS:
            raise InputError(
                f"{where}: multiplier must be one of {_MULTIPLIERS}, not {self.multiplier!r}"
            )
        if self.products not in _PRODUCTS:
            raise InputError(
                f"{where}: products must be one of {tuple(_PRODUCTS)}, not {self.products!r}"
            )
        if self.x.binary or self.x.bits > _PRODUCTS[self.products]:
            raise InputError(
                f"{where}: activations must have 2 to {_PRODUCTS[self.products]} bits, "
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
        for key in ("params_memory", "bank_memory", "fifo_memory"):
            if getattr(self, key) not in ("block", "logic"):
                raise InputError(f"{where}: {key} must be block or logic")

    # -- what the control shares with cores of pulses ------------------------------------------

    @property
    def groups(self) -> int:
        """Gains of a row: one."""
        return 1

    @property
    def frames(self) -> int:
        """V: one."""
        return 1

    @property
    def code_latency(self) -> int:
        """When control sees a word, which is as its activations' address is given."""
        return 1

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
    def address_bits(self) -> int:
        """Bits of an address within a half of the activation memory."""
        return max(1, (self.row_words - 1).bit_length())

    @property
    def bank_words(self) -> int:
        """Depth of the activation memory, both halves: the second starts at a power of two."""
        return (1 << self.address_bits) + self.row_words

    @property
    def offset(self) -> int:
        """What is added to an activation to make it unsigned."""
        return 1 << (self.x.bits - 1) if self.x.signed else 0

    @property
    def product_bits(self) -> int:
        """Bits of a lane's product, signed."""
        return WEIGHT_BITS + self.x.bits

    @property
    def memories(self) -> dict[str, tuple[int, int]]:
        """ROMs by name: (width in bits, depth in words)."""
        return {
            f"{self.name}_weights": (WEIGHT_BITS * self.lanes, self.words),
            f"{self.name}_mult": (self.mult_bits, self.rows),
            f"{self.name}_bias": (self.bias_bits, self.rows),
        }

    def contents(self, image: Int8Image) -> dict[str, list[int]]:
        """ROM words by name, unsigned: what the memory files hold."""
        mask = (1 << self.bias_bits) - 1
        return {
            f"{self.name}_weights": list(image.weights),
            f"{self.name}_mult": list(image.mult),
            f"{self.name}_bias": [b & mask for b in image.bias],
        }

    # -- latencies in cycles, after the cycle in which a word's address is given to the ROM ----

    @property
    def wait(self) -> int:
        """Cycles by which the address of the activations waits for the weights."""
        return self.weight_latency - self.code_latency - self.bank_latency

    @property
    def product_delay(self) -> int:
        """Cycles from operands to a lane's product."""
        if self.products == "logic":
            return 1 + (self.x.bits - 1).bit_length()
        return 3 if self.products == "mult18" else 2

    @property
    def tree_levels(self) -> int:
        """Registered levels of the adder tree."""
        return (self.lanes - 1).bit_length()

    @property
    def sum_stage(self) -> int:
        """When a word's tree sum is there."""
        return self.weight_latency + self.product_delay + self.tree_levels

    # The same rules as those of a core of pulses.
    acc_chunks: ClassVar[Any] = CoreSpec.acc_chunks
    bias_chunks: ClassVar[Any] = CoreSpec.bias_chunks
    multiplier_parts: ClassVar[Any] = CoreSpec.multiplier_parts
    multiplier_delay: ClassVar[Any] = CoreSpec.multiplier_delay
    row_stage: ClassVar[Any] = CoreSpec.row_stage
    product_stage: ClassVar[Any] = CoreSpec.product_stage
    output_delay: ClassVar[Any] = CoreSpec.output_delay

    # -- golden model --------------------------------------------------------------------------

    def compute(self, image: Int8Image, x: npt.ArrayLike) -> IntArray:
        """Exact model from the memory contents: (frames, n) -> (frames, rows)."""
        array = np.asarray(x, dtype=np.int64).reshape(-1, self.n) + self.offset
        acc = array @ self.decode(image).T
        total = acc * np.array(image.mult, dtype=np.int64) + np.array(image.bias, dtype=np.int64)
        return np.asarray(self.out.clamp(total >> self.shift), dtype=np.int64)

    def decode(self, image: Int8Image) -> IntArray:
        """The weights (rows, n) of the image's words; raises InputError on broken ones."""
        where = f"Core {self.name!r}"
        size = self.lanes * WEIGHT_BITS
        if len(image.weights) != self.words:
            raise InputError(f"{where} has {len(image.weights)} words, not {self.words}")
        if any(w < 0 or w >> size for w in image.weights):
            raise InputError(f"{where}: words must have {size} bits")
        raw = b"".join(w.to_bytes(self.lanes, "little") for w in image.weights)
        table = np.frombuffer(raw, dtype=np.int8).reshape(self.rows, self.row_words, self.lanes)
        return _from_lanes(table.astype(np.int64), self.n)

    def row_slots(self, image: Int8Image) -> tuple[int, ...]:
        """Words of every row."""
        return (self.row_words,) * self.rows

    # -- files ---------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON values."""
        return asdict(self) | {"x": self.x.to_json(), "out": self.out.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Int8Spec":
        """Inverse of `to_json`; raises InputError on anything else."""
        try:
            parts = {key: IntFormat.from_json(value[key]) for key in ("x", "out")}
            return cls(**{**value, **parts})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"Core specification is broken: {error}") from None


# Words of a block RAM in a shape that wastes no bits of 128-bit words.
_SEGMENT = {"ecp5": 2048, "ice40": 256}


def weight_segments(words: int, blocks: str) -> tuple[int, ...]:
    """Depths of the ROMs that the weights are cut into, none of which is cut again."""
    step = _SEGMENT[blocks]
    return tuple(min(step, words - start) for start in range(0, words, step))


_RANGES = (
    ("n", 1, 1 << 20),
    ("rows", 1, 1 << 20),
    ("lanes", 1, 1024),
    ("acc_bits", 2, 48),
    ("mult_bits", 1, 32),
    ("bias_bits", 1, 62),
    ("sum_bits", 2, 63),
    ("shift", 1, 62),
    ("multiplier_interval", 1, 32),
    ("bank_latency", 1, 2),
    ("weight_latency", 2, 5),
    ("carry_chunk", 0, 63),
    ("fifo_depth", 16, 256),
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
    **options: Any,
) -> tuple[Int8Spec, Int8Image]:
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
        Key of `pvq_hw.families.FAMILIES`; sets latencies, carry chunks and multipliers.
    name : str, optional
        Stem of the memory files; the layer's name by default, reduced to letters and digits.
    **options
        Fields of `Int8Spec` to set otherwise.
    """
    layer.verify(x)
    rows, n = layer.y.shape
    where = f"Layer {layer.name!r}"
    if layer.groups != 1:
        raise InputError(f"{where} must have one gain per row, not {layer.groups}")
    if np.any((layer.y < -128) | (layer.y > 127)):
        raise InputError(f"{where} must have weights of -128 to 127")
    if not 1 <= lanes <= n:
        raise InputError(f"{where}: lanes must be 1 to {n}, not {lanes}")
    device = find_family(family)
    chosen = _choices(device.multiplier)
    chosen |= {key: options[key] for key in chosen if key in options}
    mult_bits = bits_for(0, int(layer.mult.max(initial=1)))
    if chosen["multiplier"] == "serial":
        chosen.setdefault("multiplier_interval", min(-(-n // lanes), mult_bits))
    form = x.format
    offset = 1 << (form.bits - 1) if form.signed else 0
    bias = layer.bias + (1 << (layer.shift - 1)) - offset * layer.y.sum(axis=1) * layer.mult[:, 0]
    spec = Int8Spec(
        name=name or _stem(layer.name),
        n=n,
        rows=rows,
        lanes=lanes,
        x=form,
        out=layer.output.format,
        mult_bits=mult_bits,
        shift=layer.shift,
        bank_latency=device.bank_latency,
        weight_latency=5 if device.blocks == "ecp5" else 2,
        carry_chunk=device.carry_chunk,
        params_memory="logic" if rows <= device.logic_rows else "block",
        fifo_memory="logic" if device.lutram else "block",
        **{**_widths(layer, form, bias), **chosen},
    )
    spec = replace(spec, **options)
    if "fifo_depth" not in options:
        flight = 1 + -(-(spec.output_delay + 2) // spec.row_words)
        depth = 2 * (1 << (flight - 1).bit_length())
        spec = replace(spec, fifo_depth=min(128, max(16, depth)))
    image = Int8Image(
        weights=_words(layer.y, lanes),
        mult=tuple(int(m) for m in layer.mult[:, 0]),
        bias=tuple(int(b) for b in bias),
    )
    return spec, image


def _choices(multiplier: str) -> dict[str, Any]:
    """Lane multipliers take a small device's DSP blocks; its requantizer then is serial."""
    if multiplier == "mult18":
        return {"products": "mult18", "multiplier": "mult18"}
    return {"products": "mac16" if multiplier == "mac16" else "logic", "multiplier": "serial"}


def _widths(layer: Dense, x: IntFormat, bias: IntArray) -> dict[str, int]:
    """Accumulator, bias and sum widths by their bounds: activations are 0 to ``2**bits - 1``."""
    top = (1 << x.bits) - 1
    high = np.maximum(layer.y, 0).sum(axis=1) * top
    low = np.minimum(layer.y, 0).sum(axis=1) * top
    sums = np.concatenate((high, low)) * np.tile(layer.mult[:, 0], 2) + np.tile(bias, 2)
    least, most = int(min(sums.min(), bias.min(), -1)), int(max(sums.max(), bias.max()))
    return {
        "acc_bits": max(2, bits_for(int(min(low.min(), -1)), int(high.max()))),
        "bias_bits": bits_for(int(min(bias.min(), -1)), int(bias.max())),
        "sum_bits": max(bits_for(least, most), layer.shift + layer.output.format.bits + 1),
    }


def _stem(name: str) -> str:
    """A file stem: letters, digits and underscores of the name."""
    stem = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:64]
    return stem if stem[:1].isalpha() else f"layer_{stem}"
