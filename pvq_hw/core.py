"""Specification and memory contents of a layer's core: the numbers that golden model, timing
model, planner and circuit share.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.codes import PulseCode, choose_gap_bits
from pvq_hw.errors import InputError
from pvq_hw.families import family as find_family
from pvq_hw.layers import Dense, TensorSpec
from pvq_hw.numeric import IntFormat, accumulator_bits, bits_for
from pvq_hw.schedule import Schedule

__all__ = ["CoreImage", "CoreSpec", "make_core"]

IntArray = npt.NDArray[np.int64]

_MULTIPLIERS = ("mult18", "mac16", "serial")
_MULTIPLIER_LIMITS = {"mult18": (18, 17), "mac16": (16, 16)}


@dataclass(frozen=True)
class CoreImage:
    """Contents of a core's memories.

    Parameters
    ----------
    codes : tuple of int
        Slot words.
    mult : tuple of int
        Multipliers, unsigned, rows x groups, groups fastest.
    bias : tuple of int
        Folded constants, signed, one per row: the layer's bias, the rounding half and what makes
        up for the inverted leaves, ``sum_g mult[g] * negatives[g]``.
    """

    codes: tuple[int, ...]
    mult: tuple[int, ...]
    bias: tuple[int, ...]


@dataclass(frozen=True)
class CoreSpec:
    """Numbers of a layer's core; validated when made.

    Parameters
    ----------
    name : str
        Stem of the core's memory files.
    n, rows, groups : int
        Columns, rows, gains per row.
    x, out : IntFormat
    code : PulseCode
        Its ``lanes`` is P.
    words : int
        Slot words of a frame.
    frames : int
        V: frames in one bank word. V frames share one code stream and one bank read.
    acc_bits : int
        Accumulator: the bound ``K * (max|x| + 1)`` with K the largest sum of pulses of a group.
    mult_bits, bias_bits, sum_bits, shift : int
        ``clamp((sum_g acc * mult + bias) >> shift)``; ``sum_bits`` holds the sum.
    multiplier : str
        ``"mult18"``, ``"mac16"`` or ``"serial"``.
    multiplier_interval : int
        Cycles between two products; every group has at least as many slots. 1 unless serial.
    code_latency, bank_latency : int
        1 to 3, and 1 or 2 cycles.
    carry_chunk : int
        0, or the longest carry chain of accumulator and bias adder.
    fifo_depth : int
        Results that may be in flight, times two; a power of two, at least 16: the
        credit counter sees rows ``code_latency + 1`` cycles late.
    params_memory, bank_memory, fifo_memory : str
        ``"block"`` or ``"logic"``.
    """

    name: str
    n: int
    rows: int
    groups: int
    x: IntFormat
    out: IntFormat
    code: PulseCode
    words: int
    frames: int
    acc_bits: int
    mult_bits: int
    bias_bits: int
    sum_bits: int
    shift: int
    multiplier: str = "mult18"
    multiplier_interval: int = 1
    code_latency: int = 2
    bank_latency: int = 2
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
        if self.n % self.groups:
            raise InputError(f"{where}: columns must divide into {self.groups} groups")
        if self.code.lanes > self.n:
            raise InputError(f"{where}: lanes must be 1 to {self.n}, not {self.code.lanes}")
        if self.fifo_depth & (self.fifo_depth - 1):
            raise InputError(f"{where}: fifo_depth must be a power of two, not {self.fifo_depth}")
        if self.multiplier not in _MULTIPLIERS:
            raise InputError(
                f"{where}: multiplier must be one of {_MULTIPLIERS}, not {self.multiplier!r}"
            )
        limit = _MULTIPLIER_LIMITS.get(self.multiplier)
        if limit and self.mult_bits > limit[1]:
            raise InputError(
                f"{where}: multipliers must have at most {limit[1]} bits, not {self.mult_bits}"
            )
        for key in ("params_memory", "bank_memory", "fifo_memory"):
            if getattr(self, key) not in ("block", "logic"):
                raise InputError(f"{where}: {key} must be block or logic")

    # -- shapes -----------------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        """P."""
        return self.code.lanes

    @property
    def bank_depth(self) -> int:
        """Addresses of one half of a bank."""
        return self.code.bank_depth(self.n)

    @property
    def address_bits(self) -> int:
        """Bits of an address within a half."""
        return max(1, (self.bank_depth - 1).bit_length())

    @property
    def bank_words(self) -> int:
        """Depth of a bank's memory, both halves: the second half starts at a power of two."""
        return (1 << self.address_bits) + self.bank_depth

    @property
    def leaf_bits(self) -> int:
        """Bits of a leaf, signed: an unsigned activation gets a sign, a binary one a zero."""
        base = self.x.bits + (not self.x.signed or self.x.binary)
        return int(base) + self.code.max_shift

    @property
    def memories(self) -> dict[str, tuple[int, int]]:
        """ROMs by name: (width in bits, depth in words)."""
        return {
            f"{self.name}_codes": (self.code.word_bits, self.words),
            f"{self.name}_mult": (self.mult_bits, self.rows * self.groups),
            f"{self.name}_bias": (self.bias_bits, self.rows),
        }

    def contents(self, image: CoreImage) -> dict[str, list[int]]:
        """ROM words by name, unsigned: what the memory files hold."""
        mask = (1 << self.bias_bits) - 1
        return {
            f"{self.name}_codes": list(image.codes),
            f"{self.name}_mult": list(image.mult),
            f"{self.name}_bias": [b & mask for b in image.bias],
        }

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
    def multiplier_parts(self) -> int:
        """DSP blocks of the multiplier: a wide accumulator is split."""
        if self.multiplier not in _MULTIPLIER_LIMITS:
            return 0
        bits = _MULTIPLIER_LIMITS[self.multiplier][0] - 1
        return max(1, -(-(self.acc_bits - 1) // bits))

    @property
    def multiplier_delay(self) -> int:
        """Cycles from operands to product."""
        if self.multiplier == "serial":
            return self.mult_bits + 1
        return 3 if self.multiplier_parts == 1 else 2 + self.multiplier_parts

    @property
    def sum_stage(self) -> int:
        """When a word's tree sum is there."""
        shifted = int(self.code.shift_bits > 0)
        return self.code_latency + 2 + self.bank_latency + shifted + self.tree_levels

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
        return self.product_stage + self.bias_chunks + 1 + 2

    # -- golden model -----------------------------------------------------------------------

    @property
    def inverted(self) -> bool:
        """Whether a negative pulse adds ``~x``; binary activations are negated exactly."""
        return not self.x.binary

    def compute(self, image: CoreImage, x: npt.ArrayLike) -> IntArray:
        """Exact model from the memory contents: (frames, n) -> (frames, rows)."""
        array = np.asarray(x, dtype=np.int64).reshape(-1, self.n)
        y = self.decode(image)
        mult = np.array(image.mult, dtype=np.int64).reshape(self.rows, self.groups)
        total = np.zeros((len(array), self.rows), dtype=np.int64)
        width = self.n // self.groups
        negatives = _negatives(self.code, image.codes).reshape(self.rows, self.groups)
        for g in range(self.groups):
            part = slice(g * width, (g + 1) * width)
            acc = array[:, part] @ y[:, part].T - self.inverted * negatives[:, g]
            total += acc * mult[:, g]
        total += np.array(image.bias, dtype=np.int64)
        return np.asarray(self.out.clamp(total >> self.shift), dtype=np.int64)

    def decode(self, image: CoreImage) -> IntArray:
        """The weights (rows, n) of the image's codes; raises InputError on broken ones."""
        if len(image.codes) != self.words:
            raise InputError(f"Core {self.name!r} has {len(image.codes)} words, not {self.words}")
        return self.code.decode(image.codes, (self.rows, self.n), self.groups)

    def row_slots(self, image: CoreImage) -> tuple[int, ...]:
        """Words of every row, its groups together."""
        last = self.code.word_bits - 1
        ends = [i for i, w in enumerate(image.codes) if w >> last]
        rows = [-1, *ends[self.groups - 1 :: self.groups]]
        return tuple(b - a for a, b in pairwise(rows))

    # -- files ------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON values."""
        value = asdict(self)
        return value | {
            "x": self.x.to_json(),
            "out": self.out.to_json(),
            "code": self.code.to_json(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "CoreSpec":
        """Inverse of `to_json`; raises InputError on anything else."""
        try:
            parts = {
                "x": IntFormat.from_json(value["x"]),
                "out": IntFormat.from_json(value["out"]),
                "code": PulseCode.from_json(value["code"]),
            }
            return cls(**{**value, **parts})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"Core specification is broken: {error}") from None


_RANGES = (
    ("n", 1, 1 << 20),
    ("rows", 1, 1 << 20),
    ("groups", 1, 1 << 16),
    ("words", 1, 1 << 24),
    ("frames", 1, 16),
    ("acc_bits", 2, 48),
    ("mult_bits", 1, 32),
    ("bias_bits", 1, 62),
    ("sum_bits", 2, 63),
    ("shift", 1, 62),
    ("multiplier_interval", 1, 32),
    ("code_latency", 1, 3),
    ("bank_latency", 1, 2),
    ("carry_chunk", 0, 63),
    ("fifo_depth", 16, 256),
)


def _negatives(code: PulseCode, words: Sequence[int]) -> IntArray:
    """Per group, the sum of ``2**shift`` over its negative pulses."""
    gap, sign, shift, last = code.fields(words)
    weight = np.where(gap != code.escape, sign << shift, 0).sum(axis=1)
    group = np.cumsum(last) - last
    out = np.zeros(int(last.sum()), dtype=np.int64)
    np.add.at(out, group, weight)
    return out


def _weight_of_pulses(code: PulseCode, words: Sequence[int]) -> IntArray:
    """Per group, the sum of ``2**shift`` over all pulses: K of its digits."""
    gap, _, shift, last = code.fields(words)
    weight = np.where(gap != code.escape, 1 << shift, 0).sum(axis=1)
    out = np.zeros(int(last.sum()), dtype=np.int64)
    np.add.at(out, np.cumsum(last) - last, weight)
    return out


def _interval(slots: Sequence[int], mult_bits: int) -> int:
    """The longest interval of a serial multiplier whose padding adds at most 1 % of the slots."""
    array = np.array(slots, dtype=np.int64)
    for interval in range(mult_bits, 1, -1):
        padded = np.maximum(array, interval).sum()
        if padded <= 1.01 * array.sum() or interval <= array.min():
            return interval
    return 1


def make_core(
    layer: Dense,
    x: TensorSpec,
    lanes: int,
    *,
    frames: int = 1,
    gap_bits: int | None = None,
    shift_bits: int = 0,
    family: str = "ecp5",
    name: str | None = None,
    **options: Any,
) -> tuple[CoreSpec, CoreImage]:
    """Specification and contents of a layer's core.

    Parameters
    ----------
    layer : Dense
        With ``encoding == "pvq"``.
    x : TensorSpec
        The layer's input.
    lanes : int
        P, 1 to N.
    frames : int
        V.
    gap_bits : int, optional
        Chosen by `choose_gap_bits` unless given.
    shift_bits : int
        0 for unit pulses.
    family : str
        Key of `pvq_hw.families.FAMILIES`; sets latencies, carry chunks and multiplier.
    name : str, optional
        Stem of the memory files; the layer's name by default, reduced to letters and digits.
    **options
        Fields of `CoreSpec` to set otherwise (``multiplier``, ``params_memory``, ...).
    """
    layer.verify(x)
    rows, n = layer.y.shape
    if not 1 <= lanes <= n:
        raise InputError(f"Layer {layer.name!r}: lanes must be 1 to {n}, not {lanes}")
    device = find_family(family)
    groups = layer.groups
    if gap_bits is None:
        gap_bits = choose_gap_bits(layer.y, lanes, groups=groups, shift_bits=shift_bits)
    code = PulseCode(lanes, gap_bits, shift_bits)
    mult_bits = bits_for(0, int(layer.mult.max(initial=1)))
    schedule = code.encode(layer.y, groups)
    interval = 1
    if options.get("multiplier", device.multiplier) == "serial":
        interval = options.get("multiplier_interval") or _interval(schedule.row_slots, mult_bits)
        schedule = code.encode(layer.y, groups, min_slots=interval)
    image = _image(layer, code, schedule, x.format)
    widths = _widths(layer, code, schedule, x.format, image)
    spec = CoreSpec(
        name=name or _stem(layer.name),
        n=n,
        rows=rows,
        groups=groups,
        x=x.format,
        out=layer.output.format,
        code=code,
        words=schedule.slots,
        frames=frames,
        acc_bits=widths["acc_bits"],
        mult_bits=mult_bits,
        bias_bits=widths["bias_bits"],
        sum_bits=widths["sum_bits"],
        shift=layer.shift,
        multiplier=device.multiplier,
        multiplier_interval=interval,
        code_latency=device.code_latency,
        bank_latency=device.bank_latency,
        carry_chunk=device.carry_chunk,
        params_memory="logic" if rows * groups <= device.logic_rows else "block",
    )
    spec = replace(spec, **options)
    if "fifo_depth" not in options:
        spec = replace(spec, fifo_depth=_fifo_depth(spec))
    if "fifo_memory" not in options:
        spec = replace(spec, fifo_memory="logic" if device.lutram else "block")
    return spec, image


def _image(layer: Dense, code: PulseCode, schedule: Schedule, x: IntFormat) -> CoreImage:
    """Memory contents, the constants folded into the bias."""
    rows = len(layer.y)
    negatives = _negatives(code, schedule.words).reshape(rows, layer.groups)
    bias = layer.bias + (1 << (layer.shift - 1))
    if not x.binary:
        bias = bias + (layer.mult * negatives).sum(axis=1)
    return CoreImage(
        codes=schedule.words,
        mult=tuple(int(m) for m in layer.mult.ravel()),
        bias=tuple(int(b) for b in bias),
    )


def _widths(
    layer: Dense, code: PulseCode, schedule: Schedule, x: IntFormat, image: CoreImage
) -> dict[str, int]:
    """Accumulator, bias and sum widths by their bounds."""
    k = _weight_of_pulses(code, schedule.words).reshape(layer.mult.shape)
    # ~x of a signed activation is within the range of x; of an unsigned one it is -(max|x| + 1).
    inverted = not x.signed
    acc_bits = max(2, accumulator_bits(int(k.max(initial=1)), x, inverted_leaves=inverted))
    bound = (k * layer.mult).sum(axis=1) * (x.max_abs + inverted)
    low = min(image.bias)
    high = max(image.bias)
    total = max(int((bound + np.abs(np.array(image.bias))).max()), 1)
    return {
        "acc_bits": acc_bits,
        "bias_bits": bits_for(min(low, -1), high),
        "sum_bits": max(bits_for(-total, total), layer.shift + layer.output.format.bits + 1),
    }


def _fifo_depth(spec: CoreSpec) -> int:
    """Twice the rows in flight at full rate: rows of the mean length over the pipeline's."""
    mean = max(1.0, spec.words / spec.rows)
    flight = 1 + -(-(spec.output_delay + 2) // mean)
    return int(min(128, max(16, 2 * (1 << (int(flight) - 1).bit_length()))))


def _stem(name: str) -> str:
    """A file stem: letters, digits and underscores of the name."""
    stem = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:64]
    return stem if stem[:1].isalpha() else f"layer_{stem}"
